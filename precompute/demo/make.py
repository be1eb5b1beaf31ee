"""The demo's folder: model, SAE-V and data, each made where it is not there already."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import NamedTuple

from precompute.demo.assemble import ADAPTER, SAE, assemble
from precompute.demo.dataset import N_DEMO, build_dataset
from precompute.errors import SaevxError
from precompute.store.companion_files import CONTROLS, HALLUCINATION, companion_path
from precompute.store.opening import read_manifest
from precompute.utils.files import atomic_folder, write_text

HALLUCINATION_FIGURES = SAE.parent / "hallucination.json"
"""What `saevx experiment hallucination --attach` wrote for the demo's store."""
RANDOM_DIRECTIONS = SAE.parent / "random-directions.json"
"""The control that `saevx controls` takes minutes for, on the demo's 1,500 pairs."""


class DemoPaths(NamedTuple):
    """Where the offline pass finds what it needs."""

    model: Path
    sae: Path
    data: Path


def build(folder: Path, n_samples: int = N_DEMO, say: Callable[[str], None] = print) -> DemoPaths:
    """Make FOLDER/model, FOLDER/sae and FOLDER/data. What is complete and up to date stays untouched.

    Raises:
        SaevxError: a package or the trained weights are missing.
    """
    if not ADAPTER.is_file() or not (SAE / "cfg.json").is_file():
        raise SaevxError(
            "The demo's trained weights are not here: install the saevx wheel, or in a checkout run first "
            "`python -m precompute.demo.training.train_adapter`, then `python -m precompute.demo.training.train_sae`."
        )
    paths = DemoPaths(folder / "model", folder / "sae", folder / "data")
    folder.mkdir(parents=True, exist_ok=True)
    stop = Event()
    with ThreadPoolExecutor(1) as background:  # other processes draw while this one assembles the model
        data_future = background.submit(draw_data, paths.data, n_samples, say, stop)
        try:
            from precompute.model.loading import silence_warnings  # torch takes seconds to import

            with silence_warnings():
                assemble(paths.model, say=say)
            copy_sae(paths.sae)
            data_future.result()
        except BaseException:
            stop.set()
            raise
    return paths


def draw_data(folder: Path, n_samples: int, say: Callable[[str], None], stop: Event) -> None:
    """Draw images and captions, unless the folder holds `n_samples` of them already.

    Args:
        stop: as in `build_dataset`.
    """
    if n_rows(folder) == n_samples:
        return
    say(f"drawing {n_samples} scenes")
    with atomic_folder(folder) as part:
        build_dataset(part, n_samples, say, stop)


def copy_sae(folder: Path) -> None:
    """Copy the shipped SAELens folder, unless it is there already."""
    files = sorted(path for path in SAE.iterdir() if path.is_file())
    if all((folder / p.name).is_file() and (folder / p.name).read_bytes() == p.read_bytes() for p in files):
        return
    with atomic_folder(folder) as part:
        shutil.copytree(SAE, part, dirs_exist_ok=True)


def attach_hallucination(store: Path) -> None:
    """Put the shipped figures next to a store of the SAE-V that they were measured with: they are of the model and the
    SAE-V alone, whatever bytes the store has on this machine."""
    path = companion_path(store, HALLUCINATION)
    if path.exists() or not HALLUCINATION_FIGURES.is_file():
        return
    content, manifest = json.loads(HALLUCINATION_FIGURES.read_text(encoding="utf-8")), read_manifest(store)
    if content["about"].get("sae") == manifest["sae"]["sha256"]:
        write_text(path, json.dumps({**content, "content_id": manifest["content_id"]}))


def attach_random_directions(store: Path) -> None:
    """Give the controls of the demo's store the one that was left out, where it was measured on the same pairs with the
    same SAE-V."""
    manifest, report_file = read_manifest(store), json.loads(RANDOM_DIRECTIONS.read_text(encoding="utf-8"))
    if (report_file["sae"], report_file["n_rows"]) != (manifest["sae"]["sha256"], manifest["data"].get("n_rows")):
        return
    path, control = companion_path(store, CONTROLS), report_file["control"]
    report = json.loads(path.read_text(encoding="utf-8"))
    rows = [control if row["name"] == control["name"] else row for row in report["controls"]]
    write_text(path, json.dumps({**report, "controls": rows}, indent=1, ensure_ascii=False) + "\n")


def n_rows(data: Path) -> int:
    """Rows of FOLDER/data; 0 where there is none."""
    metadata = data / "metadata.jsonl"
    if not metadata.is_file():
        return 0
    with metadata.open(encoding="utf-8") as lines:
        return sum(1 for line in lines if json.loads(line))
