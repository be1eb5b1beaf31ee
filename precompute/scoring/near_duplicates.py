"""Samples that are nearly another one: images alike inside the model and to the eye."""

from typing import Any, NamedTuple

import faiss
import numpy as np
import torch

from precompute.products.search import largest_products
from precompute.products.setting import Products
from precompute.utils import memory
from precompute.utils.ragged import slices
from precompute.utils.types import Array

N_COMPARED = 8  # neighbours of either kind compared
EXACT = 100_000  # samples up to which all are compared with all
PROBED = 8  # cells looked into, beyond
BLOCK = 1 << 12  # samples compared at a time: with the vectors of all their neighbours they take 75 MB
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


def nearest_vectors(vectors: Array, rows: Array, k: int, products: Products) -> Array:
    """The k nearest of each by inner product, int [n, k] places in `rows`, −1 where fewer were found.

    Exact up to EXACT vectors; of more, those in the nearest of some √n cells, as all against all would take days. What
    is nearly the same lies in the same cell or the next. The cells hold float16: these are candidates, which are
    compared in float32 afterwards.

    Args:
        rows: int64 [n]: rows of the vectors compared.
    """
    n, width = len(rows), vectors.shape[1]
    if n <= EXACT:
        vectors_rd = torch.from_numpy(np.ascontiguousarray(vectors[rows]))
        return largest_products(vectors_rd, k, products, "near-duplicates")[1]
    n_cells = int(4 * np.sqrt(n))
    cells = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(width), width, n_cells, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    sample_rows = rows[:: max(1, n // (64 * n_cells))]
    sample_nd = np.empty((len(sample_rows), width), np.float32)
    for at in slices(len(sample_rows), BLOCK):  # at once they would map the whole file
        sample_nd[at] = vectors[sample_rows[at]]
        memory.release(vectors)
    cells.train(sample_nd)
    del sample_nd
    for at in slices(n, BLOCK):
        cells.add(vectors[rows[at]])
        memory.release(vectors)
    cells.nprobe = PROBED
    nearest_nk = np.empty((n, k), np.int32)
    for at in slices(n, BLOCK):
        nearest_nk[at] = cells.search(vectors[rows[at]], k)[1]
        memory.release(vectors)
    return nearest_nk


def nearest_hashes(hash_bytes: Array, k: int) -> Array:
    """int32 [n, k]: the k nearest of each by differing bits, as `nearest_vectors`. Of many, among those that differ in
    at most one of the first 16 bits, from a table of these."""
    n, n_bytes = hash_bytes.shape
    table: Any = faiss.IndexBinaryFlat(8 * n_bytes)
    if n > EXACT:
        table = faiss.IndexBinaryHash(8 * n_bytes, HASHED_BITS)
        table.nflip = 1
    table.add(hash_bytes)
    nearest_nk = np.empty((n, k), np.int32)
    for at in slices(n, BLOCK):
        nearest_nk[at] = table.search(hash_bytes[at], k)[1]
    return nearest_nk


def near_duplicates(
    vectors: Array, hashes: Array, row_of_hash: Array, products: Products | None = None
) -> NearDuplicates:
    """Pairs close in feature space and to the eye.

    Score of a pair: min(cosine of the image vectors, 1 − differing hash bits / 32); only the later sample
    carries it, so that a filter keeps the first.

    Args:
        vectors: image sample vectors [N, 256], in memory or mapped.
        hashes: bool [n, 64] of the samples in `row_of_hash`.
        products: how the large product may be computed; it does not change the result.
    """
    n = len(vectors)
    score, row, cosine = np.full(n, np.nan), np.full(n, -1), np.full(n, np.nan)
    has_image = np.zeros(len(row_of_hash), bool)
    for at in slices(len(has_image), BLOCK):
        has_image[at] = np.any(vectors[row_of_hash[at]], axis=1)
        memory.release(vectors)
    rows, bits = row_of_hash[has_image], hashes[has_image]
    if len(rows) < 2:
        return NearDuplicates(score, row, cosine)
    k = min(N_COMPARED + 1, len(rows))
    # Candidates from both sides: a copy may be nearest to the eye and yet not inside the model.
    by_vector = nearest_vectors(vectors, rows, k, products or Products())
    candidates = np.concatenate([by_vector, nearest_hashes(np.packbits(bits, axis=1), k)], axis=1)
    score[rows] = 0.0
    for at in slices(len(rows), BLOCK):
        place, other_place = np.arange(len(rows))[at, None], candidates[at].astype(np.int64)
        other_place = np.where(other_place < 0, place, other_place)  # an inverted list may hold fewer than k
        value = np.einsum("nd,nkd->nk", vectors[rows[at]], vectors[rows[other_place]]).astype(np.float64)
        likeness = 1 - (bits[at, None] != bits[other_place]).sum(-1) / (bits.shape[1] / 2)
        pair = np.minimum(value, np.maximum(likeness, 0))
        itself = other_place == place
        value, pair = np.where(itself, -np.inf, value), np.where(itself, -np.inf, pair)
        best_pair = np.lexsort((other_place, -value, -pair))[:, :1]
        row[rows[at]] = rows[np.take_along_axis(other_place, best_pair, 1)[:, 0]]
        cosine[rows[at]] = np.minimum(np.take_along_axis(value, best_pair, 1)[:, 0], 1)
        np.fmax.at(score, rows[np.maximum(place, other_place)[~itself]], pair[~itself])
        memory.release(vectors)
    return NearDuplicates(score, row, cosine)


def near_in_lists(vector_lcd: Array, sign_lcb: Array, pair_lcc: Array) -> Array:
    """bool [l, c, c]: which of the pairs, each of two samples of a list, are near-duplicates, scored as by
    `near_duplicates`.

    Args:
        vector_lcd: image sample vectors, float32.
        sign_lcb: hash bits as ±1, 0 for samples without an image, float32.
    """
    likeness = sign_lcb @ sign_lcb.transpose(0, 2, 1) / sign_lcb.shape[2]  # 1 − differing bits / 32
    is_near: Array = pair_lcc & (likeness > NEAR_LIMIT)
    lists = np.flatnonzero(is_near.any((1, 2)))
    vectors = vector_lcd[lists]
    is_near[lists] &= vectors @ vectors.transpose(0, 2, 1) > NEAR_LIMIT
    return is_near
