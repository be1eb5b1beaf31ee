"""Features of another store whose decoder directions are nearest."""

from __future__ import annotations

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
    here, there = store.search.index("decoder"), other.search.index("decoder")
    if here.d != there.d:
        raise SaevxError(
            f"Directions of {here.d} and of {there.d} numbers cannot be compared: choose stores of one model, or match "
            "by shared samples."
        )
    vectors = {id: here.reconstruct(int(id)) for id in features}
    ids = [id for id, vector in vectors.items() if np.any(vector)]  # a dead feature may have none
    if not ids:
        return {}
    cosine_f1, nearest_f1 = there.search(np.stack([vectors[id] for id in ids]).astype(np.float32), 1)
    nearest = nearest_f1[:, 0].tolist()
    _, back_f1 = here.search(np.stack([there.reconstruct(int(one)) for one in nearest]).astype(np.float32), 1)
    rows = zip(ids, nearest, cosine_f1[:, 0].tolist(), back_f1[:, 0].tolist(), strict=True)
    return {id: Counterpart(to, cosine, back == id) for id, to, cosine, back in rows}
