"""The k largest of each of many runs of values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_BLOCK_ELEMENTS = 1 << 22


def strongest(value_n: Array, offset_r: Array, k: int) -> Array:
    """bool [n]: whether a value is among the k largest of its run; of equal ones the earlier are.

    Args:
        value_n: without NaN. offset_r: where each run begins, and the end of the last.
    """
    length_r = np.diff(offset_r)
    kept_n = np.ones(len(value_n), dtype=bool)
    long = np.flatnonzero(length_r > k)
    width = int(length_r.max(initial=1))
    for low in range(0, len(long), max(1, _BLOCK_ELEMENTS // width)):
        block = long[low : low + max(1, _BLOCK_ELEMENTS // width)]
        inside = np.arange(width) < length_r[block][:, None]
        at = (offset_r[block][:, None] + np.arange(width))[inside]
        # As rows of one width they are split at the k-th largest together, without being sorted.
        padded = np.full(inside.shape, -np.inf)
        padded[inside] = value_n[at]
        kth = np.partition(padded, width - k, axis=1)[:, width - k, None]
        more, equal = padded > kth, padded == kth
        room = k - more.sum(1, keepdims=True)
        kept_n[at] = (more | (equal & (equal.cumsum(1) <= room)))[inside]
    return kept_n
