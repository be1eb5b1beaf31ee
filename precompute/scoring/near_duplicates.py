"""Samples that are nearly another one: images alike inside the model and to the eye."""

from __future__ import annotations

from typing import Any, NamedTuple

import faiss
import numpy as np
import torch

from precompute.products.search import largest_products
from precompute.products.setting import Products
from precompute.utils.types import Array

N_COMPARED = 8  # neighbours of either kind compared
EXACT = 100_000  # samples up to which all are compared with all
PROBED = 8  # cells looked into, beyond
HASHED_BITS = 16
NEAR_LIMIT = 0.7  # at most 9 of 64 hash bits differ, and the cosine is as high


class NearDuplicates(NamedTuple):
    """The nearest other sample of each, and the near-duplicate score of the later of each two."""

    score: Array
    """float64 [N], NaN where there is no image."""
    row: Array
    """int64 [N], −1 where there is none."""
    cosine: Array
    """float32 [N]: of the two samples' image vectors."""


def nearest_vectors(vectors: Array, k: int, products: Products) -> Array:
    """The k nearest of each by inner product, int64 [n, k], −1 where fewer were found.

    Exact up to EXACT vectors; of more, those in the nearest of some √n cells, as all against all would take days. What
    is nearly the same lies in the same cell or the next."""
    n, width = vectors.shape
    if n <= EXACT:
        return largest_products(torch.from_numpy(vectors), k, products, "near-duplicates")[1]
    n_cells = int(4 * np.sqrt(n))
    cells = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, n_cells, faiss.METRIC_INNER_PRODUCT)
    cells.train(vectors[:: max(1, n // (64 * n_cells))])
    cells.add(vectors)
    cells.nprobe = PROBED
    nearest: Array = cells.search(vectors, k)[1]
    return nearest


def nearest_hashes(packed: Array, k: int) -> Array:
    """The k nearest of each by differing bits, as `nearest_vectors`. Of many, among those that differ in at most one of
    the first 16 bits, from a table of these."""
    n, n_bytes = packed.shape
    table: Any = faiss.IndexBinaryFlat(8 * n_bytes)
    if n > EXACT:
        table = faiss.IndexBinaryHash(8 * n_bytes, HASHED_BITS)
        table.nflip = 1
    table.add(packed)
    nearest: Array = table.search(packed, k)[1]
    return nearest


def near_duplicates(
    vectors: Array, hashes: Array, row_of_hash: Array, products: Products | None = None
) -> NearDuplicates:
    """Pairs close in feature space and to the eye.

    Score of a pair: min(cosine of the image vectors, 1 − differing hash bits / 32); only the later sample
    carries it, so that a filter keeps the first.

    Args:
        vectors: image sample vectors [N, 256].
        hashes: bool [n, 64] of the samples in `row_of_hash`.
        products: how the large product may be computed; it does not change the result.
    """
    n = len(vectors)
    score, row, cosine = np.full(n, np.nan), np.full(n, -1), np.full(n, np.nan)
    seen = np.any(vectors[row_of_hash], axis=1)
    live, bits = row_of_hash[seen], hashes[seen]
    if len(live) < 2:
        return NearDuplicates(score, row, cosine)
    own_vectors, packed = np.ascontiguousarray(vectors[live]), np.packbits(bits, axis=1)
    k = min(N_COMPARED + 1, len(live))
    # Candidates from both sides: a copy may be nearest to the eye and yet not inside the model.
    other = np.concatenate([nearest_vectors(own_vectors, k, products or Products()), nearest_hashes(packed, k)], axis=1)
    other = np.where(other < 0, np.arange(len(live))[:, None], other)  # an inverted list may hold fewer than k
    mine = np.arange(len(live))[:, None]
    value = np.einsum("nd,nkd->nk", own_vectors, own_vectors[other]).astype(np.float64)
    likeness = 1 - (bits[:, None] != bits[other]).sum(-1) / (bits.shape[1] / 2)
    pair = np.minimum(value, np.maximum(likeness, 0))
    itself = other == mine
    value, pair = np.where(itself, -np.inf, value), np.where(itself, -np.inf, pair)
    nearest = np.lexsort((other, -value, -pair))[:, :1]
    row[live] = live[np.take_along_axis(other, nearest, 1)[:, 0]]
    cosine[live] = np.minimum(np.take_along_axis(value, nearest, 1)[:, 0], 1)
    score[live] = 0.0
    np.fmax.at(score, live[np.maximum(mine, other)[~itself]], pair[~itself])
    return NearDuplicates(score, row, cosine)


def near_in_lists(vector_lcd: Array, sign_lcb: Array, pair_lcc: Array) -> Array:
    """bool [l, c, c]: which of the pairs, each of two samples of a list, are near-duplicates, scored as by
    `near_duplicates`.

    Args:
        vector_lcd: image sample vectors, float32.
        sign_lcb: hash bits as ±1, 0 for samples without an image, float32.
    """
    likeness = sign_lcb @ sign_lcb.transpose(0, 2, 1) / sign_lcb.shape[2]  # 1 − differing bits / 32
    near: Array = pair_lcc & (likeness > NEAR_LIMIT)
    lists = np.flatnonzero(near.any((1, 2)))
    vectors = vector_lcd[lists]
    near[lists] &= vectors @ vectors.transpose(0, 2, 1) > NEAR_LIMIT
    return near
