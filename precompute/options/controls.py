"""Options of `saevx controls`."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from precompute.options.shared import Compute, FromStore
from precompute.utils.command_line import Count, Seed


class ControlsOptions(Compute):
    """How often features pass the test behind `cross-modal` where there is nothing to find."""

    store: CliPositionalArg[Path]
    """Folder of a finished store, which stays as it is."""
    derangements: Count = 20
    """How many times the captions are exchanged among the pairs."""
    random_directions: bool = True
    """Also test random directions, for which the model runs once more; --no-random-directions leaves them out."""
    samples: Count = 1000
    """Pairs on which random directions are tested, those with the smallest SHA-256 of the sample id."""
    batch_tokens: Count = 4096
    """Most tokens in a batch of the model, padding counted."""
    model: str | None = None
    """Model folder or hub id; default: the one the store was made with."""
    sae: str | None = None
    """SAE folder; default: the one the store was made with."""
    seed: Seed = 0
    """Seed of every choice by chance."""
    out: Path | None = None
    """JSON file to write; default: STORE.controls.json, which the explorer shows."""

    @property
    def from_store(self) -> FromStore:
        """How the store's model and SAE are loaded again."""
        return FromStore(
            store=self.store, model=self.model, sae=self.sae, device=self.device, dtype=self.dtype,
            device_map=self.device_map,
        )  # fmt: skip
