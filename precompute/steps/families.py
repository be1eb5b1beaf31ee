"""Step `families`: groups of features that are near-copies of one another (METHOD, *Directions*).

Two features are near-copies where their centred decoder directions nearly agree, or where they agree less and both are
in nearly the same samples' sets on one modality. Complete linkage joins them, so that in a family every feature is a
near-copy of every other one. Which member is the strongest, and so the family's id and name, is known when all steps
have run (store/making/family_rows.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import squareform

from precompute.sae.directions import centre
from precompute.sae.logit_lens import BLOCK_BYTES, largest_values
from precompute.steps.cooccur import chosen_rows, feature_sets
from precompute.store.making.unfinished import Collected, load_step, save_step
from precompute.store.schema import MODALITIES, VERDICTS
from precompute.utils.ragged import run_starts, slices
from precompute.utils.types import Array

COSINE, JACCARD = 0.9, 0.7
"""From which two features are near-copies: by their centred directions, or by their samples."""
SAMPLES_COSINE = 0.7
"""Centred cosine that features in the same samples must have too: words that always come together ("on a …
background"), and features active nearly everywhere, have the same samples as well."""
MIN_SAMPLES = 16
"""Of each feature in the modality, or their samples tell nothing."""
MAX_COPIES = 1024
"""Of a feature with more near-copies by direction, so many of the nearest count."""
MAX_COMPONENT = 4096
"""Features that hang together through near-copies are joined by complete linkage over all their pairs; where more do,
the weaker half of their pairs is left out, again and again, until they fall apart."""
_BLOCK_ENTRIES = 1 << 24
_ROUNDING = 1e-5


class NearPairs(NamedTuple):
    """Pairs of different features, each [p]."""

    a: Array
    """int64: the smaller number."""
    b: Array
    """int64: the larger number."""
    likeness: Array
    """float64: cosine or Jaccard index."""


def near_directions(vectors_fd: Array, other_fk: Array, cosine_fk: Array) -> NearPairs:
    """Pairs with a cosine of at least COSINE, each once.

    The nearest of a feature tell all of its pairs unless even the last of them is a near-copy; such features are
    compared with all others.

    Args:
        vectors_fd: unit vectors, float32, zero where there is none. other_fk, cosine_fk: nearest of each, falling; −1
            beyond the end.
    """
    limit = COSINE - _ROUNDING
    near_fk = (other_fk >= 0) & (cosine_fk >= limit)
    row, rank = np.nonzero(near_fk)
    pairs = [np.stack([row, other_fk[row, rank]])]
    full_rows = np.flatnonzero(cosine_fk[:, -1] >= limit)
    vectors = torch.from_numpy(vectors_fd)
    step, k = max(1, BLOCK_BYTES // (4 * len(vectors))), min(MAX_COPIES + 1, len(vectors))
    for low in range(0, len(full_rows), step):
        block = full_rows[low : low + step]
        value, at = largest_values(vectors[torch.from_numpy(block)] @ vectors.T, k)
        row, rank = np.nonzero(value.numpy() >= limit)
        pairs.append(np.stack([block[row], at.numpy()[row, rank]]))
    a, b = np.sort(np.concatenate(pairs, axis=1), axis=0)
    key = np.unique((a * len(vectors_fd) + b)[a != b])
    a, b = key // len(vectors_fd), key % len(vectors_fd)
    cosine = cosines(vectors_fd, a, b)
    is_near = cosine >= COSINE
    return NearPairs(a[is_near], b[is_near], cosine[is_near])


def cosines(vectors_fd: Array, a: Array, b: Array) -> Array:
    """float64 [p]: of unit vectors float32 [F, d], those of a and b, int64 [p]."""
    cosine = np.empty(len(a))
    for at in slices(len(a), max(1, BLOCK_BYTES // (16 * vectors_fd.shape[1]))):
        cosine[at] = np.einsum("pd,pd->p", vectors_fd[a[at]], vectors_fd[b[at]], dtype=np.float64)
    return cosine


def near_samples(sets: csr_matrix, vectors_fd: Array) -> NearPairs:
    """Pairs that share at least JACCARD of all samples that have either, of features in MIN_SAMPLES or more, with a
    cosine of at least SAMPLES_COSINE.

    Args:
        sets: int32 CSR [n, F] of ones: the features in each sample's set. vectors_fd: unit vectors, float32.
    """
    n_f = np.asarray(sets.sum(0)).ravel()
    columns_f = np.flatnonzero(n_f >= MIN_SAMPLES)
    sets, n_f = sets[:, columns_f].tocsr(), n_f[columns_f]
    columns = sets.T.tocsr()
    parts = [np.zeros((3, 0))]
    step = max(1, _BLOCK_ENTRIES // max(1, len(columns_f)))
    for low in range(0, len(columns_f), step):
        product = (columns[low : low + step] @ sets).tocoo()
        a, b, n_both = product.row + low, product.col, product.data
        jaccard = n_both / (n_f[a] + n_f[b] - n_both)
        is_near = (a < b) & (jaccard >= JACCARD)
        parts.append(np.stack([columns_f[a[is_near]], columns_f[b[is_near]], jaccard[is_near]]))
    columns_p = np.concatenate(parts, axis=1)
    a, b = columns_p[:2].astype(np.int64)
    is_close = cosines(vectors_fd, a, b) >= SAMPLES_COSINE
    return NearPairs(a[is_close], b[is_close], columns_p[2, is_close])


def strongest_first(n_features: int, pairs: list[NearPairs], vectors_fd: Array) -> tuple[Array, Array]:
    """(a, b) of all pairs, each once: the most alike first, then the larger cosine, then the smaller ids.

    How alike: the largest of the likenesses, scaled so that 0 is the limit and 1 the same. `pairs` are by direction,
    then by samples of each modality; `vectors_fd` float32 are unit vectors.
    """
    limits = [COSINE, *[JACCARD] * (len(pairs) - 1)]
    likeness = np.concatenate([(p.likeness - limit) / (1 - limit) for p, limit in zip(pairs, limits, strict=True)])
    key, pair = np.unique(np.concatenate([p.a * n_features + p.b for p in pairs]), return_inverse=True)
    likeness_p = np.full(len(key), -1.0)
    np.maximum.at(likeness_p, pair, likeness)
    a, b = key // n_features, key % n_features
    order = np.lexsort((key, -cosines(vectors_fd, a, b), -likeness_p))
    return a[order], b[order]


def join(n_features: int, a: Array, b: Array) -> Array:
    """Families by complete linkage, int64 [F]: the smallest number among those that are joined, its own for a feature
    alone.

    The two families whose least alike pair is the most alike are joined, as long as all their pairs are near-copies.

    Args:
        a, b: int64 [p], the near-copies, each pair once and the most alike first.
    """
    family = np.arange(n_features)
    while True:
        graph = csr_matrix((np.ones(len(a)), (a, b)), shape=(n_features, n_features))
        part = connected_components(graph, directed=False)[1]
        too_large = np.flatnonzero((np.bincount(part) > MAX_COMPONENT)[part[a]])
        if not len(too_large):
            break
        a, b = (np.delete(ids, too_large[-(len(too_large) // 2 or 1) :]) for ids in (a, b))
    order = np.argsort(part[a], kind="stable")
    for pairs in np.split(order, run_starts(part[a][order])[1:]) if len(a) else ():
        members, at = np.unique(np.stack([a[pairs], b[pairs]]), return_inverse=True)
        i, j = at.reshape(2, -1)
        distance = np.full((len(members),) * 2, 2.0)
        # By its place in the order no pair is as far as another, so the result does not hang on how ties are broken.
        distance[i, j] = distance[j, i] = pairs / len(a)
        np.fill_diagonal(distance, 0)
        group = fcluster(linkage(squareform(distance, checks=False), "complete"), 1.0, "distance")
        _, first, number = np.unique(group, return_index=True, return_inverse=True)
        family[members] = members[first[number]]
    return family


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `directions` (callable → float [F, d])."""
    data, index = Collected(part, manifest), load_step(part, "index")
    is_alive = load_step(part, "weigh")["verdict"] != VERDICTS.index("dead")
    vectors = centre(options["directions"](), is_alive).unit_fd
    vectors[~is_alive] = 0
    neighbour = np.where(is_alive[index["decoder_neighbours"]], index["decoder_neighbours"], -1)
    rows = chosen_rows(data.samples.values("sample_id"))
    by_samples = [near_samples(sets, vectors) for sets in feature_sets(data, rows)]
    pairs = [near_directions(vectors, neighbour, index["decoder_cosine"]), *by_samples]
    a, b = strongest_first(data.n_features, pairs, vectors)
    family = join(data.n_features, a, b)
    save_step(part, "families", family=family)
    size = np.bincount(family)
    summary = {"n": int((size > 1).sum()), "n_features": int(size[size > 1].sum()), "largest": int(size.max())}
    by = zip(("direction", *(f"samples_{name}" for name in MODALITIES)), pairs, strict=True)
    return {"families": {**summary, "near_copies": {name: len(near_pairs.a) for name, near_pairs in by}}}
