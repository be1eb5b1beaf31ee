"""Flat arrays whose entries lie run by run: where runs begin, ranks inside them, their largest values; and long rows of
things piece by piece.

The halves for NumPy come first; those for torch tensors (`torch_…`) do the same on any device. torch is imported only
where a tensor is at hand, so that the server needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.sparse import csr_matrix

from precompute.utils.types import Array

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK_ELEMENTS = 1 << 22
_Item = TypeVar("_Item")


def slices(n: int, size: int) -> Iterator[slice]:
    """Slices of `size` that cover n; the last may be shorter."""
    return (slice(low, min(low + size, n)) for low in range(0, n, size))


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Lists of `size` items; the last may be shorter. The standard library has it from Python 3.12 on."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def run_starts(*keys: Array) -> Array:
    """int64 [r]: index at which each run of equal keys begins. Of several arrays [n]: of entries equal in all."""
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    is_start = reduce(np.logical_or, (key[1:] != key[:-1] for key in keys))
    return np.flatnonzero(np.r_[True, is_start])


def torch_run_starts(*keys: Tensor) -> Tensor:
    """`run_starts` of tensors."""
    import torch

    from precompute.utils.tensors import nonzero_indices

    is_start = torch.ones(len(keys[0]), dtype=torch.bool, device=keys[0].device)
    if len(is_start) > 1:
        torch.ne(keys[0][1:], keys[0][:-1], out=is_start[1:])
        for key in keys[1:]:
            is_start[1:] |= key[1:] != key[:-1]
    return nonzero_indices(is_start)


def torch_run_ends(begin_r: Tensor, n: int) -> Tensor:
    """int64 [r]: index after each run's last entry; the last run ends at n."""
    import torch

    return torch.cat([begin_r[1:], begin_r.new_full((min(1, len(begin_r)),), n)])


def rank_in_run(key_n: Array) -> Array:
    """int64 [n]: 0, 1, 2 … inside each run of equal keys."""
    begin_r = run_starts(key_n)
    return np.arange(len(key_n)) - np.repeat(begin_r, np.diff(np.append(begin_r, len(key_n))))


def torch_rank_in_run(key_n: Tensor) -> Tensor:
    """`rank_in_run` of a tensor."""
    import torch

    begin_r = torch_run_starts(key_n)
    length_r = torch_run_ends(begin_r, len(key_n)) - begin_r
    return torch.arange(len(key_n), device=key_n.device) - begin_r.repeat_interleave(length_r)


def offsets(length_r: Array) -> Array:
    """int64 [r + 1]: index at which each run begins and, last, where all end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(length_r, dtype=np.int64)])


def expand(start_r: Array, length_r: Array) -> Array:
    """int64 [n]: indices start … start + length − 1 of every run, one run after the other."""
    begin_r = np.cumsum(length_r) - length_r
    return np.repeat(start_r - begin_r, length_r) + np.arange(int(length_r.sum()))


def find(sorted_n: Array, wanted_m: Array) -> tuple[Array, Array]:
    """(int64 [m] where each of these is among numbers that rise, bool [m] whether it is there at all)."""
    at_m = np.minimum(np.searchsorted(sorted_n, wanted_m), max(len(sorted_n) - 1, 0))
    return at_m, sorted_n[at_m] == wanted_m if len(sorted_n) else np.zeros(len(wanted_m), bool)


def csr_rows(at: Array, offset: Array, column: Array, value: Array, n_columns: int) -> csr_matrix:
    """float64 CSR [n, n_columns]: the runs with these numbers as rows, int64 [n].

    Args:
        offset: int64 [r + 1], where each run begins. column, value: of every entry.
    """
    # Not csr_matrix((value, column, offset))[at]: SciPy reads and converts whole columns first, which are files here.
    start, stop = np.asarray(offset[at]), np.asarray(offset[at + 1])
    take = expand(start, stop - start)
    data, columns = value[take].astype(np.float64), column[take].astype(np.int64)
    return csr_matrix((data, columns, offsets(stop - start)), shape=(len(at), n_columns))


def kth_largest(value_n: Array, offset_r: Array, k: int) -> Array:
    """float64 [r]: each run's k-th largest value; −inf where it has fewer.

    Args:
        value_n: without NaN.
        offset_r: int64 [r + 1], where each run begins, and the end of the last.
    """
    length_r = np.diff(offset_r)
    kth_r = np.full(len(length_r), -np.inf)
    long_runs = np.flatnonzero(length_r >= k)
    width = int(length_r.max(initial=1))
    for low in range(0, len(long_runs), max(1, _BLOCK_ELEMENTS // width)):
        block = long_runs[low : low + max(1, _BLOCK_ELEMENTS // width)]
        # As rows of one width they are split at the k-th largest together, without being sorted.
        padded_values = np.full((len(block), width), -np.inf)
        padded_values[np.arange(width) < length_r[block][:, None]] = value_n[expand(offset_r[block], length_r[block])]
        kth_r[block] = np.partition(padded_values, width - k, axis=1)[:, width - k]
    return kth_r


def strongest_in_runs(value_n: Array, offset_r: Array, k: int) -> Array:
    """bool [n]: whether a value is among the k largest of its run; of equal values the earlier ones are.

    Args:
        value_n: without NaN.
        offset_r: int64 [r + 1], where each run begins, and the end of the last.
    """
    length_r = np.diff(offset_r)
    kth_n = np.repeat(kth_largest(value_n, offset_r, k), length_r)
    larger_n, equal_n = value_n > kth_n, value_n == kth_n
    # The values above the k-th are all in. Those equal to it fill the places that are left, from the left.
    room_r = k - np.diff(offsets(larger_n)[offset_r])
    n_equal_before = offsets(equal_n)
    rank_n = n_equal_before[1:] - np.repeat(n_equal_before[offset_r[:-1]], length_r)
    return larger_n | (equal_n & (rank_n <= np.repeat(room_r, length_r)))
