"""Regions of a query's image, beside average linkage in plain loops."""

from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from precompute.live.regions import CUT, find_regions, on_border
from precompute.store.events import SampleEvents, patches
from precompute.store.schema import IMAGE, SINK, TEXT
from precompute.utils.types import Array


def image_events(z_pf: Array, sinks: tuple[int, ...] = ()) -> SampleEvents:
    """The events of an image with these activations, behind one text token that fires everywhere."""
    z_tf = np.concatenate([np.ones((1, z_pf.shape[1])), z_pf])
    modality_t = np.array([TEXT] + [IMAGE] * len(z_pf), np.uint8)
    modality_t[1 + np.array(sinks, int)] = SINK
    token, feature = np.nonzero(z_tf)
    offset = np.searchsorted(token, np.arange(len(z_tf) + 1))
    return SampleEvents(np.array([1] + [9] * len(z_pf)), modality_t, offset, feature, z_tf[token, feature])


def naive_clusters(weight_pf: Array) -> set[frozenset[int]]:
    """Joins the two nearest groups until their mean cosine distance exceeds CUT."""
    length = np.linalg.norm(weight_pf, axis=1)
    groups = [frozenset([p]) for p in range(len(weight_pf)) if length[p] > 0]

    def distance(a: frozenset[int], b: frozenset[int]) -> float:
        return float(np.mean([1 - weight_pf[i] @ weight_pf[j] / length[i] / length[j] for i in a for j in b]))

    while len(groups) > 1:
        a, b = min(combinations(groups, 2), key=lambda pair: distance(*pair))
        if distance(a, b) > CUT:
            break
        groups = [one for one in groups if one not in (a, b)] + [a | b]
    return set(groups)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_regions_are_those_of_plain_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z_pf = rng.random((12, 8)) * (rng.random((12, 8)) < 0.3) * 3
    p999, specificity = rng.random(8) + 0.5, rng.random(8) * (rng.random(8) < 0.8)
    weight_pf = np.minimum(z_pf / p999, 1) * specificity
    views: list[Any] = [[3, 4, [0, 0, 40, 30], 0]]
    regions = find_regions(image_events(z_pf), views, p999, specificity, np.arange(8))
    at = [frozenset((r.row_p * 4 + r.col_p).tolist()) for r in regions]
    assert set(at) == naive_clusters(weight_pf)
    border = [sum(p // 4 in (0, 2) or p % 4 in (0, 3) for p in one) for one in at]
    assert [r.background for r in regions] == [False] * (len(regions) - 1) + [True] * (len(regions) > 0)
    assert not border or border[-1] == max(border)
    total = weight_pf.sum(0)
    for region, one in zip(regions, at, strict=True):
        own = weight_pf[sorted(one)]
        scores = {k: own[:, k].max() * own[:, k].sum() / total[k] for k in range(8) if own[:, k].any()}
        assert dict(zip(region.feature_n.tolist(), region.score_n, strict=True)).keys() == scores.keys()
        np.testing.assert_allclose(region.score_n, sorted(scores.values(), reverse=True))


def test_two_things_before_a_ground_are_three_regions() -> None:
    """A small thing comes before a larger one, and the ground, which has most of the border, last."""
    z_pf = np.zeros((25, 3))
    z_pf[:, 0] = 1.0
    z_pf[6], z_pf[[12, 13, 17, 18]] = [0, 2, 0], [0, 0, 2]
    views: list[Any] = [[5, 5, [0, 0, 50, 50], 0]]
    regions = find_regions(image_events(z_pf, sinks=(24,)), views, np.ones(3), np.ones(3), np.arange(3))
    assert [r.feature_n.tolist() for r in regions] == [[1], [2], [0]]
    assert [len(r.row_p) for r in regions] == [1, 4, 19] and regions[-1].background


def test_a_family_counts_once() -> None:
    """Two families before a ground: four alike features do not outdo two that differ."""
    z_pf = np.zeros((25, 7))
    z_pf[:, 0] = 1.0
    z_pf[6] = [0, 1, 1, 1, 1, 0, 0]
    z_pf[18] = [0, 0, 0, 0, 0, 1, 1]
    views: list[Any] = [[5, 5, [0, 0, 50, 50], 0]]
    own = find_regions(image_events(z_pf), views, np.ones(7), np.ones(7), np.arange(7))
    folded = find_regions(image_events(z_pf), views, np.ones(7), np.ones(7), np.array([0, 1, 1, 1, 1, 5, 6]))
    assert own[0].feature_n.tolist() == [1, 2, 3, 4] and folded[0].feature_n.tolist() == [5, 6]


def test_only_the_edge_of_the_image_is_its_border() -> None:
    """Of two tiles side by side the inner edges are none, and an overview has its own."""
    views: list[Any] = [[2, 2, [0, 0, 20, 20], 0], [2, 2, [20, 0, 40, 20], 0], [3, 3, [0, 0, 40, 20], 0]]
    where = patches(image_events(np.ones((17, 1))), views)
    assert np.flatnonzero(~on_border(where, views)).tolist() == [12]
    tall: list[Any] = [[2, 3, [0, 0, 30, 20], 0], [2, 3, [0, 20, 30, 40], 0]]
    where = patches(image_events(np.ones((12, 1))), tall)
    assert np.flatnonzero(~on_border(where, tall)).tolist() == [4, 7]
