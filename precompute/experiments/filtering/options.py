"""Options of `saevx experiment …`, apart from what runs them, so that `--help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from precompute.utils.command_line import CommandOptions, Count, Percent, Seed


class FilteringOptions(CommandOptions):
    """What the filtering experiment depends on."""

    demo: Path = Path("demo")
    """Folder that `saevx demo` made: its model, SAE-V and store score the pairs."""
    work: Path = Path("demo/filtering")
    """Folder for the pairs, their scores and cached vision features; made again where it is missing."""
    out: Path = Path("docs/results/filtering.jsonl")
    """Result file: one line for each run, appended as it ends; runs that it holds already are not done again."""
    method: Literal["sft", "dpo"] = "sft"
    """sft: captions are learnt; dpo: after sft on all pairs, a caption is preferred to itself with one word changed."""
    scores: list[str] = Field(default=["cosine", "cooccurring-l0", "pooled-cosine", "facility-location", "random"])
    """Scores to keep by, or facility-location, which chooses a set; `baselines` adds `caption-nll` and `oracle`."""
    keep: list[Percent] = Field(default=[20.0, 50.0])
    """Percent of the pairs kept by each score."""
    baselines: bool = True
    """Also keep by caption-nll, which needs no SAE, and by an oracle that knows the swaps."""
    seeds: list[Seed] = Field(default=[0, 1, 2])
    """Seeds of a run's initial LoRA, order of data and random choice."""
    swapped: float = Field(default=0.3, ge=0, lt=1)
    """Share of the pairs that carry another pair's caption; 0 takes the pairs as they are."""
    n_pairs: int = Field(default=1000, ge=8)
    """Pairs to choose from."""
    steps: Count = 60
    """Training steps of every run, whatever the number of pairs kept."""
    n_test: Count = 200
    """Held-out scenes."""
    n_start: int = Field(default=4000, ge=32)
    """Train scenes from which the starting projector is learnt: half of the demo's own."""
