"""Options of `saevx score`, apart from the work so that `--help` need not load a model's libraries."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict

from precompute.options.shared import FromStore, Spread, TextOnly
from precompute.utils.command_line import Count


class ScoreOptions(Spread, FromStore, TextOnly):
    """Score any number of new pairs with the ω of a finished store."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid")

    data: str
    """Pairs, as `saevx precompute` takes them."""
    out: Path
    """File to write, .parquet or .jsonl; it must not exist yet. Rejected rows go to .quarantine.jsonl."""
    nll: bool = False
    """Also measure each caption's cross-entropy given its image (score caption-nll); runs the whole model."""
    shard_samples: Count = 1024
    """Rows of the data in a shard, after which a killed run can go on."""

    @property
    def part(self) -> Path:
        return self.out.with_name(self.out.name + ".part")

    @property
    def quarantine(self) -> Path:
        return self.out.with_suffix(".quarantine.jsonl")
