"""Step `sample-map`: every sample gets a place on a plane, so that samples with similar vectors lie together; the file
is `store/mapfile.py`'s.

A sample's vector is that of its text beside that of its image, as step `index` has stored them. A fixed draw of at most
LAID_OUT samples is laid out as the features are (feature_map.py). Each other sample is put beside one of the N_NEAREST
laid-out ones that are most similar to it: the one that lies most central among them, since their mean can fall between
two groups, where no sample belongs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from scipy.spatial import cKDTree

from precompute.products.setting import Products
from precompute.steps.feature_map import layout, preserved_neighbours
from precompute.steps.index import N_NEIGHBOURS, nearest
from precompute.store import mapfile
from precompute.store.schema import MODALITIES
from precompute.store.search import joint_vectors, map_index
from precompute.utils.stats import unit
from precompute.utils.types import Array

LAID_OUT = 20_000
SEED = 20250217
"""Of the draw. A constant, so that a store and its migrated copy have one map."""
N_NEAREST = 10
BLOCK = 1 << 14
"""Samples whose vectors are in memory at once, beside those of the laid-out ones: 32 MB."""
GOLDEN = (1 + np.sqrt(5)) / 2


def write(
    path: Path, sides: Sequence[Any], products: Products | None = None, max_points: int = LAID_OUT
) -> dict[str, Any]:
    """The file of the map. Returns what the manifest says of it: `n` samples that have a place, `laid_out` of them by
    the layout, and as `preserved_neighbours` the share of each laid-out one's `k` nearest that are also its nearest on
    the map, both among the laid-out ones; null where fewer than two are.

    Args:
        sides: FAISS indexes of the vectors of texts and of images. products: as of `nearest`. max_points: to lay out.
    """
    n_samples = sides[0].ntotal
    rows = rows_with_vectors(sides, n_samples)
    sample_rows = draw(rows, max_points)
    vectors = unit(joint_vectors(sides, sample_rows))
    neighbours, _ = nearest(vectors, N_NEIGHBOURS, products, "neighbours of samples")
    place_m2 = layout(vectors, neighbours)
    place = np.zeros((n_samples, 2))
    place[sample_rows] = place_m2
    other_rows = np.setdiff1d(rows, sample_rows, assume_unique=True)
    for low in range(0, len(other_rows), BLOCK):
        block = other_rows[low : low + BLOCK]
        place[block] = places_near(unit(joint_vectors(sides, block)), block, vectors, place_m2)
    place_n2 = np.full((n_samples, 2), mapfile.NOWHERE, dtype=np.uint16)
    place_n2[rows] = mapfile.quantise_places(place[rows])
    source = np.zeros(n_samples, dtype=np.uint8)
    source[other_rows] = 1
    mapfile.write_map(path, mapfile.SampleMap(place_n2[:, 0], place_n2[:, 1], source))
    share = preserved_neighbours(place_n2[sample_rows], neighbours)
    return {"n": len(rows), "laid_out": len(sample_rows), "k": N_NEIGHBOURS, "preserved_neighbours": share}


def rows_with_vectors(sides: Sequence[Any], n_samples: int) -> Array:
    """int64, rising: the samples in which a feature fires, on text or image."""
    blocks = [np.arange(low, min(low + BLOCK, n_samples)) for low in range(0, n_samples, BLOCK)]
    fires = [block[np.any(joint_vectors(sides, block), axis=1)] for block in blocks]
    return np.concatenate(fires) if fires else np.zeros(0, dtype=np.int64)


def draw(rows: Array, n: int) -> Array:
    """int64, rising: at most so many of the rows, always the same."""
    if len(rows) <= n:
        return rows
    rng = np.random.Generator(np.random.PCG64(SEED))
    return np.sort(rng.choice(rows, n, replace=False))


def places_near(vectors_nd: Array, row_n: Array, laid_out_md: Array, place_m2: Array) -> Array:
    """float64 [n, 2]: a place beside the most central of each one's N_NEAREST laid-out samples, on a disc that reaches
    half the way to the next laid-out one, so that they do not hide each other.

    Args:
        vectors_nd: unit vectors float32. row_n: int64, their rows, which choose the place on the disc.
        laid_out_md: unit vectors of the laid-out samples. place_m2: float64, where these lie.
    """
    k = min(N_NEAREST, len(laid_out_md))
    _, near_nk = faiss.knn(vectors_nd, laid_out_md, k, metric=faiss.METRIC_INNER_PRODUCT)
    place_nk2 = place_m2[near_nk]
    apart_nkk = np.linalg.norm(place_nk2[:, :, None] - place_nk2[:, None], axis=3)
    centre_n = near_nk[np.arange(len(near_nk)), apart_nkk.sum(2).argmin(1)]
    free_m = cKDTree(place_m2).query(place_m2, min(2, len(place_m2)))[0].reshape(len(place_m2), -1)[:, -1]
    radius_n = free_m[centre_n] / 2 * np.sqrt(row_n * GOLDEN % 1)
    angle_n = row_n * np.pi * (3 - np.sqrt(5))
    return place_m2[centre_n] + np.stack([radius_n * np.cos(angle_n), radius_n * np.sin(angle_n)], 1)


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `products`."""
    sides = [map_index(part / "index" / f"sample_{name}.faiss") for name in MODALITIES]
    return {"sample_map": write(part / mapfile.SAMPLES_NAME, sides, options.get("products"))}
