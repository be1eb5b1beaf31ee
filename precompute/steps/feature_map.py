"""The map of features: the last part of step `index`. Every feature that is not dead gets a place on a plane, so that
features with similar decoder directions lie together (`tsne.py`); the file is `store/mapfile.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import faiss
import numpy as np

from precompute.steps.tsne import layout
from precompute.store import mapfile
from precompute.store.schema import VERDICTS
from precompute.utils.types import Array

FEWEST = 5  # living neighbours of a feature; one that has fewer is asked for again


def write(part: Path, directions: Array, other: Array, weigh: Mapping[str, Array]) -> None:
    """`map.bin` in STORE.part.

    Args:
        directions: unit decoder directions [F, d]. other: their nearest neighbours [F, k], −1 for none.
        weigh: what step `weigh` left: verdict, omega, density.
    """
    alive = weigh["verdict"] != VERDICTS.index("dead")
    place = np.full((len(alive), 2), mapfile.NOWHERE, dtype=np.uint16)
    place[alive] = mapfile.quantise_places(layout(directions[alive], living(directions, other, alive)))
    columns = mapfile.FeatureMap(
        x=place[:, 0],
        y=place[:, 1],
        verdict=weigh["verdict"],
        omega=mapfile.quantise_omega(weigh["omega"]),
        density=mapfile.quantise_density(weigh["density"].max(1)),
    )
    mapfile.write_map(part / mapfile.NAME, columns)


def living(directions: Array, other: Array, alive: Array) -> Array:
    """Neighbours [n, k] among the n features that are alive, as places among them.

    Dead neighbours are dropped; who is left with fewer than FEWEST gets its k nearest living ones by another search.
    """
    known = (other >= 0) & alive[other]
    found = np.where(known, (np.cumsum(alive) - 1)[other], -1)[alive]
    lonely = np.flatnonzero(known[alive].sum(1) < FEWEST)
    k = min(other.shape[1], len(found) - 1)
    if len(lonely) and k > 0:
        some = np.ascontiguousarray(directions[alive], dtype=np.float32)
        _, nearest = faiss.knn(some[lonely], some, k + 1, metric=faiss.METRIC_INNER_PRODUCT)
        itself = nearest == lonely[:, None]
        itself[~itself.any(1), -1] = True  # an exact twin came first
        found[lonely, :k] = nearest[~itself].reshape(len(lonely), k)
    return found
