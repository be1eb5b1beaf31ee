"""Options of `saevx score`, apart from the work so that `--help` need not load a model's libraries."""

from pathlib import Path

from pydantic_settings import CliPositionalArg

from precompute.options.shared import FromStore, Output, RayWorkers, Scoring, TextOnly


class ScoreOptions(FromStore, TextOnly, Scoring, RayWorkers, Output):
    """Score any number of new pairs with the ω of a finished store."""

    data: CliPositionalArg[str]
    """Pairs, as `saevx precompute` takes them."""
    out: Path
    """File to write, .parquet or .jsonl; it must not exist yet. Rejected rows go to .quarantine.jsonl."""

    @property
    def quarantine(self) -> Path:
        return self.out.with_suffix(".quarantine.jsonl")
