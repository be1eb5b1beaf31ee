"""The k largest of runs, against sorting each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from precompute import strongest as module
from precompute.strongest import strongest

RUNS = st.lists(st.lists(st.integers(0, 4).map(float), max_size=9), max_size=12)


def naive(runs: list[list[float]], k: int) -> list[bool]:
    kept = []
    for run in runs:
        best = sorted(range(len(run)), key=lambda i: (-run[i], i))[:k]
        kept += [i in best for i in range(len(run))]
    return kept


@given(runs=RUNS, k=st.integers(1, 6))
@pytest.mark.parametrize("block", [1, 20, 1 << 22])
def test_the_k_largest_of_each_run(runs: list[list[float]], k: int, block: int) -> None:
    offset = np.cumsum([0, *map(len, runs)])
    value = np.array([v for run in runs for v in run])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ELEMENTS", block)
        assert strongest(value, offset, k).tolist() == naive(runs, k)
