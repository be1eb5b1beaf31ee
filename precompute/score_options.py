"""Options of `saevx score`, apart from the work so that `--help` need not load a model's libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from precompute.options import Fields


class ScoreOptions(Fields):
    """Score any number of new pairs with the ω of a finished store."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    data: str
    """Pairs, as `saevx precompute` takes them."""
    store: Path
    """Folder of the store whose ω, scale and thresholds are used."""
    out: Path
    """File to write, .parquet or .jsonl; it must not exist yet. What is set aside goes to .quarantine.jsonl."""
    nll: bool = False
    """Also measure each caption's cross-entropy given its image (score caption-nll); runs the whole model."""
    batch_tokens: int | None = Field(default=None, ge=1)
    """Most tokens in a batch, padding counted; default: as the store was made."""
    shard_samples: int = Field(default=1024, ge=1)
    """Rows of the data in a shard, after which a killed run can go on."""
    model: str | None = None
    """Model folder or hub id; default: the one the store was made with."""
    sae: str | None = None
    """SAE folder; default: the one the store was made with."""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the model; auto is the one the store was made with."""
    device_map: str | None = None
    """Hand the model to accelerate's device map, such as auto, to spread it over several devices."""

    @property
    def part(self) -> Path:
        return self.out.with_name(self.out.name + ".part")

    @property
    def quarantine(self) -> Path:
        return self.out.with_suffix(".quarantine.jsonl")
