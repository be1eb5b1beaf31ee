"""The ranking of a search is the method's."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from precompute.live.search import MOST_DENSE, maxima, rank
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
    largest = maxima(events.modality_t, events.offset_t, events.feature_e, events.z_e, store.n_features)
    table, n = store.features.table, store.n_samples
    for query in ((TEXT,), (IMAGE,), (TEXT, IMAGE)):
        ranked = rank(largest, table, n, query)
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
                products.append(best * math.log(n / with_k) if with_k else 0.0)
            if min(products) > 0:
                expected[k] = min(products)
        assert dict(zip(ranked.feature.tolist(), ranked.score, strict=True)) == pytest.approx(expected)
        assert (np.diff(ranked.score) <= 0).all() and len(expected) > 2
        for k, dense in zip(ranked.feature, ranked.dense, strict=True):
            assert dense == (max(table["density_text"][k], table["density_image"][k]) > MOST_DENSE)
    assert synthetic.word_feature("dog") in rank(largest, table, n, (TEXT,)).feature[:6]
