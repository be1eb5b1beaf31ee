"""Candidates are chosen by comparing the bits of numbers as integers: none that its value admits may be left out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from precompute.products.candidates import BLOCK, Bound, candidates
from precompute.utils.types import Array

SHARES = {torch.bfloat16: 2.0**-8, torch.float32: 0.0}
NUMBERS = st.one_of(
    st.floats(-1e6, 1e6, width=32),
    st.floats(-(2.0**-120), 2.0**-120, width=32),
    st.sampled_from([0.0, -0.0, 1.0, -1.0]),
)


def plain(value_rn: Array, bound: Bound, k: int) -> Array:
    """bool [r, n]: what can be among the k largest, by the k-th largest of the lower ends of all blocks."""
    spread_rn = bound.share * np.abs(value_rn) + np.tile(bound.most_rb, BLOCK)
    lower_rb = (value_rn - spread_rn).reshape(len(value_rn), BLOCK, -1).max(1)
    limit_r = np.sort(lower_rb, axis=1)[:, -k]
    reach: Array = value_rn + spread_rn >= limit_r[:, None]
    return reach


@pytest.mark.parametrize("dtype", SHARES)
@pytest.mark.parametrize("lowest", [False, True])
@given(
    value=arrays.arrays(np.float32, (3, BLOCK * 5), elements=NUMBERS, fill=NUMBERS),
    most=arrays.arrays(np.float32, (3, 5), elements=st.floats(0, 2, width=32)),
    k=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_no_admitted_number_is_left_out(dtype: torch.dtype, lowest: bool, value: Array, most: Array, k: int) -> None:
    product_rn = torch.from_numpy(value).to(dtype)
    value_rn = product_rn.double().numpy() * (-1 if lowest else 1)
    # What the bound allows in addition to its share covers the rounding of the comparison, as that of a product does.
    bound = Bound(most * np.float32(1 + 2e-6), SHARES[dtype])
    pairs, too_many_r = candidates(product_rn, bound, k, lowest=lowest)
    chosen_rn = np.zeros(value_rn.shape, dtype=bool)
    chosen_rn[pairs.row_p, pairs.col_p] = True
    admitted_rn = plain(value_rn, Bound(most.astype(np.float64), bound.share), k)
    assert (chosen_rn | ~admitted_rn | too_many_r[:, None]).all()


@pytest.mark.parametrize("lowest", [False, True])
def test_few_are_chosen_where_the_bound_is_tight(lowest: bool) -> None:
    product_rn = torch.randn(20, BLOCK * 40, generator=torch.Generator().manual_seed(0)) - 10 * (1 - 2 * lowest)
    bound = Bound(np.full((20, 40), 1e-6, np.float32), 0.0)
    pairs, too_many_r = candidates(product_rn, bound, 5, lowest=lowest)
    assert too_many_r.all(), "all numbers below zero: which block has the largest is not known"
    pairs, too_many_r = candidates(product_rn, bound, 5, lowest=not lowest)
    assert not too_many_r.any()
    assert len(pairs.row_p) < 20 * 5 * 4
