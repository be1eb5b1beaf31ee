"""The k largest products of vectors with many others, exact: `Table.candidates` and `largest_products`.

A large product in low precision excludes nearly all columns. What is left is multiplied again, pair by pair in float32,
and decided by these values. So winners and values do not depend on the number type of the large product, on how it is
divided into blocks, or on the number of threads.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from threading import local
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from precompute.products.candidates import (
    BLOCK,
    MOST,
    Bound,
    Pairs,
    block_count,
    candidates,
    join,
    positive,
    winners,
)
from precompute.products.pairs import pair_products
from precompute.products.rounding import EXTREME, OUTPUT, Rows, bound, rows_of, write_bound
from precompute.products.setting import Products
from precompute.products.threads import in_threads
from precompute.utils.types import Array

Result = TypeVar("Result")

BLOCK_NUMBERS = 1 << 25
"""Numbers of a product that a thread computes and looks at before the next: 64 MB of bfloat16."""
MOST_ROWS = 1024
MOST_PAIRS = 1 << 22
"""Pairs that are looked at together where whole rows are: they take some 150 MB, in each thread."""
LARGEST, LOWEST = False, True


class TooManyPairsError(Exception):
    """Rows that must be looked at whole have more than MOST_PAIRS pairs together: ask for fewer rows at a time."""


class Table:
    """Vectors that many others are multiplied with.

    Args:
        vectors_nd: float32 [n, d]. products: the run's. part: its name for these products in run.json.
        more_nc: float32 [n, c], further numbers of each vector. n_spare: as of `rows_of`.
    """

    def __init__(
        self, vectors_nd: Tensor, products: Products, part: str, more_nc: Tensor | None = None, n_spare: int = 0
    ) -> None:
        self.vectors_nd, self.products, self.part = vectors_nd, products, part
        self.more_nc, self.spare = more_nc, n_spare
        self.n_blocks = block_count(len(vectors_nd))
        self._memory = local()
        low = self._rows(torch.bfloat16) if products.low else None
        self.low = low if low is not None and bool((low.length_n < EXTREME).all()) else None
        """In bfloat16; None where that is not allowed or not possible."""

    @property
    def step(self) -> int:
        """Rows of the other side to take at a time."""
        return min(MOST_ROWS, max(16, BLOCK_NUMBERS // len(self.vectors_nd)))

    @cached_property
    def float32_rows(self) -> Rows:
        """In float32; made where it is needed."""
        return self._rows(torch.float32)

    def _rows(self, dtype: torch.dtype) -> Rows:
        rows = rows_of(self.vectors_nd, dtype, None, BLOCK, self.more_nc, self.spare)
        if self.spare:
            write_bound(rows, rows.length_n, rows.error_n)
        return rows

    def _multiply(self, left: Rows, right: Rows) -> Tensor:
        """[r, n']: in memory that the thread's next product takes again, for new pages cost as much as the product."""
        n_rows, dtype = len(left.number_nd), right.number_nd.dtype
        memory = getattr(self._memory, str(dtype), None)
        if memory is None or len(memory) < n_rows:
            memory = torch.empty(n_rows, len(right.number_nd), dtype=dtype)
            setattr(self._memory, str(dtype), memory)
        return torch.mm(left.number_nd, right.number_nd.T, out=memory[:n_rows])

    def _attempts(self) -> Iterator[Rows]:
        """In the number types to try in turn."""
        if self.low is not None:
            yield self.low
        yield self.float32_rows

    def candidates(
        self, left_rd: Tensor, k: int, sides: Sequence[bool] = (LARGEST,), extra_r: Array | None = None
    ) -> list[Pairs]:
        """Per side the pairs among which the k winners of each row are, by row and column.

        Args:
            left_rd: float32 [r, d + c]. sides: LARGEST for the k largest, LOWEST for the k lowest.
            extra_r: float64 [r], as of `rows_of`.

        Raises:
            TooManyPairsError: never for a single row.
        """
        n_rows, n = len(left_rd), len(self.vectors_nd)
        rows = np.arange(n_rows)
        if self.n_blocks <= k:
            return [grid(rows, n) for _ in sides]
        zero_r = ~left_rd.any(1).numpy()
        # All products with a vector of zeros are equal, and of equal ones the first columns win.
        pairs_of_sides: list[list[Pairs]] = [[grid(rows[zero_r], k)] for _ in sides]
        rows, counts = rows[~zero_r], list[tuple[torch.dtype, int, int]]()
        for right in self._attempts():
            dtype = right.number_nd.dtype
            extra_rows = None if extra_r is None else extra_r[rows]
            left = rows_of(left_rd[torch.from_numpy(rows)], dtype, extra_rows, n_more=self.spare)
            too_many_r = ~(left.length_n < EXTREME) if dtype == torch.bfloat16 else np.zeros(len(rows), bool)
            product_rn = self._multiply(left, right)
            limits = Bound(bound(left, right, self.n_blocks), OUTPUT[dtype])
            for pairs_of_side, lowest in zip(pairs_of_sides, sides, strict=True):
                pairs, too_many_of_side_r = candidates(product_rn, limits, k, lowest=lowest)
                too_many_r |= too_many_of_side_r
                pairs_of_side.append(Pairs(rows[pairs.row_p], pairs.col_p))
            counts.append((dtype, len(rows), int(too_many_r.sum())))
            rows = rows[too_many_r]
            if not len(rows):
                break
        if len(rows) > 1 and len(rows) * n > MOST_PAIRS:
            raise TooManyPairsError
        for count in counts:
            self.count(*count)
        for pairs_of_side in pairs_of_sides:
            pairs_of_side.append(grid(rows, n))
        return [pairs_within(n, join(self.n_blocks * BLOCK, pairs_of_side)) for pairs_of_side in pairs_of_sides]

    def above_zero(self, left_rd: Tensor) -> Pairs:
        """The pairs whose product can be above 0, by row and column; `n_spare` is at least 2.

        Args:
            left_rd: float32 [r, d + c].
        """
        n = len(self.vectors_nd)
        for right in self._attempts():
            dtype = right.number_nd.dtype
            left = rows_of(left_rd, dtype, n_more=self.spare)
            write_bound(left, left.error_n + left.gamma * left.length_n, left.length_n)
            pairs = positive(self._multiply(left, right))
            is_dense = dtype == torch.bfloat16 and len(pairs.row_p) > MOST * n * len(left_rd)
            self.count(dtype, len(left_rd), len(left_rd) * is_dense)
            if not is_dense:
                break
        return pairs_within(n, join(self.n_blocks * BLOCK, [pairs]))

    def count(self, dtype: torch.dtype, n_rows: int, n_many: int) -> None:
        """Rows for run.json, `n_many` of them with too many candidates."""
        if dtype == torch.bfloat16:
            self.products.count(self.part, "bfloat16", n_rows - n_many)
            self.products.count(self.part, "float32_again", n_many)
        elif self.low is None:
            self.products.count(self.part, "float32", n_rows)


def largest_products(
    vectors_nd: Tensor, k: int, products: Products, part: str, *, itself: bool = True
) -> tuple[Array, Array]:
    """Of each of n vectors the k whose products with it are largest: values float32 [n, k] falling, rows int64 [n, k].

    Args:
        vectors_nd: float32 [n, d], n ≥ k. itself: whether a vector counts among its own.
    """
    table = Table(vectors_nd, products, part)

    def search(low: int, high: int) -> tuple[Array, Array]:
        left_rd = vectors_nd[low:high]
        (pairs,) = table.candidates(left_rd, k + (not itself))
        if not itself:
            other_p = pairs.row_p + low != pairs.col_p
            pairs = Pairs(pairs.row_p[other_p], pairs.col_p[other_p])
        value_p = pair_products(left_rd, vectors_nd, pairs)
        return winners(pairs, value_p, len(left_rd), k)

    value_nk, other_nk = (np.concatenate(parts) for parts in zip(*by_blocks(search, table), strict=True))
    return value_nk, other_nk


def by_blocks(search: Callable[[int, int], Result], table: Table, n: int | None = None) -> list[Result]:
    """The results of `search(low, high)` over all n rows, by default those of the table, block by block in threads. A
    block whose pairs would take too much memory is halved, which changes no result.

    Args:
        search: may raise TooManyPairsError.
    """

    def halved(low: int, high: int) -> list[Result]:
        try:
            return [search(low, high)]
        except TooManyPairsError:
            middle = (low + high) // 2
            return [*halved(low, middle), *halved(middle, high)]

    n = len(table.vectors_nd) if n is None else n
    blocks = in_threads(lambda low: halved(low, min(low + table.step, n)), range(0, n, table.step))
    return [result for block in blocks for result in block]


def grid(rows: Array, n: int) -> Pairs:
    """All pairs of these rows with the first n columns."""
    return Pairs(np.repeat(rows, n), np.tile(np.arange(n), len(rows)))


def pairs_within(n: int, pairs: Pairs) -> Pairs:
    """Without the columns that only fill up the last block."""
    real_p = pairs.col_p < n
    return pairs if real_p.all() else Pairs(pairs.row_p[real_p], pairs.col_p[real_p])
