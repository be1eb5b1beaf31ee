"""What every part of the reader stands on: the open database, the arrays, and small tables held in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, Row

from precompute.errors import SaevxError
from precompute.pieces import NEAR, join, whole_token
from precompute.store import schema as s
from precompute.store.events import Events, mapped
from precompute.store.pairs import Pairs
from precompute.store.pairs import load as load_pairs
from precompute.store.query import TIME_LIMIT_S, fetch, fetch_plain, marks, open_engine

Array = NDArray[Any]
Item = dict[str, Any]

NEIGHBOUR = np.dtype([("other", "<i4"), ("cosine", "<f4")])
"""index/neighbours.npy [F, spaces, 10]: strongest first, `other` −1 beyond the end."""


class StoreBase:
    """An open store without its questions; see `reader.Store`."""

    def __init__(self, path: Path, manifest: Item, engine: Engine) -> None:
        self.path = path
        self.manifest = manifest
        self.engine = engine
        self.scale_log2 = int(manifest["scale_log2"])
        self.events = Events(path / "events", self.scale_log2)

    @classmethod
    def open(cls, path: str | Path, time_limit_s: float = TIME_LIMIT_S) -> Self:
        """Opens a store folder; arrays and indices are mapped when first asked for.

        Raises:
            SaevxError: not a store, unfinished, or of another schema version.
        """
        path = Path(path)
        manifest_file = path / "manifest.json"
        if not manifest_file.is_file() or not (path / "store.sqlite").is_file():
            advice = " It is unfinished: run `saevx precompute` again." if path.name.endswith(".part") else ""
            raise SaevxError(f"{path} is not a store (no manifest.json and store.sqlite).{advice}")
        manifest = json.loads(manifest_file.read_text())
        if manifest.get("schema") != s.SCHEMA_VERSION:
            raise SaevxError(
                f"{path} has store schema {manifest.get('schema')}, this version reads {s.SCHEMA_VERSION}: "
                "run `saevx precompute` again."
            )
        return cls(path, manifest, open_engine(path / "store.sqlite", time_limit_s))

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
            path = self.path / "index" / f"{name}.faiss"
            if not path.is_file():
                raise SaevxError(f"This store has no index {name!r}.")
            cache[name] = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
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
        return join(pieces).shown[first - low : stop - low]

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


def page_start(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isdigit():
        raise SaevxError("This cursor is not one of this list: start again without `cursor`.")
    return int(cursor)


def feature_ref(feature: Item) -> Item:
    return {"id": feature["id"], "label": feature["label"], "verdict": feature["verdict"]}
