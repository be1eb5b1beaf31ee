"""Features of another store whose decoder directions are nearest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from precompute.errors import SaevxError
from precompute.store.reader import Store
from precompute.store.sql import fetch_plain


class Counterpart(NamedTuple):
    """The feature of the other store with the nearest direction."""

    id: int
    cosine: float
    """Of the two directions, each without the mean direction of its own store."""
    mutual: bool
    """Whether its own nearest feature is the one asked about."""


def alive_by_evidence(store: Store) -> list[int]:
    """The features that are not dead, those of the most evidence first, as lists begin."""
    query = "SELECT id FROM features WHERE verdict != 'dead' ORDER BY evidence DESC NULLS LAST, id"
    return [id for (id,) in fetch_plain(store.engine, query)]


def counterparts(store: Store, other: Store, features: Sequence[int]) -> dict[int, Counterpart]:
    """The counterparts in `other` of those features that have a direction.

    Raises:
        SaevxError: the directions of the two stores have different lengths.
    """
    index_a, index_b = store.search.index("decoder"), other.search.index("decoder")
    if index_a.d != index_b.d:
        raise SaevxError(
            f"Directions of {index_a.d} and of {index_b.d} numbers cannot be compared: choose stores of one model, or "
            "match by shared samples."
        )
    vectors = {id: index_a.reconstruct(int(id)) for id in features}
    ids = [id for id, vector in vectors.items() if np.any(vector)]  # a dead feature may have none
    if not ids:
        return {}
    cosine_f1, nearest_f1 = index_b.search(np.stack([vectors[id] for id in ids]).astype(np.float32), 1)
    nearest_ids = nearest_f1[:, 0].tolist()
    _, back_f1 = index_a.search(np.stack([index_b.reconstruct(int(k)) for k in nearest_ids]).astype(np.float32), 1)
    rows = zip(ids, nearest_ids, cosine_f1[:, 0].tolist(), back_f1[:, 0].tolist(), strict=True)
    return {id: Counterpart(to, cosine, back_id == id) for id, to, cosine, back_id in rows}
