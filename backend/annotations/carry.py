"""Carry annotations over to a store that was made again: features by their decoder directions, samples by their ids.

The old store may be gone: of each feature that something was written about, the database has a sketch of its direction.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from backend.annotations.book import Annotations, features_of
from backend.annotations.database import Entry
from precompute.errors import SaevxError
from precompute.store.reader import Store
from precompute.utils.stats import unit
from precompute.utils.types import Array

WIDTH = 256
"""Numbers of a sketch. A direction of more dimensions is projected, which keeps a cosine of .95 within about .01."""
SEED = 20_250_217
CHUNK = 4096
SAME = 1e-3
"""A feature keeps its number where no other one's cosine is larger by more than this: near-copies are common."""


@lru_cache(maxsize=1)
def _projection(d: int) -> Array:
    """float32 [d, 256] of ±1/16."""
    signs = np.random.Generator(np.random.PCG64(SEED)).integers(0, 2, (d, WIDTH), dtype=np.int8)
    return (signs.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(WIDTH))


def sketches(centred_kd: Array) -> Array:
    """float32 [k, min(d, 256)] of unit length: `centred_kd` float32 [k, d], projected where it is wider."""
    d = centred_kd.shape[1]
    return unit(np.asarray(centred_kd if d <= WIDTH else centred_kd @ _projection(d), np.float32))


def sketch(store: Store, feature: int) -> bytes:
    """What the database keeps of a feature's direction: its dimensions (uint32), then the sketch (float16)."""
    centred_d = store.directions.get(feature).centred_d
    return len(centred_d).to_bytes(4, "little") + sketches(centred_d[None])[0].astype(np.float16).tobytes()


def matches(store: Store, sketch_of: Mapping[int, bytes], min_cosine: float) -> dict[int, tuple[int, float]]:
    """Old number → (number in `store`, cosine) of the features whose direction the store has, each new one once.

    Args:
        sketch_of: as `sketch` makes them, by old number.
        min_cosine: smallest cosine of a match.

    Raises:
        SaevxError: the directions are of a model of another width.
    """
    if not sketch_of:
        return {}
    index = store.search.index("decoder")
    numbers = list(sketch_of)
    widths = {int.from_bytes(sketch_of[k][:4], "little") for k in numbers}
    if widths != {index.d}:
        raise SaevxError(
            f"The features were written about in a model of {widths.pop()} dimensions, and this store's has {index.d}: "
            "directions of different models cannot be compared."
        )
    if any(len(sketch_of[k]) != 4 + 2 * min(index.d, WIDTH) for k in numbers):
        raise SaevxError("A sketch of a direction is cut off: export the annotations again.")
    old_kw = unit(np.stack([np.frombuffer(sketch_of[k][4:], np.float16) for k in numbers]).astype(np.float32))
    cosine_kf = np.concatenate(
        [
            old_kw @ sketches(index.reconstruct_n(first, min(CHUNK, index.ntotal - first))).T
            for first in range(0, index.ntotal, CHUNK)
        ],
        axis=1,
    )
    best_k = cosine_kf.argmax(axis=1)
    pairs = []
    for i, k in enumerate(numbers):
        new_number = k if k < index.ntotal and cosine_kf[i, k] >= cosine_kf[i, best_k[i]] - SAME else int(best_k[i])
        pairs.append((float(cosine_kf[i, new_number]), k, new_number))
    result: dict[int, tuple[int, float]] = {}
    taken_ids: set[int] = set()
    # Of equal cosines those first that keep their number.
    for cosine, k, new_number in sorted(pairs, key=lambda pair: (-pair[0], pair[1] != pair[2], pair[1])):
        if cosine >= min_cosine and new_number not in taken_ids:
            taken_ids.add(new_number)
            result[k] = (new_number, cosine)
    return result


@dataclass
class Report:
    """What was carried over."""

    written: int = 0
    present: int = 0
    """Things that the new store has something of already: left as they are."""
    moved: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Old number → (new number, cosine)."""
    lost: list[str] = field(default_factory=list)
    """What has no counterpart: feature 12, sample x, …"""

    def sentence(self, did: str = "carried over") -> str:
        parts = [f"{self.written} annotation{'s' if self.written != 1 else ''} {did}"]
        if self.present:
            parts.append(f"{self.present} left out, as this store has its own")
        if self.lost:
            remainder = f" and {len(self.lost) - 10} more" if len(self.lost) > 10 else ""
            parts.append(f"no counterpart for {', '.join(self.lost[:10])}{remainder}")
        return "; ".join(parts) + "."


def carry(
    annotations: Annotations,
    store: Store,
    old_entries: Iterable[Entry],
    vectors: Mapping[int, bytes],
    min_cosine: float,
    same: bool = False,
) -> Report:
    """Write what holds in `old_entries`, the newest version of each thing, as annotations of `store`.

    Args:
        vectors: sketches of features' directions, by the number in the old store.
        min_cosine: smallest cosine of a match.
        same: the old store is this one, so that each feature is itself.
    """
    things = [e for e in old_entries if e.body is not None]
    features = {k for e in things for k in features_of(e)}
    if same:
        match_of = {k: (k, 1.0) for k in features if k < store.n_features}
    else:
        match_of = matches(store, {k: vectors[k] for k in sorted(features) if k in vectors}, min_cosine)
    report = Report(moved=match_of)
    report.lost += [f"feature {k}" for k in sorted(features - match_of.keys())]
    row_of = store.selection.rows_of({id for e in things for id in samples_of(e)})
    report.lost += sorted({f"sample {id}" for e in things for id in samples_of(e) if id not in row_of})
    entries = [entry for e in things if (entry := _place(e, match_of, row_of)) is not None]
    new_things = [e for e in entries if annotations.get(e.kind, e.key).body is None]
    report.present = len(entries) - len(new_things)
    report.written = annotations.write_all(new_things)
    return report


def samples_of(entry: Entry) -> list[str]:
    """Ids of the samples that something is written about."""
    body: Mapping[str, Any] = entry.body or {}
    if entry.kind == "sample":
        return [entry.key]
    if entry.kind == "mark":
        return [str(body["sample_id"])]
    return [str(id) for id in body.get("samples", ())] if entry.kind == "list" else []


def _place(entry: Entry, match_of: Mapping[int, tuple[int, float]], row_of: Mapping[str, int]) -> Entry | None:
    """The same in the new store; None where what it is about is not there."""
    if entry.kind == "feature":
        to = match_of.get(int(entry.key))
        return None if to is None else replace(entry, key=str(to[0]))
    if entry.kind == "list" and entry.body is not None:
        features = [match_of[k][0] for k in features_of(entry) if k in match_of]
        samples = [id for id in samples_of(entry) if id in row_of]
        return replace(entry, body={**entry.body, "features": features, "samples": samples})
    return entry if all(id in row_of for id in samples_of(entry)) else None
