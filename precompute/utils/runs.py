"""Flat arrays whose entries lie run by run: where runs begin, ranks inside them, the places of some, their largest."""

from __future__ import annotations

from functools import reduce

import numpy as np

from precompute.utils.types import Array

_BLOCK_ELEMENTS = 1 << 22


def run_starts(*keys: Array) -> Array:
    """int64: where each run of equal keys begins; of several arrays, of entries equal in all."""
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    changed = reduce(np.logical_or, (key[1:] != key[:-1] for key in keys))
    return np.flatnonzero(np.r_[True, changed])


def rank_in_run(keys: Array) -> Array:
    """0, 1, 2 … inside each run of equal keys."""
    first = run_starts(keys)
    rank: Array = np.arange(len(keys)) - np.repeat(first, np.diff(np.append(first, len(keys))))
    return rank


def expand(start_n: Array, length_n: Array) -> Array:
    """Indices start…start+length−1 of every run, one after the other."""
    begin = np.cumsum(length_n) - length_n
    at: Array = np.repeat(start_n - begin, length_n) + np.arange(int(length_n.sum()))
    return at


def offsets(length_n: Array) -> Array:
    """int64 [n+1]: where each run begins and, last, where all end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(length_n, dtype=np.int64)])


def kth_largest(value_n: Array, offset_r: Array, k: int) -> Array:
    """float64 [r]: each run's k-th largest value; −inf where it has fewer.

    Args:
        value_n: without NaN. offset_r: where each run begins, and the end of the last.
    """
    length_r = np.diff(offset_r)
    kth_r = np.full(len(length_r), -np.inf)
    long = np.flatnonzero(length_r >= k)
    width = int(length_r.max(initial=1))
    for low in range(0, len(long), max(1, _BLOCK_ELEMENTS // width)):
        block = long[low : low + max(1, _BLOCK_ELEMENTS // width)]
        # As rows of one width they are split at the k-th largest together, without being sorted.
        padded = np.full((len(block), width), -np.inf)
        padded[np.arange(width) < length_r[block][:, None]] = value_n[expand(offset_r[block], length_r[block])]
        kth_r[block] = np.partition(padded, width - k, axis=1)[:, width - k]
    return kth_r


def strongest(value_n: Array, offset_r: Array, k: int) -> Array:
    """bool [n]: whether a value is among the k largest of its run; of equal ones the earlier are.

    Args:
        value_n: without NaN. offset_r: where each run begins, and the end of the last.
    """
    length_r = np.diff(offset_r)
    kth_n = np.repeat(kth_largest(value_n, offset_r, k), length_r)
    more, equal = value_n > kth_n, value_n == kth_n
    room_r = k - np.diff(offsets(more)[offset_r])
    upto_n = offsets(equal)
    rank_n = upto_n[1:] - np.repeat(upto_n[offset_r[:-1]], length_r)
    kept: Array = more | (equal & (rank_n <= np.repeat(room_r, length_r)))
    return kept
