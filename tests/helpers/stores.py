"""Ways to damage a store on disk, and `walk`, which reads all pages of a list."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from precompute.store.making.sealing import checksums, content_id


def seal(store: Path) -> None:
    """Makes the checksums right again, so that only the deeper checks can see a change."""
    manifest = json.loads((store / "manifest.json").read_text())
    manifest.pop("sealed", None)  # run.json does not vouch for the change
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


def walk(ask: Any, **options: Any) -> list[dict[str, Any]]:
    """All pages of a list."""
    items, cursor = [], None
    while True:
        page = ask(cursor=cursor, **options)
        items += page.items
        if page.next is None:
            assert page.total == len(items)
            return items
        assert page.items
        cursor = page.next
