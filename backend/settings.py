"""All settings of the server in one place. `saevx serve` fills them from its options; each can also be set by
an environment variable of the same name with the prefix SAEVX_."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from precompute.usage import UrlPath


class Settings(BaseSettings):
    """What a running server is made of."""

    model_config = SettingsConfigDict(
        env_prefix="SAEVX_", use_attribute_docstrings=True, extra="forbid", allow_inf_nan=False
    )

    stores: list[Path] = Field(default_factory=list)
    """Finished store folders; the first is the default."""
    live: bool = True
    """Load the model for image search, scoring and steering."""
    root_path: UrlPath = ""
    """Path under which a proxy shows this server, such as /saevx."""

    model: str | None = None
    """Model folder or hub name for live requests; default: the one the store was made with."""
    sae: str | None = None
    """SAE folder for live requests; default: the one the store was made with."""
    device: str = "auto"
    """Where the live model runs: auto (CUDA, else CPU), cpu, cuda, cuda:1, mps."""
    dtype: str = "auto"
    """Number type of the live model: auto, float32, bfloat16, float16."""
    device_map: str | None = None
    """Hand the model to accelerate's device map, such as auto, to spread it over several devices."""
    quantize: Literal["8bit", "4bit"] | None = None
    """8bit or 4bit."""
    queue: int = Field(default=8, ge=1)
    """Live requests that may wait; one more is answered 503."""

    max_upload_mb: float = Field(default=16, gt=0)
    """Largest request body, in MB."""
    max_megapixels: float = Field(default=50, gt=0)
    """Largest picture, in millions of pixels once unpacked."""
