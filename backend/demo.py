"""`saevx demo`: a folder with everything, made step by step; what is there already stays."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from precompute.errors import SaevxError
from precompute.store.opening import read_manifest
from precompute.utils.ownership import exclusive


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def make(folder: Path, n_samples: int) -> Path:
    """Leave FOLDER/model, sae, data and store. Returns the store.

    Raises SaevxError where the store there was made of another number of samples, as a store never changes; or is
    damaged, or of another version."""
    with exclusive(folder / "demo"):
        return _make(folder, n_samples)


def _make(folder: Path, n_samples: int) -> Path:
    store = folder / "store"
    if (store / "manifest.json").is_file():
        made = read_manifest(store)["data"].get("n_rows")
        if made != n_samples:
            raise SaevxError(
                f"{store} holds {made} samples, not {n_samples}: choose another --dir, or delete {store}."
            )
        say(f"{store} is there already: nothing to make.")
        return store
    begin = time.monotonic()
    from precompute.demo.make import build

    build(folder, n_samples, say)
    from precompute.options.precompute import Options
    from precompute.pipeline import precompute  # takes seconds, while the pictures are drawn

    say(f"Reading {n_samples} pairs with the model and its SAE-V (the offline pass):")
    options = Options(
        data=str(folder / "data"),
        model=str(folder / "model"),
        sae=str(folder / "sae"),
        out=store,
        name="demo",
        model_name="SmolLM2-135M + EfficientNet-Lite0",
        sae_name="saevx-demo",
        data_name="demo scenes",
        nll=True,
    )
    precompute(options)
    say(f"The demo is ready in {folder} after {time.monotonic() - begin:.0f} s.")
    return store
