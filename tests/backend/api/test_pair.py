"""A live pair gets the very scores, flags and ranks that the offline steps give the same events."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from precompute.live.search import MOST_DENSE, maxima, rank
from precompute.scoring.pair import flag_pair
from precompute.steps.score import Weights, score_pair
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from tests.helpers import synthetic

LIVE_SCORES = {
    "cosine", "cosine-weighted", "cosine-cooccurring", "cosine-mean", "pooled-cosine", "supported-share",
    "l0", "cooccurring-l0",
}  # fmt: skip


@pytest.fixture(scope="module")
def store(store_path: Path) -> Store:
    return Store.open(store_path)


def test_scores_and_flags_of_a_stored_pair_come_out_the_same(store: Store) -> None:
    weights = Weights.of_store(store)
    raised = 0
    some = {*range(0, store.n_samples, 10)}
    for flag in ("mismatch", "unsupported", "empty-text", "blank"):
        some |= {one["row"] for one in store.samples.list(flag=flag, limit=2).items}
    for row in sorted(some):
        item = store.samples.get(store.samples.sample_id(row))
        events = store.events.of(row)
        largest = maxima(events.modality_t, events.offset_t, events.feature_e, events.z_e, store.n_features)
        sides = [(k := np.flatnonzero(largest[:, m]), largest[k, m]) for m in (TEXT, IMAGE)]
        n_tokens = int((events.modality_t <= IMAGE).sum())
        scores = score_pair(*sides, weights, n_events=len(events.feature_e), n_tokens=n_tokens)
        for name in LIVE_SCORES:
            assert scores[name] == pytest.approx(item["scores"][name], rel=1e-6, abs=1e-9, nan_ok=True), name
        with Image.open(store.samples.image_path(item["sample_id"])) as picture:
            found, hits = flag_pair(store, events, largest, scores, weights, item["text"], picture)
        for name in ("mismatch", "unsupported", "empty-text", "repeated-text", "few-features"):
            stored_score = item["flag_scores"][name]
            if stored_score is None:
                assert found[name] is None, (row, name)
            else:
                assert found[name] == pytest.approx(stored_score, rel=1e-6, abs=1e-9), (row, name)
        for name in ("blank", "dark", "blurred"):  # the stored thumbnail is read once more through WebP
            assert found[name] == pytest.approx(item["flag_scores"][name], abs=0.1), (row, name)
        unknown = {"near-duplicate", "reconstruction"}
        stored = {f["name"] for f in item["flags"]} - unknown - {"blank", "dark", "blurred", "tiny"}
        assert stored <= {hit["name"] for hit in hits}
        assert all(hit["score"] > hit["threshold"] and hit["reason"]["text"] for hit in hits)
        raised += len(hits)
    assert raised > 3


def test_the_ranking_is_the_methods(store: Store) -> None:
    """METHOD, *Search*, feature by feature in plain Python."""
    row = next(r for r in range(80) if "dog" in store.samples.get(store.samples.sample_id(r))["text"])
    events = store.events.of(row)
    largest = maxima(events.modality_t, events.offset_t, events.feature_e, events.z_e, store.n_features)
    table, n = store.features.table, store.n_samples
    for asked in ((TEXT,), (IMAGE,), (TEXT, IMAGE)):
        ranked = rank(largest, table, n, asked)
        expected = {}
        for k in range(store.n_features):
            products = []
            for m, side in enumerate(("text", "image")):
                if m not in asked:
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
