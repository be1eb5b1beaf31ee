"""Of each row of an approximate product the columns that can be among its k largest."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.utils.types import Array

BLOCK = 64
"""Columns that are first looked at together, by their largest value."""
_ROW_BITS, _PLACE_BITS = 10, 22
MOST = 0.5
"""Share of a row's blocks from which on looking at single columns no longer pays."""


class Pairs(NamedTuple):
    """Rows and columns; the rows rise."""

    row_p: Array
    """int64."""
    col_p: Array
    """int64."""


class Bound(NamedTuple):
    """How far an approximate value may be from the one by which winners are decided."""

    most_rb: Array
    """float32 [r, b], by row and block."""
    share: float
    """Of the approximate value, in addition."""


def block_count(n: int) -> int:
    """Blocks of n columns; column v is in block v mod b."""
    return -(-n // BLOCK)


def candidates(product_rn: Tensor, bound: Bound, k: int, *, lowest: bool) -> tuple[Pairs, Array]:
    """The columns that may be among the k largest of their row, as far as the bound can tell.

    One column of each block has at least the block's largest value less the bound. Let x be the k-th largest of these
    numbers over the blocks: k columns have at least x. So a column whose value plus its bound is below x is not among
    the k largest.

    Letters of axes: r rows, b blocks, c columns of a block (column c · b + i of the product is in block i), q the pairs
    of a row and a block whose columns are looked at.

    Args:
        product_rn: bfloat16 or float32, b · BLOCK columns.
        lowest: the k lowest values instead of the k largest.

    Returns:
        the pairs, and bool [r]: rows with so many candidates that looking at them does not pay; they have no pairs.
    """
    bits_rcb = _bits(product_rn)
    n_blocks = bits_rcb.shape[2]
    blocks_rcb = bits_rcb.numpy()
    unsigned_rcb = blocks_rcb.view(np.dtype(f"u{blocks_rcb.dtype}"))
    top_rb = numbers(unsigned_rcb.max(1), lowest=True) if lowest else numbers(bits_rcb.amax(1).numpy())
    lower_rb = top_rb - bound.share * np.abs(top_rb) - bound.most_rb
    limit_r = np.partition(lower_rb, n_blocks - k, axis=1)[:, n_blocks - k]
    least_rb = limit_r[:, None] - bound.most_rb
    # Where a block's numbers are all negative, its largest is some number below 0.
    above_rb = np.maximum(top_rb, 0) * (1 + bound.share) >= least_rb
    too_many_r = above_rb.sum(1) > k + MOST * n_blocks
    too_many_r |= ~np.isfinite(lower_rb).all(1)
    above_rb[too_many_r] = False
    row_q, block_q = _places(above_rb)
    key_qc = _sort_keys(blocks_rcb[row_q, :, block_q], lowest)
    at_q, at_c = _places(key_qc >= _least_key(least_rb[row_q, block_q], bound.share, key_qc.dtype)[:, None])
    return Pairs(row_q[at_q], at_c * n_blocks + block_q[at_q]), too_many_r


def _places(is_wanted_nm: Array) -> tuple[Array, Array]:
    """(rows, columns) int64 of what is true, as `np.nonzero` has them, in a quarter of its time."""
    row_p, col_p = np.divmod(np.flatnonzero(is_wanted_nm), is_wanted_nm.shape[1])
    return row_p, col_p


def _sort_keys(bit_n: Array, lowest: bool = False) -> Array:
    """Integers that are ordered as the numbers with these bits (int16 of bfloat16, int32 of float32), −0 before 0; with
    `lowest` as the numbers with the sign changed. The bits are overwritten."""
    limits = np.iinfo(bit_n.dtype)
    if lowest:
        bit_n ^= limits.min
    bit_n ^= (bit_n >> limits.bits - 1) & limits.max  # negative numbers have more bits the lower they are
    return bit_n


def _least_key(least_n: Array, share: float, dtype: np.dtype[Any]) -> Array:
    """The integer, as of `_sort_keys`, that every v with v + share · |v| ≥ x reaches; x is float32 [n], finite."""
    value_n = least_n / np.where(least_n > 0, np.float32(1 + share), np.float32(1 - share))
    value_n -= np.abs(value_n) * np.float32(2.0**-20)  # more than the operations here and in `candidates` round
    key_n = _sort_keys(value_n.view(np.int32)) >> 32 - np.iinfo(dtype).bits
    lower_n: Array = (key_n - 1).astype(dtype)  # −0 reaches 0 too
    return lower_n


def positive(product_rn: Tensor) -> Pairs:
    """The pairs that are not below 0. `product_rn` is bfloat16 or float32, b · BLOCK columns."""
    bits_rcb = _bits(product_rn)
    row_q, block_q = _places(bits_rcb.amax(1).numpy() >= 0)
    at_q, at_c = _places(bits_rcb.numpy()[row_q, :, block_q] >= 0)
    return Pairs(row_q[at_q], at_c * bits_rcb.shape[2] + block_q[at_q])


def _bits(product_rn: Tensor) -> Tensor:
    """int16 or int32 [r, BLOCK, b], of bfloat16 or float32: the bits of each number as an integer, by block.

    These integers order positive numbers as their values do and are larger than those of any negative one; without a
    sign the most negative number is the largest. A CPU compares integers several times faster."""
    integer = torch.int16 if product_rn.dtype == torch.bfloat16 else torch.int32
    return product_rn.view(integer).view(len(product_rn), BLOCK, product_rn.shape[1] // BLOCK)


def numbers(bit_n: Array, lowest: bool = False) -> Array:
    """float32 of the bits of bfloat16 or float32 numbers; `lowest` with the sign changed."""
    wide_n = bit_n.astype(np.uint32) << 16 if bit_n.dtype.itemsize == 2 else bit_n.astype(np.uint32)
    value_n = wide_n.view(np.float32)
    return np.negative(value_n, out=value_n) if lowest else value_n


def join(n_columns: int, several: Sequence[Pairs]) -> Pairs:
    """The pairs in any of them, once each, by row and column.

    Args:
        n_columns: more than any column.
    """
    number_p = np.sort(np.concatenate([pairs.row_p * n_columns + pairs.col_p for pairs in several]))
    number_p = number_p[np.diff(number_p, prepend=-1) > 0]
    return Pairs(*np.divmod(number_p, n_columns))


def winners(pairs: Pairs, value_p: Array, n_rows: int, k: int) -> tuple[Array, Array]:
    """(values float32 [r, k] falling, their columns int64 [r, k]) of each row's k largest, of equal ones the first
    columns; NaN and −1 beyond the last.

    Args:
        pairs: by row and column. value_p: float32, of each pair.
    """
    order = _order(pairs.row_p, value_p, n_rows)
    row_p = pairs.row_p[order]
    start_r = np.searchsorted(row_p, np.arange(n_rows))
    rank_p = np.arange(len(row_p)) - start_r[row_p]
    first = rank_p < k
    value_rk, col_rk = np.full((n_rows, k), np.nan, np.float32), np.full((n_rows, k), -1)
    at = row_p[first], rank_p[first]
    value_rk[at], col_rk[at] = value_p[order][first], pairs.col_p[order][first]
    return value_rk, col_rk


def _order(row_p: Array, value_p: Array, n_rows: int) -> Array:
    """int64 [p]: by row, then from the largest value, then as they are."""
    if n_rows > 1 << _ROW_BITS or len(row_p) > 1 << _PLACE_BITS or not np.isfinite(value_p).all():
        return np.lexsort((-value_p, row_p))
    # One number of row, value and place: to sort numbers is several times as fast as to sort by keys.
    bit_p = (value_p + np.float32(0)).view(np.int32)  # −0 becomes 0
    falling_p = np.where(bit_p < 0, bit_p & 0x7FFFFFFF, ~bit_p & 0x7FFFFFFF).astype(np.uint64)
    falling_p |= (bit_p < 0).astype(np.uint64) << np.uint64(31)
    key_p = row_p.astype(np.uint64) << np.uint64(32 + _PLACE_BITS) | falling_p << np.uint64(_PLACE_BITS)
    key_p |= np.arange(len(key_p), dtype=np.uint64)
    key_p.sort()
    return (key_p & np.uint64((1 << _PLACE_BITS) - 1)).astype(np.int64)
