"""The lazy greedy choice of a representative set, beside a greedy choice that computes every gain anew."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precompute.scoring import facility_location
from precompute.scoring.facility_location import NEAR_DUPLICATE, greedy, representative_items


def value(similarity: Any, chosen: list[int]) -> float:
    """The objective, as it is written down."""
    covered = sum(max((similarity[i][j] for j in chosen), default=0.0) for i in range(len(similarity)))
    near = [(j, k) for a, j in enumerate(chosen) for k in chosen[:a] if similarity[j][k] >= NEAR_DUPLICATE]
    return float(covered - sum(similarity[j][k] for j, k in near))


def naive(similarity: Any, n_chosen: int) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < n_chosen:
        rest = [i for i in range(len(similarity)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: (value(similarity, [*chosen, i]), -i)))
    return chosen


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 14), st.integers(0, 10**6), st.data())
def test_lazy_is_greedy(n: int, seed: int, data: st.DataObject) -> None:
    """With repeated items, so that there are near-duplicates and ties; sixteenths, so that sums are exact."""
    rng = np.random.default_rng(seed)
    root = rng.integers(0, 9, (n, n)) / 16
    similarity = np.maximum(root, root.T)
    copies = rng.integers(0, n, n)
    similarity = similarity[np.ix_(copies, copies)]
    similarity[copies[:, None] == copies[None]] = 1.0
    n_chosen = data.draw(st.integers(0, n))
    assert greedy(similarity, n_chosen).tolist() == naive(similarity, n_chosen)


def test_one_of_each_group_before_any_copy() -> None:
    groups = np.repeat(np.arange(5), [9, 1, 4, 2, 8])
    vectors = np.eye(5, dtype=np.float32)[groups]
    assert sorted(groups[representative_items(vectors, 5)].tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n_chosen", [0, 1, 37, 100])
def test_blocks_choose_as_many_in_all(n_chosen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facility_location, "BLOCK", 16)
    vectors = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = representative_items(vectors, n_chosen)
    assert len(set(rows.tolist())) == len(rows) == n_chosen and (np.diff(rows) > 0).all()
