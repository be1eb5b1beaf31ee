"""Families × families, the graph of a feature, and samples of a pair, against plain loops over the stored sets."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precompute.errors import SaevxError
from precompute.store import events as of_events
from precompute.store.reader import Store
from precompute.store.relations import pair_samples as of_pair
from precompute.store.relations.feature_pairs import SIDES
from precompute.store.relations.matrix import ego, follow, matrix, seriate
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path: Path = synthetic.small_store(tmp_path_factory)
    return Store.open(path)


def every_pair(store: Store, kind: str) -> list[dict[str, Any]]:
    items, cursor = [], None
    while True:
        page = store.cooccurrence.list(kind=kind, min_support=2, limit=100, cursor=cursor)
        items += page.items
        if (cursor := page.next) is None:
            return items


@pytest.mark.parametrize("kind", SIDES)
def test_the_matrix_has_the_strongest_families_and_their_pairs(store: Store, kind: str) -> None:
    found, listed, concept = matrix(store, kind, 6, min_support=2), every_pair(store, kind), store.features.concept
    strength: dict[tuple[str, int], float] = {}
    for one in listed:
        for side in ("a", "b"):
            key = (side if kind == "text-image" else "", int(concept[one[side]["id"]]))
            strength[key] = strength.get(key, 0.0) + np.log2(max(one["lift_low"], 1))
    for side, refs in (("a", found["rows"]), ("b", found["columns"])):
        all_here = {c: v for (s, c), v in strength.items() if s in ("", side)}
        chosen = {int(concept[one["id"]]) for one in refs}
        assert len(chosen) == len(refs) == min(6, len(all_here))
        least = min(all_here[c] for c in chosen)
        assert all(v <= least + 1e-9 for c, v in all_here.items() if c not in chosen)
    rows, columns = ([int(concept[one["id"]]) for one in found[name]] for name in ("rows", "columns"))
    if kind != "text-image":
        assert rows == columns
    expected = set()
    for one in listed:
        a, b = int(concept[one["a"]["id"]]), int(concept[one["b"]["id"]])
        if a in rows and b in columns:
            expected.add((a, b, one["support"], one["lift_low"]))
    got = {(rows[c["row"]], columns[c["column"]], c["support"], c["lift_low"]) for c in found["cells"]}
    assert got == expected and expected


def test_blocks_stand_together() -> None:
    rng = np.random.default_rng(0)
    block = np.repeat([0, 1, 2], 5)
    table = (block[:, None] == block[None]) * 3.0 + rng.random((15, 15)) * 0.2
    mixed = rng.permutation(15)
    order = mixed[seriate(table[np.ix_(mixed, mixed)])]
    assert sum(x != y for x, y in pairwise(block[order])) == 2
    columns = rng.permutation(15)
    after = columns[follow(table[order][:, columns])]
    assert block[after].tolist() == block[order].tolist()
    assert seriate(np.ones((2, 2))).tolist() == [0, 1]


def test_the_graph_has_the_partners_and_what_they_share(store: Store) -> None:
    feature = every_pair(store, "text-image")[0]["a"]["id"]
    graph = ego(store, feature, 4)
    assert graph["feature"]["id"] == feature and graph["partners"]
    concept = store.features.concept
    for side in ("text", "image"):
        here = [one for one in graph["partners"] if one["modality"] == side]
        assert len(here) <= 4 and len({int(concept[one["id"]]) for one in here}) == len(here)
        assert [one["lift_low"] for one in here] == sorted((one["lift_low"] for one in here), reverse=True)
    for one in [*graph["partners"], *graph["links"]]:
        stored = of_pair.stored_pair(store.cooccurrence.pairs[one["kind"]], one["a"], one["b"])
        assert stored and stored["support"] == one["support"] and stored["lift_low"] == one["lift_low"]
    ends = {(one["id"], one["modality"]) for one in graph["partners"]}
    for link in graph["links"]:
        assert {(link[x], m) for x, m in zip("ab", link["kind"].split("-"), strict=True)} <= ends


def test_the_graph_has_the_strongest_partners_of_every_feature(store: Store) -> None:
    """Of each side the best partner of each family or name, the strongest n of them, the strongest first."""
    concept = store.features.concept
    n_cut = 0
    for feature in range(store.n_features):
        partners = sorted(
            (one for group in store.cooccurrence.partners(feature, 2).values() for one in group),
            key=lambda one: -one["lift_low"],
        )
        graph = ego(store, feature, 2)
        for side in ("text", "image"):
            strongest: dict[int, int] = {}
            for one in partners:
                if one["modality"] == side:
                    strongest.setdefault(int(concept[one["id"]]), one["id"])
            in_graph = [one["id"] for one in graph["partners"] if one["modality"] == side]
            assert in_graph == [*strongest.values()][:2], (feature, side)
            n_cut += len(strongest) > 2
    assert n_cut


@pytest.mark.parametrize("kind", SIDES)
def test_samples_of_a_pair_against_a_loop(store: Store, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = every_pair(store, kind)[0]
    a, b, p999 = pair["a"]["id"], pair["b"]["id"], store.features.table["p999"]
    groups: dict[str, dict[str, float]] = {"both": {}, "only_a": {}, "only_b": {}}
    for row in range(store.n_samples):
        share = []
        for feature, modality in zip((a, b), SIDES[kind], strict=True):
            known = dict(zip(*(one.tolist() for one in store.events.maxima(row, modality)), strict=True))
            share.append(known.get(feature, 0.0) / p999[feature])
        on = [one >= 0.1 for one in share]
        name = store.samples.sample_id(row)
        if all(on):
            groups["both"][name] = min(share)
        elif on[0] and share[1] == 0:
            groups["only_a"][name] = share[0]
        elif on[1] and share[0] == 0:
            groups["only_b"][name] = share[1]
    samples = of_pair.pair_samples(store, kind, a, b, 500)
    assert samples["complete"] and samples["pair"]["support"] == pair["support"] and groups["both"]
    for name, expected in groups.items():
        got = [one["sample_id"] for one in samples[name]]
        assert set(got) == set(expected) and samples[f"n_{name}"] == len(got)
        assert [expected[one] for one in got] == sorted(expected.values(), reverse=True)
    monkeypatch.setattr(of_pair, "SCANNED", 0)
    monkeypatch.setattr(of_events, "SCANNED", 0)
    fewer = of_pair.pair_samples(store, kind, a, b, 500)
    assert not fewer["complete"] and fewer["both"]
    for name, expected in groups.items():
        assert {one["sample_id"] for one in fewer[name]} <= set(expected)


def test_pairs_that_do_not_exist(store: Store) -> None:
    with pytest.raises(SaevxError, match="Unknown kind"):
        of_pair.pair_samples(store, "image-text", 0, 1)
    with pytest.raises(SaevxError, match="features are 0 to"):
        of_pair.pair_samples(store, "text-image", 0, store.n_features)
