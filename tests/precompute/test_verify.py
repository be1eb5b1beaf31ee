"""`saevx verify` says all is well of a sound store, and names what is wrong with a damaged one."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from precompute import verify as verify_module
from precompute.errors import SaevxError
from precompute.store.reader import Store
from precompute.store.writer import checksums, content_id
from precompute.verify import report, verify, verify_or_raise


@pytest.fixture
def copy(made_up: Store, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_up.path, tmp_path / "store"))


def seal(store: Path) -> None:
    """Makes the checksums right again, so that only the deeper checks can see a change."""
    manifest = json.loads((store / "manifest.json").read_text())
    files = checksums(store)
    sizes = [(store / name).stat().st_size for name in files]
    manifest |= {"files": files, "sizes": sizes, "content_id": content_id(manifest, files)}
    (store / "manifest.json").write_text(json.dumps(manifest))


def edit(name: str, change: Callable[[np.ndarray], np.ndarray], folder: str = "events") -> Callable[[Path], None]:
    def apply(store: Path) -> None:
        path = store / folder / f"{name}.npy"
        np.save(path, change(np.load(path)))

    return apply


def sql(statement: str) -> Callable[[Path], None]:
    def apply(store: Path) -> None:
        with sqlite3.connect(store / "store.sqlite") as conn:
            conn.execute(statement)

    return apply


def bump(at: int, by: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[at] += by
        return array

    return change


def test_a_sound_store(copy: Path) -> None:
    lines, good = report(copy)
    assert good and all(line.startswith("ok") for line in lines) and len(lines) == 10
    assert verify_or_raise(copy)


@pytest.mark.parametrize("at_once", [1, 100])
def test_a_sound_store_in_pieces(copy: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = report(copy)
    monkeypatch.setattr(verify_module, "CHUNK_EVENTS", at_once)
    assert report(copy) == whole


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (edit("event_value", bump(5, 1)), "arrays"),
        (edit("max_value", bump(5, 1)), "arrays"),
        (edit("event_feature", lambda a: a[::-1].copy()), "arrays"),
        (edit("sample_token", bump(3, 10_000)), "offsets"),
        (edit("token_event", lambda a: a[:-1]), "offsets"),
        (edit("token_modality", bump(0, 1)), "counts"),
        (sql("UPDATE examples SET value = value * 2 WHERE feature = 0 AND rank = 0"), "arrays"),
        (sql("UPDATE examples SET row = 100000 WHERE feature = 0 AND rank = 1"), "database"),
        (sql("UPDATE features SET n_text = n_text + 1 WHERE id = 2"), "arrays"),
        (sql("DELETE FROM samples WHERE row = 9"), "counts"),
        (lambda store: (store / "images/0/4_0.webp").unlink(), "pictures"),
        (edit("text-image", lambda t: t[:, ::-1].copy(), "cooccurrence"), "pairs"),
        (edit("text-text", lambda t: np.where(np.arange(6)[:, None] == 4, 0, t), "cooccurrence"), "pairs"),
        (edit("neighbours", lambda a: a[1:], "index"), "indices"),
        (
            lambda store: shutil.copy(store / "index/decoder.faiss", store / "index/sample_text.faiss"),
            "indices",
        ),
    ],
)
def test_damage_is_found_even_under_right_checksums(
    copy: Path, damage: Callable[[Path], None], check: str
) -> None:
    damage(copy)
    assert {c.name for c in verify(copy) if not c.ok} >= {"files"}  # the checksum sees any change
    seal(copy)
    failed = {c.name: c.detail for c in verify(copy) if not c.ok}
    assert failed.get(check)
    with pytest.raises(SaevxError, match="is damaged"):
        verify_or_raise(copy)


def test_an_edited_manifest(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["model"]["layer"] = 9
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert [c.name for c in verify(copy) if not c.ok] == ["files"]


def test_a_stray_file(copy: Path) -> None:
    (copy / "events" / "extra.npy").touch()
    assert "not listed" in next(c.detail for c in verify(copy) if not c.ok)
