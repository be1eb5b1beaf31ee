"""The features behind a score, against the score computed again without each of them."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from precompute.errors import SaevxError
from precompute.scoring.scores import Weights, score_maxima
from precompute.scoring.why import EXPLAINED, SUMS, Active, explain, why
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, SCORES, TEXT
from precompute.utils.types import Array
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(synthetic.small_store(tmp_path_factory))


def dense(store: Store, row: int) -> tuple[Array, Array, Array, int]:
    """Largest z of every feature on text and on image, tokens on which it is active, and the number of tokens, read
    token by token."""
    events = store.events.of(row)
    z_2f, n_f, n_tokens = np.zeros((2, store.n_features)), np.zeros(store.n_features), 0
    for t, kind in enumerate(events.modality_t.tolist()):
        if kind not in (TEXT, IMAGE):
            continue
        n_tokens += 1
        for e in range(int(events.offset_t[t]), int(events.offset_t[t + 1])):
            k = int(events.feature_e[e])
            z_2f[kind, k] = max(z_2f[kind, k], events.z_e[e])
            n_f[k] += 1
    return z_2f[TEXT], z_2f[IMAGE], n_f, n_tokens


def naive(name: str, maxima: tuple[Array, Array, Array, int], weights: Weights, without: int | None = None) -> float:
    """The score from scratch, of all features but one."""
    text_f, image_f, n_f = (one.copy() for one in maxima[:3])
    if without is not None:
        text_f[without] = image_f[without] = n_f[without] = 0
    if name == "l0":
        return float(n_f.sum() / maxima[3])
    return float(score_maxima(csr_matrix(text_f[None]), csr_matrix(image_f[None]), weights)[name][0])


@pytest.mark.parametrize("name", EXPLAINED)
def test_parts_add_up_to_the_stored_score(store: Store, name: str) -> None:
    weights, stored = Weights.from_store(store), store.quality.score_values(name)
    for row in range(store.n_samples):
        part_k = explain(name, Active.from_events(store.events.of(row)), weights).part_k
        if not np.isnan(stored[row]):
            assert np.nan_to_num(part_k).sum() == pytest.approx(stored[row], rel=1e-9, abs=1e-12), row


@pytest.mark.parametrize("name", EXPLAINED)
def test_an_effect_is_the_score_less_that_without_the_feature(store: Store, name: str) -> None:
    weights = Weights.from_store(store)
    n_effects = 0
    for row in range(0, store.n_samples, 2):
        maxima, active = dense(store, row), Active.from_events(store.events.of(row))
        parts = explain(name, active, weights)
        whole = naive(name, maxima, weights)
        for k, effect in zip(active.feature_k.tolist(), parts.effect_k.tolist(), strict=True):
            expected = whole - naive(name, maxima, weights, without=k)
            assert effect == pytest.approx(expected, abs=1e-9, nan_ok=True), (row, k)
            n_effects += effect != 0
        if name in SUMS:
            assert np.array_equal(parts.part_k, parts.effect_k)
    assert n_effects > 5


def test_the_strongest_effects_come_first_on_either_side(store: Store) -> None:
    answer = why(store, 3, "pooled-cosine", 5)
    raising, lowering = ([one["effect"] for one in answer[side]] for side in ("raising", "lowering"))
    assert raising == sorted(raising, reverse=True) and min(raising) > 0
    assert lowering == sorted(lowering) and max(lowering) < 0
    everything = why(store, 3, "pooled-cosine", 500)
    assert raising == [one["effect"] for one in everything["raising"][:5]]
    assert answer["n_raising"] == len(everything["raising"]) and answer["n_lowering"] == len(everything["lowering"])
    assert answer["value"] == store.quality.score_values("pooled-cosine")[3] and not answer["is_sum"]


@pytest.mark.parametrize("name", ["random", "caption-nll", "goodness"])
def test_other_scores_are_refused_in_one_sentence(store: Store, name: str) -> None:
    with pytest.raises(SaevxError, match=f"{name!r} is (not made of features|no score): choose one of pooled-cosine, "):
        why(store, 0, name, 5)
    assert set(EXPLAINED) < set(SCORES)
