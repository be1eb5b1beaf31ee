"""Options of `saevx experiment hallucination`, apart from what runs it, so that `--help` answers at once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from precompute.utils.command_line import CommandOptions, Count, Seed


class HallucinationOptions(CommandOptions):
    """What the hallucination experiment depends on."""

    store: Path = Path("demo/store")
    """Store whose model, SAE-V and units are used."""
    objects: Path | None = None
    """JSONL of own images: `image` (a path that starts at the file's folder) and `objects` (names, or objects with a
    `name`, such as boxes have); default: scenes of the demo that no training showed."""
    out: Path = Path("docs/results/hallucination.json")
    """Result file; an existing one is replaced."""
    attach: bool = False
    """Also write STORE.hallucination.json, with the separation of every feature, which the explorer shows."""
    n_scenes: Count = 200
    """Images; half of them choose features, threshold and strength, the others are reported."""
    n_features: Count = 8
    """Features that are steered together."""
    strengths: list[float] = Field(default=[0.25, 0.5, 1.0], min_length=1)
    """Strengths to choose from, in units of each feature's p99.9."""
    n_random: Count = 3
    """Random sets of as many features, with a change as long."""
    seed: Seed = 0
    """Seed of the questions, of random sets and of resamples."""
