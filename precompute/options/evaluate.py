"""Options of `saevx evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import CliPositionalArg

from precompute.options.shared import DataFields, ModelLoading, SaeFile, Sinks
from precompute.utils.command_line import Count, Seed


class EvaluateOptions(DataFields, ModelLoading, SaeFile, Sinks):
    """What an evaluation depends on."""

    sae: CliPositionalArg[str]
    """SAE: a SAELens folder, RELEASE:SAE_ID of SAELens' list, or a hub id."""
    data: CliPositionalArg[str]
    """Pairs or texts, as `saevx precompute` takes them; rows without an image are text alone."""
    model: str
    """Model to put the SAE into; for transfer the text-only model that the other one was made from."""
    layer: int | None = Field(default=None, ge=0)
    """Decoder layer L, counted from 0; default: the one in the SAE's own config."""
    text_alone: bool = False
    """Leave the images out and run the text without them."""
    text_only: bool = False
    """The same as --text-alone."""
    patch_special: bool = False
    """Replace special tokens and attention sinks too; most models fail without their sink, whatever the SAE."""
    max_samples: Count | None = None
    """Samples to use, those with the smallest SHA-256 of the sample id; default: all."""
    resamples: Count = 1000
    """Bootstrap resamples of the samples, for the 95 % intervals."""
    batch_tokens: Count = 4096
    """Most tokens in a batch, padding counted."""
    seed: Seed = 0
    """Seed of the resamples."""
    out: Path | None = None
    """JSON file to write; default: standard output. The page /sae shows SAE/evaluation.json."""

    @model_validator(mode="after")
    def one_name(self) -> Self:
        if self.text_only:
            self.text_alone = True
        return self
