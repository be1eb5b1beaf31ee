"""Families: near-copies are found exactly, and joined by complete linkage as a naive loop joins them."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from precompute.errors import SaevxError
from precompute.steps import families
from precompute.steps.index import nearest
from precompute.store.making.family_rows import number_families
from precompute.store.making.unfinished import load_step
from precompute.store.reader import Store
from tests.helpers.synthetic import CONCEPTS, COPIED, word_feature
from tests.helpers.unfinished import Part

N = 12
EDGES = list(combinations(range(N), 2))


def naive_join(n: int, edges: list[tuple[int, int]]) -> list[int]:
    """The two groups whose least alike pair comes first are joined, as long as all their pairs are edges."""
    rank = {edge: i for i, edge in enumerate(edges)}
    groups = [[k] for k in range(n)]

    def linkage(one: list[int], two: list[int]) -> int:
        return max(rank.get((min(a, b), max(a, b)), len(edges)) for a in one for b in two)

    while len(groups) > 1:
        worst, i, j = min((linkage(groups[i], groups[j]), i, j) for i, j in combinations(range(len(groups)), 2))
        if worst == len(edges):
            break
        groups[i] += groups.pop(j)
    return [min(group) for k in range(n) for group in groups if k in group]


@given(st.permutations(EDGES), st.integers(0, len(EDGES)))
def test_join_is_complete_linkage(order: list[tuple[int, int]], n_edges: int) -> None:
    edges = order[:n_edges]
    a, b = np.array(edges, np.int64).reshape(-1, 2).T
    assert families.join(N, a, b).tolist() == naive_join(N, edges)


def test_too_many_together_lose_their_weaker_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "MAX_COMPONENT", 3)
    chain = np.array([[0, 1], [2, 3], [4, 5], [1, 2], [3, 4]])
    assert families.join(7, *chain.T).tolist() == [0, 0, 2, 2, 4, 4, 6]
    same = np.array(EDGES)  # all alike: it ends, and no pair is joined that is no edge
    assert len(set(families.join(N, *same.T).tolist())) < N


@pytest.mark.parametrize("most", [1024, 3])
def test_near_directions_are_all_found(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of features with more near-copies than nearest neighbours are stored."""
    monkeypatch.setattr(families, "MAX_COPIES", max(most, 30))
    rng = np.random.default_rng(0)
    middles = np.repeat(rng.normal(size=(5, 16)), [30, 6, 2, 1, 1], axis=0)
    vectors = middles + rng.normal(size=middles.shape) * 0.25
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[3] = 0  # a dead feature
    pairs = families.near_directions(vectors, *nearest(vectors, k=10))
    cosine = vectors @ vectors.T
    expected = {(i, j) for i, j in combinations(range(len(vectors)), 2) if cosine[i, j] >= families.COSINE}
    assert {*zip(pairs.a.tolist(), pairs.b.tolist(), strict=True)} == expected and len(expected) > 100
    np.testing.assert_allclose(pairs.likeness, cosine[pairs.a, pairs.b], atol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_near_samples_against_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.random((60, 3)) < [0.2, 0.5, 0.9]
    table = np.repeat(table, 4, axis=1) ^ (rng.random((60, 12)) < 0.08)
    sets = [set(np.flatnonzero(column)) for column in table.T]
    vectors = np.abs(rng.normal(size=(12, 2))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    expected = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        for i, j in combinations(range(12), 2)
        if min(len(sets[i]), len(sets[j])) >= families.MIN_SAMPLES
        and len(sets[i] & sets[j]) >= families.JACCARD * len(sets[i] | sets[j])
        and cosine[i, j] >= families.SAMPLES_COSINE
    }
    pairs = families.near_samples(csr_matrix(table.astype(np.int32)), vectors)
    assert dict(zip(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True), pairs.likeness, strict=True)) == expected


def test_strongest_first() -> None:
    """By how far beyond the limit, then by cosine, then by ids; each pair once."""
    vectors = np.eye(6, dtype=np.float32)
    vectors[5] = [0.6, 0.8, 0, 0, 0, 0]
    by_direction = families.NearPairs(np.array([2, 0]), np.array([3, 1]), np.array([0.95, 0.9]))
    by_text = families.NearPairs(np.array([0, 1, 0]), np.array([1, 5, 5]), np.array([0.85, 0.85, 0.7]))
    a, b = families.strongest_first(6, [by_direction, by_text], vectors)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == [(1, 5), (0, 1), (2, 3), (0, 5)]


def test_the_strongest_member_gives_the_number() -> None:
    group = np.array([0, 0, 2, 3, 3, 3, 6, 6])
    evidence = np.array([0.1, 0.5, 0.9, np.nan, np.nan, np.nan, np.nan, 0.0])
    largest = np.array([9, 1, 9, 1, 4, 4, 9, 1.0])
    result = number_families(group, evidence, largest)
    assert result.id_n.tolist() == [1, 4, 7] and result.size_n.tolist() == [2, 3, 2]
    np.testing.assert_array_equal(result.of_f, [1, 1, np.nan, 4, 4, 4, 7, 7])


def test_families_of_a_store(part: Part, made_up: Store) -> None:
    """Those that were planted, by direction or by samples, and no other."""
    group = load_step(part.path, "families")["family"]
    for word in CONCEPTS:
        assert (group[word_feature(word)] == group[word_feature(word) + 2]) == (word in COPIED)
    listed = made_up.families.list(limit=1000).items
    assert len(listed) == part.manifest["families"]["n"] == len(COPIED)
    for item in listed:
        family = made_up.families.get(item["id"])
        members = [one["id"] for one in family["members"]]
        assert len(members) == item["n_members"] and item["id"] == members[0]
        assert item["name"] == made_up.features.get(members[0])["label"] and len(set(group[members])) == 1
    assert {f["id"] for f in made_up.features.list(limit=1000).items if f["family"] is not None} == {
        member["id"] for item in listed for member in made_up.families.get(item["id"])["members"]
    }
    alone = next(f["id"] for f in made_up.features.list(limit=1000).items if f["family"] is None)
    with pytest.raises(SaevxError, match="There is no family"):
        made_up.families.get(alone)


@pytest.mark.parametrize("filters", [{}, {"q": "dog"}, {"max_density": 0.2}])
def test_folding_shows_the_strongest_that_matches(made_up: Store, filters: dict[str, object]) -> None:
    every = made_up.features.list(limit=1000, **filters).items
    strongest: dict[object, dict] = {}
    for one in sorted(every, key=lambda f: (f["evidence"] is None, -(f["evidence"] or 0), -f["max_activation"])):
        strongest.setdefault(one["family"] if one["family"] is not None else f"alone {one['id']}", one)
    folded, cursor = [], None
    while True:
        page = made_up.features.list(sort="lift", order="desc", fold="families", limit=7, cursor=cursor, **filters)
        assert page.total == len(strongest) < len(every)
        folded += page.items
        if (cursor := page.next) is None:
            break
    assert sorted(f["id"] for f in folded) == sorted(f["id"] for f in strongest.values())


def test_a_direction_comes_back_from_the_index(part: Part, made_up: Store) -> None:
    directions = part.options["directions"]()
    for feature in (0, 17, made_up.n_features - 1):
        raw, centred = made_up.directions.get(feature)
        np.testing.assert_allclose(raw, directions[feature], atol=2e-3)
        assert np.linalg.norm(centred) == pytest.approx(1, abs=1e-3)
    with pytest.raises(SaevxError, match="No feature"):
        made_up.directions.get(made_up.n_features)
