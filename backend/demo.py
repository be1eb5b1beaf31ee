"""`saevx demo`: a folder with model, SAE, data, store and its controls, made step by step; existing parts are not made
again."""

import time
from pathlib import Path

from precompute.errors import SaevxError
from precompute.store.companion_files import CONTROLS, read_companion
from precompute.store.opening import read_manifest
from precompute.utils.ownership import exclusive
from precompute.utils.progress import say


def make(folder: Path, n_samples: int) -> Path:
    """Make `model`, `sae`, `data`, `store` and `store.controls.json` in the folder, and return the store's path.

    Raises:
        SaevxError: the folder's store has another number of samples (a store never changes), is damaged, or is of
            another version.
    """
    with exclusive(folder / "demo"):
        store = _make(folder, n_samples)
        if read_companion(store, CONTROLS, read_manifest(store)["content_id"])[0] is None:
            _measure_controls(store)
        from precompute.demo.make import attach_hallucination

        attach_hallucination(store)
        return store


def _make(folder: Path, n_samples: int) -> Path:
    store = folder / "store"
    if (store / "manifest.json").is_file():
        n_rows = read_manifest(store)["data"].get("n_rows")
        if n_rows != n_samples:
            raise SaevxError(
                f"{store} holds {n_rows} samples, not {n_samples}: choose another --dir, or delete {store}."
            )
        say(f"{store} already exists: nothing to make.")
        return store
    begin = time.monotonic()
    from precompute.demo.make import build

    build(folder, n_samples, say)
    from precompute.options.precompute import PrecomputeOptions
    from precompute.pipeline import precompute  # takes seconds, while the images are drawn

    say(f"Reading {n_samples} pairs with the model and its SAE-V (the offline pass):")
    options = PrecomputeOptions(
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


def _measure_controls(store: Path) -> None:
    """Those that need no model: captions exchanged, and the text alone. They take seconds."""
    from precompute.controls.run import controls
    from precompute.demo.make import attach_random_directions
    from precompute.options.controls import ControlsOptions

    say("Measuring how many features would be cross-modal by chance (saevx controls without random directions):")
    controls(ControlsOptions(store=store, random_directions=False))
    attach_random_directions(store)
