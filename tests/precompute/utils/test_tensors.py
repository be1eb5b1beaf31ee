"""Flat tensors sorted and searched, against Python's own lists; on a GPU too where there is one."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from precompute.utils.ragged import torch_rank_in_run, torch_run_ends, torch_run_starts
from precompute.utils.tensors import argsort_distinct, nonzero_indices, sorted_numbers

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=40))
def test_sorted(numbers: list[int], device: str) -> None:
    given_n = torch.tensor(numbers, dtype=torch.int64, device=device)
    assert sorted_numbers(given_n).tolist() == sorted(numbers)
    assert argsort_distinct(given_n).tolist() == sorted(range(len(numbers)), key=numbers.__getitem__)
    assert given_n.tolist() == numbers, "what was given has changed"


@pytest.mark.parametrize("device", DEVICES)
@given(pairs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=30))
def test_runs(pairs: list[tuple[int, int]], device: str) -> None:
    one, other = torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 2).T
    start = [i for i in range(len(pairs)) if i == 0 or pairs[i] != pairs[i - 1]]
    begin = torch_run_starts(one, other)
    assert begin.tolist() == start
    assert torch_run_ends(begin, len(pairs)).tolist() == [*start[1:], len(pairs)][: len(start)]
    rank: list[int] = []
    for i, (key, _) in enumerate(pairs):
        rank.append(rank[-1] + 1 if i and key == pairs[i - 1][0] else 0)
    assert torch_rank_in_run(one).tolist() == rank
    assert nonzero_indices(other == 1).tolist() == [i for i, (_, flag) in enumerate(pairs) if flag]
