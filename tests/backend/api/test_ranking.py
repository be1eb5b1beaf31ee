"""The ranking of a search is the method's."""

import math
from pathlib import Path

import numpy as np
import pytest

from precompute.live.feature_search import MOST_DENSE, maxima, rank
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def store(store_path: Path) -> Store:
    return Store.open(store_path)


def test_the_ranking_is_the_methods(store: Store) -> None:
    """METHOD, *Search*, feature by feature in plain Python."""
    row = next(r for r in range(80) if "dog" in store.samples.get(store.samples.sample_id(r))["text"])
    events = store.events.of(row)
    largest = maxima(events, store.n_features)
    table, n = store.features.table, store.n_samples
    for query in ((TEXT,), (IMAGE,), (TEXT, IMAGE)):
        ranked = rank(largest, store.features, query)
        expected = {}
        for k in range(store.n_features):
            products = []
            for m, side in enumerate(("text", "image")):
                if m not in query:
                    continue
                with_k = int(table[f"samples_{side}"][k])
                best = 0.0
                for t in np.flatnonzero(events.modality_t == m):
                    low, high = events.offset_t[t : t + 2]
                    for e in range(low, high):
                        if events.feature_e[e] == k:
                            best = max(best, events.z_e[e] / table["p999"][k])
                products.append(min(best, 1.0) * math.log(n / max(with_k, 16)) if with_k else 0.0)
            if min(products) > 0:
                expected[k] = min(products)
        assert dict(zip(ranked.feature.tolist(), ranked.score, strict=True)) == pytest.approx(expected)
        assert (np.diff(ranked.score) <= 0).all() and len(expected) > 2
        for k, dense in zip(ranked.feature, ranked.dense, strict=True):
            assert dense == (max(table["density_text"][k], table["density_image"][k]) > MOST_DENSE)
    assert synthetic.word_feature("dog") in rank(largest, store.features, (TEXT,)).feature[:6]


def test_what_exceeds_the_data_counts_as_one(store: Store) -> None:
    table, k = store.features.table, synthetic.word_feature("dog")
    scores = []
    for strength in (0.5, 1.0, 7.0):
        largest = np.zeros((store.n_features, 2))
        largest[k, TEXT] = strength * table["p999"][k]
        ranked = rank(largest, store.features, (TEXT,))
        assert ranked.feature.tolist() == [k] and ranked.strength[0, TEXT] == pytest.approx(strength)
        scores.append(ranked.score[0])
    assert scores == pytest.approx([scores[1] / 2, scores[1], scores[1]])
