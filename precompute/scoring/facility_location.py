"""A set of items that stands for all of them: facility location by lazy greedy choice.

f(S) = Σ_i max_{j∈S} s_ij − Σ of s_jk over the near-duplicates j, k in S. What an item adds can only shrink as S grows,
so an item whose gain was computed before is computed again only when it leads (Minoux 1978). Libraries: apricot has had
no release since 2021, submodlib has no types and is built from C++.
"""

import heapq

import numpy as np

from precompute.utils.types import Array

NEAR_DUPLICATE = 0.95
"""Similarity from which two items are near-duplicates."""
BLOCK = 4096
"""Items among which a choice is made at once; of more, seeded blocks choose each for itself."""


def representative_items(vectors_nd: Array, n_chosen: int) -> Array:
    """Indices, rising, of items chosen for the similarity max(0, v_i · v_j).

    Args:
        vectors_nd: float32 [n, d], of length 1 at most.
        n_chosen: at most n.
    """
    n = len(vectors_nd)
    blocks = np.array_split(np.random.default_rng(0).permutation(n), max(1, -(-n // BLOCK)))
    picks: list[Array] = []
    n_seen = n_done = 0
    for block in blocks:
        n_seen += len(block)
        share = n_seen * n_chosen // max(n, 1) - n_done
        n_done += share
        members = np.sort(block)
        similarity_nn = np.maximum(vectors_nd[members] @ vectors_nd[members].T, 0)
        picks.append(members[greedy(similarity_nn, share)])
    return np.sort(np.concatenate(picks))


def greedy(similarity_nn: Array, n_chosen: int) -> Array:
    """int64 [n_chosen]: the items in the order of choice; ties go to the smaller index.

    Args:
        similarity_nn: float [n, n] ≥ 0, symmetric.
    """
    n = len(similarity_nn)
    covered_n, penalty_n = np.zeros(n, similarity_nn.dtype), np.zeros(n)
    heap = [(-float(total), i) for i, total in enumerate(similarity_nn.sum(axis=1, dtype=np.float64))]
    heapq.heapify(heap)
    order: list[int] = []
    while len(order) < n_chosen:
        _, i = heapq.heappop(heap)
        gain = np.maximum(similarity_nn[i] - covered_n, 0).sum(dtype=np.float64) - penalty_n[i]
        if heap and (-gain, i) > heap[0]:
            heapq.heappush(heap, (-float(gain), i))
            continue
        order.append(i)
        np.maximum(covered_n, similarity_nn[i], out=covered_n)
        near_n = similarity_nn[i] >= NEAR_DUPLICATE
        penalty_n[near_n] += similarity_nn[i, near_n]
    return np.array(order, dtype=np.int64)
