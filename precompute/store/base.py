"""What every part of the reader stands on: the open database, the arrays, and small tables held in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from sqlalchemy import Engine, Row

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.cooccurrence import Pairs
from precompute.store.cooccurrence import load as load_pairs
from precompute.store.events import Events, mapped
from precompute.store.opening import (
    DATABASE,
    Stamp,
    StoreUnreadable,
    check_files,
    damaged,
    read_manifest,
    without_images,
)
from precompute.store.sql import TIME_LIMIT_S, changed, fetch, fetch_plain, marks, open_engine
from precompute.utils.token_text import NEAR, join, whole_token
from precompute.utils.types import Array

Item = dict[str, Any]

NEIGHBOUR = np.dtype([("other", "<i4"), ("cosine", "<f4")])
"""index/neighbours.npy [F, spaces, 10]: strongest first, `other` −1 beyond the end."""


class StoreBase:
    """An open store without its questions; see `reader.Store`."""

    def __init__(self, path: Path, manifest: Item, engine: Engine, stamps: dict[str, Stamp]) -> None:
        self.path = path
        self.manifest = manifest
        self.engine = engine
        self.stamps = stamps
        """By what each file but the images is known again, as it was when the store was opened."""
        self.scale_log2 = int(manifest["scale_log2"])
        self.events = Events(path / "events", self.scale_log2)

    @classmethod
    def open(cls, path: str | Path, time_limit_s: float = TIME_LIMIT_S) -> Self:
        """Opens a finished store: its manifest, files and tables are looked at and its arrays mapped; indices are read
        when first used. `manifest` is then that of `opening.without_images`.

        Raises:
            SaevxError: not a store, unfinished, damaged, or made by another version.
        """
        path = Path(path)
        manifest = read_manifest(path)
        store = cls._opened(path, manifest, check_files(path, manifest), time_limit_s)
        try:
            store._check_tables()
            store.events.map_all()
            store._check_shapes()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open_unchecked(cls, path: str | Path, time_limit_s: float = TIME_LIMIT_S) -> Self:
        """As `open`, for `verify`, which looks at every file itself: only the manifest is read.

        Raises:
            SaevxError: not a store, unfinished, made by another version, or with a damaged manifest.
        """
        path = Path(path)
        return cls._opened(path, read_manifest(path), {}, time_limit_s)

    @classmethod
    def _opened(cls, path: Path, manifest: Item, stamps: dict[str, Stamp], time_limit_s: float) -> Self:
        return cls(path, without_images(manifest), open_engine(path / DATABASE, time_limit_s), stamps)

    def _check_tables(self) -> None:
        """Every table has its columns. Raises StoreUnreadable where not, or where the file is no database."""
        columns = "SELECT t.name, c.name FROM sqlite_master t LEFT JOIN pragma_table_info(t.name) c"
        try:
            there = set(fetch_plain(self.engine, f"{columns} WHERE t.type = 'table'"))
        except (StoreUnreadable, sqlite3.Error) as error:
            raise damaged(self.path, f"{DATABASE} is cut off or no database") from error
        wanted = [(table.name, column.name) for table in s.metadata.sorted_tables for column in table.columns]
        for table, column in wanted:
            if (table, column) not in there:
                raise damaged(self.path, f"{DATABASE} has no column {column!r} in a table {table!r}")
        if missing := {"feature_fts", "sample_fts"} - {table for table, _ in there}:
            raise damaged(self.path, f"{DATABASE} has no table {missing.pop()!r}")

    def _check_shapes(self) -> None:
        """The arrays are of this store's size. Raises StoreUnreadable where not, or where one cannot be mapped."""
        arrays = [
            ("events/sample_token.npy", self.events.sample_token, self.n_samples + 1),
            ("index/neighbours.npy", self.neighbour_table, self.n_features),
        ]
        for kind, pairs in self.pairs.items():
            arrays.append((f"cooccurrence/{kind}_start.npy", pairs.start, self.n_features + 1))
        for name, array, n in arrays:
            if len(array) != n:
                raise damaged(self.path, f"{name} is of another store: it has {len(array)} entries, not {n}")

    def file(self, name: str) -> Path:
        """The path of a file of the manifest, which must still be the one that was there when the store was opened.

        Raises:
            StoreUnreadable: it is not.
        """
        path = self.path / name
        if name in self.stamps and Stamp.of(path) != self.stamps[name]:
            raise changed(path)
        return path

    def read(self, name: str) -> bytes:
        """A file of the manifest, whole. Raises StoreUnreadable as `file`, or where it cannot be read."""
        path = self.file(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise changed(path) from error

    def list_tag(self, noun: str, **asked: Any) -> str:
        """What the cursors of one list carry: twelve letters from the store's content, the list, its order and filters.
        """
        told = json.dumps([self.manifest["content_id"], noun, asked], sort_keys=True, default=str)
        return base64.urlsafe_b64encode(hashlib.sha256(told.encode()).digest())[:12].decode()

    def close(self) -> None:
        self.engine.dispose()

    @property
    def n_features(self) -> int:
        return int(self.manifest["sae"]["n_features"])

    @property
    def n_samples(self) -> int:
        return int(self.manifest["data"]["n_samples"])

    def _all(self, query: Any, parameters: Any = None) -> Sequence[Row[Any]]:
        return fetch(self.engine, query, parameters)

    def feature_refs(self, ids: Iterable[int]) -> dict[int, Item]:
        """id → {id, label, verdict, max_text, max_image, p999} of the features named."""
        wanted = tuple(sorted({int(i) for i in ids}))
        names = ("id", "label", "verdict", "max_text", "max_image", "p999")
        found: dict[int, Item] = {}
        for start in range(0, len(wanted), 900):
            some = wanted[start : start + 900]
            query = f"SELECT {', '.join(names)} FROM features WHERE id IN ({marks(len(some))})"
            for row in fetch_plain(self.engine, query, some):
                found[row[0]] = dict(zip(names, row, strict=True))
        return found

    def index(self, name: str) -> Any:
        """FAISS index `decoder`, `profile`, `sample_text` or `sample_image`, mapped when first used."""
        cache: dict[str, Any] = self.__dict__.setdefault("_indices", {})
        if name not in cache:
            if not (self.path / "index" / f"{name}.faiss").is_file() and f"index/{name}.faiss" not in self.stamps:
                raise SaevxError(f"This store has no index {name!r}.")
            path = self.file(f"index/{name}.faiss")
            try:
                cache[name] = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
            except RuntimeError as error:
                raise damaged(self.path, f"index/{name}.faiss is cut off or no index") from error
        return cache[name]

    @cached_property
    def neighbour_table(self) -> Array:
        """`NEIGHBOUR` [F, 2, 10], spaces in the order of `schema.SPACES`."""
        return mapped(self.path / "index" / "neighbours.npy")

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        """Features that share samples, by kind."""
        return load_pairs(self.path, int(self.manifest["cooccurrence"]["n_samples"]))

    @cached_property
    def _tokens(self) -> list[str]:
        rows = fetch_plain(self.engine, "SELECT token_id, text FROM vocabulary ORDER BY token_id")
        tokens = [""] * (rows[-1][0] + 1 if rows else 0)
        for token_id, text in rows:
            tokens[token_id] = text
        return tokens

    def token_text(self, token_id: int) -> str:
        tokens = self._tokens
        return tokens[token_id] if token_id < len(tokens) else f"<{token_id}>"

    def token_texts(self, token_id_t: Array, window: slice = slice(None)) -> list[str]:
        """What each token of a sample, or of a window of it, shows: of several that share a character the first has it,
        the others have marks for their bytes (pieces.py)."""
        first, stop, _ = window.indices(len(token_id_t))
        low = max(0, first - NEAR)  # the window may cut through a character
        pieces = [self.token_text(token) for token in token_id_t[low : stop + NEAR].tolist()]
        return join(pieces).visible[first - low : stop - low]

    def whole_token(self, token_id_t: Array, position: int) -> str:
        """One token of a sample, with the rest of a character that it shares with its neighbours."""
        first = max(0, position - NEAR)
        near = token_id_t[first : position + NEAR + 1].tolist()
        return whole_token([self.token_text(token) for token in near], position - first)

    @cached_property
    def feature_table(self) -> dict[str, Array]:
        """Columns of all features as arrays [F] in id order, NaN for null: for arithmetic over queries."""
        names = [
            "samples_text", "samples_image", "density_text", "density_image", "max_text", "max_image", "p999",
            "omega", "omega_centred", "omega_all_pairs",
        ]  # fmt: skip
        rows = fetch_plain(self.engine, f"SELECT {', '.join(names)} FROM features ORDER BY id")
        table = np.array(rows, dtype=np.float64).reshape(-1, len(names))
        return {name: table[:, i] for i, name in enumerate(names)}

    @cached_property
    def max_by_modality(self) -> Array:
        """float64 [F, 2]: largest z of each feature on text and on images."""
        table = self.feature_table
        return np.stack([table["max_text"], table["max_image"]], axis=1)


def modality_code(name: str) -> int:
    if name not in s.MODALITIES:
        raise SaevxError(f"Unknown modality {name!r}: use text or image.")
    return s.MODALITIES.index(name)


def feature_ref(feature: Item) -> Item:
    return {"id": feature["id"], "label": feature["label"], "verdict": feature["verdict"]}
