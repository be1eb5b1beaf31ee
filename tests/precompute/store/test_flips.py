"""`saevx verify` finds every changed bit, whichever file it is in, and every file that is cut off or missing."""

import json
import shutil
from pathlib import Path

import pytest

from precompute.errors import SaevxError
from precompute.store.making.sealing import seal_run
from precompute.store.making.verify import verify_or_raise
from tests.helpers import synthetic
from tests.helpers.flips import changed_bit

N_FLIPS = 40


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("flips") / "store"
    shutil.copytree(synthetic.small_store(tmp_path_factory), copy)
    (copy / "run.json").write_text(json.dumps({"host": "gpu-böx", "seconds": {"collect": 3.5}}))
    seal_run(copy)
    verify_or_raise(copy)
    return copy


def refused(store: Path) -> None:
    with pytest.raises(SaevxError):
        verify_or_raise(store)


@pytest.mark.parametrize("seed", range(N_FLIPS))
def test_a_changed_bit_is_found(store: Path, seed: int) -> None:
    with changed_bit(store, seed):
        refused(store)


@pytest.mark.parametrize("name", ["manifest.json", "store.sqlite", "map.bin", "events/event_value.npy", "images"])
def test_a_file_cut_off_swapped_or_missing_is_found(store: Path, name: str) -> None:
    path = store / name
    path = next(one for one in sorted(path.rglob("*")) if one.is_file()) if path.is_dir() else path
    content = path.read_bytes()
    try:
        for other in (content[:-1], content[: len(content) // 2], b"", content[::-1], None):
            path.write_bytes(other or b"")
            if other is None:
                path.unlink()
            refused(store)
    finally:
        path.write_bytes(content)
    verify_or_raise(store)


def test_who_removes_how_it_was_made_has_a_whole_store(store: Path) -> None:
    content = (store / "run.json").read_bytes()
    (store / "run.json").unlink()
    verify_or_raise(store)
    (store / "run.json").write_bytes(content)
