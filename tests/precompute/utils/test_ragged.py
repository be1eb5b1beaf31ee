"""Runs in flat arrays, against going through them one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from precompute.utils import ragged as module
from precompute.utils.ragged import expand, kth_largest, offsets, rank_in_run, run_starts, strongest_in_runs

RUNS = st.lists(st.lists(st.integers(0, 4).map(float), max_size=9), max_size=12)


def naive(runs: list[list[float]], k: int) -> list[bool]:
    remaining = []
    for run in runs:
        best = sorted(range(len(run)), key=lambda i: (-run[i], i))[:k]
        remaining += [i in best for i in range(len(run))]
    return remaining


@given(runs=RUNS, k=st.integers(1, 6))
@pytest.mark.parametrize("block", [1, 20, 1 << 22])
def test_the_k_largest_of_each_run(runs: list[list[float]], k: int, block: int) -> None:
    offset = np.cumsum([0, *map(len, runs)])
    value = np.array([v for run in runs for v in run])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ELEMENTS", block)
        assert strongest_in_runs(value, offset, k).tolist() == naive(runs, k)
        kth = [sorted(run, reverse=True)[k - 1] if len(run) >= k else -np.inf for run in runs]
        assert kth_largest(value, offset, k).tolist() == kth


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=30))
def test_starts_and_ranks_of_runs(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    expected = [i for i in range(len(pairs)) if i == 0 or pairs[i] != pairs[i - 1]]
    assert run_starts(one, other).tolist() == expected
    rank: list[int] = []
    for i, key in enumerate(one.tolist()):
        rank.append(rank[-1] + 1 if i and key == one[i - 1] else 0)
    assert rank_in_run(one).tolist() == rank


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=12))
def test_runs_spelled_out(runs: list[tuple[int, int]]) -> None:
    start, length = np.array(runs, dtype=np.int64).reshape(-1, 2).T
    assert expand(start, length).tolist() == [at for begin, n in runs for at in range(begin, begin + n)]
    assert offsets(length).tolist() == [sum(n for _, n in runs[:i]) for i in range(len(runs) + 1)]
