"""Step `cooccur`: which text features share samples with which image features, and within each modality.

METHOD *Co-occurrence*. A feature is in a sample's set when its maximum is among the sample's 256 largest
relative to p99.9 (the store's `events/max_*`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from tqdm import tqdm

from precompute.data.batches import smallest_hashes
from precompute.store.making.unfinished import Collected, save_step
from precompute.store.relations.feature_pairs import SIDES, npmi
from precompute.store.schema import COOCCURRENCE_KINDS, IMAGE, TEXT
from precompute.utils.ragged import csr_rows, kth_largest, rank_in_run
from precompute.utils.stats import derangement
from precompute.utils.types import Array

MAX_SAMPLES = 100_000
KEPT = 16  # strongest partners per feature, kind and side
MIN_SUPPORT = 5
_BLOCK_ENTRIES = 1 << 24


class SupportedPairs(NamedTuple):
    """Pairs of features (a, b) in ascending order, each int64 [p]."""

    a: Array
    """Feature of the first side."""
    b: Array
    """Feature of the second side."""
    support: Array
    """Samples that have both."""
    shuffled: Array
    """Samples that have both once the samples of the first side are exchanged: the support by chance."""


def chosen_rows(sample_ids: Sequence[str], limit: int = MAX_SAMPLES) -> Array:
    """Rows with the smallest SHA-256 of the sample id, ascending."""
    if len(sample_ids) <= limit:
        return np.arange(len(sample_ids))
    return np.sort(np.array(smallest_hashes(sample_ids, limit), np.int64))


def feature_sets(data: Collected, rows: Array) -> tuple[csr_matrix, csr_matrix]:
    """(text, image): int32 CSR [n, F] of ones."""
    e = data.events
    text, image = (
        csr_rows(rows * 2 + m, e.max_offset, e.max_feature, e.max_value, data.n_features) for m in (TEXT, IMAGE)
    )
    text.data, image.data = np.ones(text.nnz, np.int32), np.ones(image.nnz, np.int32)
    return text, image


def strongest_partners(sets_a: csr_matrix, sets_b: csr_matrix, *, same: bool) -> tuple[Array, Array]:
    """(a, b), int64 [p]: for each feature a of `sets_a` its KEPT partners b of `sets_b` with the highest NPMI.

    Ties go to the larger support, then the smaller b. `same`: both are one modality, a itself is left out.
    """
    n, width = sets_a.shape
    n_a, n_b = (np.asarray(x.sum(0)).ravel() for x in (sets_a, sets_b))
    columns = sets_a.T.tocsr()
    parts = []
    step = max(1, _BLOCK_ENTRIES // width)
    for low in tqdm(range(0, width, step), desc="cooccur", unit="block", disable=None):
        product = (columns[low : low + step] @ sets_b).tocsr()
        pair_k = np.flatnonzero(product.data >= MIN_SUPPORT)
        row = np.searchsorted(product.indptr, pair_k, "right") - 1
        b, n_ab = product.indices[pair_k].astype(np.int64), product.data[pair_k]
        if same:
            differs = row + low != b
            row, b, n_ab = row[differs], b[differs], n_ab[differs]
        value = npmi(n_ab, n_a[row + low], n_b[b], n)[1]
        # Few survive: only what reaches the row's k-th best is sorted.
        begin = np.searchsorted(row, np.arange(product.shape[0] + 1))
        is_strong = value >= kth_largest(value, begin, KEPT)[row]
        row, b, n_ab, value = row[is_strong], b[is_strong], n_ab[is_strong], value[is_strong]
        order = np.lexsort((b, -n_ab, -value, row))
        row, b = row[order], b[order]
        is_best = rank_in_run(row) < KEPT
        parts.append((row[is_best] + low, b[is_best]))
    a, b = (np.concatenate(x) for x in zip(*parts, strict=True))
    return a, b


def support_of(sets_a: csr_matrix, sets_b: csr_matrix, a: Array, b: Array) -> Array:
    """n_ab of given pairs: samples with a in `sets_a` and b in `sets_b`. a must be ascending."""
    columns, columns_b = sets_a.T.tocsr(), sets_b.tocsc()
    n_ab = np.zeros(len(a), dtype=np.int64)
    step = max(1, _BLOCK_ENTRIES // max(1, sets_a.shape[0] // 64))
    for low in range(0, len(a), step):
        at = slice(low, low + step)
        n_ab[at] = np.asarray(columns[a[at]].multiply(columns_b[:, b[at]].T.tocsr()).sum(1)).ravel()
    return n_ab


def partner_pairs(sets_a: csr_matrix, sets_b: csr_matrix, *, same: bool, order: Array) -> SupportedPairs:
    """The strongest partners from both sides, and their support when `sets_a`'s samples are exchanged by `order`."""
    a, b = strongest_partners(sets_a, sets_b, same=same)
    if same:
        a, b = np.minimum(a, b), np.maximum(a, b)
    else:
        b2, a2 = strongest_partners(sets_b, sets_a, same=False)
        a, b = np.r_[a, a2], np.r_[b, b2]
    key = np.unique(a * sets_a.shape[1] + b)
    a, b = key // sets_a.shape[1], key % sets_a.shape[1]
    return SupportedPairs(a, b, support_of(sets_a, sets_b, a, b), support_of(sets_a[order], sets_b, a, b))


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `seed`."""
    data = Collected(part, manifest)
    rows = chosen_rows(data.samples.values("sample_id"))
    sets = feature_sets(data, rows)
    rng = np.random.Generator(np.random.PCG64(int(options.get("seed", 0)) + 3))
    order = derangement(len(rows), rng)
    arrays: dict[str, Array] = {}
    for kind in COOCCURRENCE_KINDS:
        sets_a, sets_b = (sets[modality] for modality in SIDES[kind])
        partners = partner_pairs(sets_a, sets_b, same=kind != "text-image", order=order)
        arrays |= {f"{kind}/{name}": values for name, values in partners._asdict().items()}
    arrays["n_samples"] = np.stack([np.asarray(side.sum(0)).ravel() for side in sets])
    save_step(part, "cooccur", **arrays)
    return {"cooccurrence": {"n_samples": len(rows), "kept": KEPT, "min_support": MIN_SUPPORT}}
