"""Options of `saevx controls`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import CliPositionalArg

from precompute.options.shared import StoreModel
from precompute.utils.command_line import Count, Seed


class ControlsOptions(StoreModel):
    """How often features pass the test behind `cross-modal` where there is nothing to find."""

    store: CliPositionalArg[Path]
    """Folder of a finished store, which stays as it is."""
    derangements: Annotated[Count, Field(le=1000)] = 20
    """How many times the captions are exchanged among the pairs."""
    random_directions: bool = True
    """Also test random directions, for which the model runs once more; --no-random-directions leaves them out."""
    samples: Count = 1000
    """Pairs on which random directions are tested, those with the smallest SHA-256 of the sample id."""
    batch_tokens: Count = 4096
    """Most tokens in a batch of the model, padding counted."""
    seed: Seed = 0
    """Seed of every choice by chance."""
    out: Path | None = None
    """JSON file to write; default: STORE.controls.json, which the explorer shows."""
