"""Counter-examples: where the caption has the name and the feature is off, and the reverse, against plain loops."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from precompute.errors import SaevxError
from precompute.store.reader import Store
from precompute.store.schema import MODALITIES
from precompute.utils.text import words_of
from precompute.utils.types import Item
from tests.helpers.synthetic import CONCEPTS, word_feature

FEATURES = [word_feature(word) + side for word in CONCEPTS for side in range(3)]


def largest(store: Store, row: int, feature: int, modality: int) -> float | None:
    """The largest z on the tokens of one modality; None where the sample has none."""
    tokens, z_t = store.events.feature(row, feature)
    own = z_t[tokens.modality_t == modality]
    return float(own.max()) if len(own) else None


def expected_off(store: Store, feature: Item, modality: int) -> list[str]:
    rows = []
    if feature[f"max_{MODALITIES[modality]}"] <= 0.1 * feature["p999"]:
        return []
    for sample in store.samples.list(limit=1000).items:
        z = largest(store, sample["row"], feature["id"], modality)
        if feature["label"] in words_of(sample["text"]) and z is not None and z <= 0.1 * feature["p999"]:
            rows.append((-sample["scores"]["caption-nll"], sample["row"], sample["sample_id"]))
    return [sample_id for _, _, sample_id in sorted(rows)]


def test_named_and_off_against_all_samples(made_up: Store) -> None:
    n = 0
    for k in FEATURES:
        feature = made_up.features.get(k)
        assert " " not in feature["label"]
        for modality in (0, 1):
            got = made_up.counterexamples.of(k, modality=MODALITIES[modality], limit=100)
            off = [one for one in got if one["counter"] == "off"]
            assert [one["sample_id"] for one in off] == expected_off(made_up, feature, modality)[:100]
            for one in off:
                assert one["activation"] <= 0.1 * feature["p999"]
                assert one["position"] is one["token"] is one["patch"] is None
            n += len(off)
    assert n > 20


def test_on_and_unnamed_against_the_examples(made_up: Store) -> None:
    n = 0
    for k in (*FEATURES, *range(FEATURES[-1] + 1, made_up.n_features)):
        feature = made_up.features.get(k)
        if not feature["label"]:
            continue
        words = set(words_of(feature["label"].partition("“")[2] or feature["label"]))
        for modality in MODALITIES:
            strong: dict[str, Any] = {}
            for one in made_up.examples.of(k, modality=modality, band=None, limit=200):
                if one["activation"] >= feature["p999"] / 2 and not words & set(words_of(one["text"])):
                    strong.setdefault(one["sample_id"], one)
            both = made_up.counterexamples.of(k, modality=modality, limit=100)
            got = [one for one in both if one["counter"] == "unnamed"]
            assert {one["sample_id"] for one in got} == (set(strong) if words else set())
            assert [one["activation"] for one in got] == sorted((one["activation"] for one in got), reverse=True)
            n += len(got)
    assert n > 20


def test_limit_is_for_each_kind_and_side_and_both_sides_are_the_default(made_up: Store) -> None:
    k = word_feature("dog")
    both = made_up.counterexamples.of(k, limit=2)
    sides = [made_up.counterexamples.of(k, modality=modality, limit=2) for modality in MODALITIES]
    assert sorted(map(str, both)) == sorted(map(str, [*sides[0], *sides[1]]))
    assert all(sum(one["counter"] == kind for one in side) <= 2 for side in sides for kind in ("off", "unnamed"))
    with pytest.raises(SaevxError, match="No feature"):
        made_up.counterexamples.of(made_up.n_features)


def test_a_feature_without_words_has_none_and_hostile_names_are_only_words(made_up: Store, tmp_path: Path) -> None:
    def off(store: Store, k: int) -> list[Item]:
        return [one for one in store.counterexamples.of(k, modality="image", limit=100) if one["counter"] == "off"]

    word = max(CONCEPTS, key=lambda one: len(off(made_up, word_feature(one))))
    k, store = word_feature(word), tmp_path / "store"
    before = off(made_up, k)
    shutil.copytree(made_up.path, store)
    for label, expected in ((None, 0), ("…", 0), (f'{word}" OR NOT ("', len(before)), (f"{word} (red)", len(before))):
        with sqlite3.connect(store / "store.sqlite") as conn:
            conn.execute("UPDATE features SET label = ? WHERE id = ?", (label, k))
        opened = Store.open_unchecked(store)
        assert len(off(opened, k)) == expected and before
        opened.close()
