"""Directions without their mean, the logit lens over it, and what an evaluation says of both."""

import numpy as np
import pytest
from scipy.stats import norm

from precompute.sae.directions import centre, direction_figures, largest_cosines, mean_pairwise_cosine, own_tokens
from precompute.sae.logit_lens import chance_limit, logit_lens

N, D, V = 40, 12, 600
RNG = np.random.default_rng(3)
COMMON = RNG.normal(size=D) * 3
DIRECTIONS = (RNG.normal(size=(N, D)) + COMMON).astype(np.float32)
ALIVE = RNG.random(N) < 0.7
UNEMBED = RNG.normal(size=(V, D)).astype(np.float32)
NORM = RNG.uniform(0.5, 2, D).astype(np.float32)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_the_mean_of_alive_directions_is_taken_off() -> None:
    directions = np.vstack([DIRECTIONS, np.zeros((1, D), np.float32)])  # the last has no direction
    result = centre(directions, np.r_[ALIVE, True])
    mean = unit(DIRECTIONS[ALIVE].astype(np.float64)).mean(0)
    np.testing.assert_allclose(result.mean_d, mean, atol=1e-6)
    np.testing.assert_allclose(result.unit_fd[:-1], unit(unit(DIRECTIONS) - mean), atol=1e-5)
    np.testing.assert_allclose(result.mean_cosine_f[:-1], unit(DIRECTIONS) @ unit(mean), atol=1e-5)
    again = result.length_f[:, None] * (result.mean_d + result.distance_f[:, None] * result.unit_fd)
    np.testing.assert_allclose(again[:-1], DIRECTIONS, atol=1e-4)
    assert not result.unit_fd[-1].any() and np.isnan(result.mean_cosine_f[-1]) and result.length_f[-1] == 0


@pytest.mark.parametrize("directions", [np.ones((5, 3)), np.ones((1, 3)), np.zeros((4, 3))])
def test_directions_with_nothing_of_their_own_are_zero(directions: np.ndarray) -> None:
    assert not centre(directions, np.ones(len(directions), bool)).unit_fd.any()


def test_without_a_feature_that_is_alive_nothing_is_taken_off() -> None:
    result = centre(DIRECTIONS, np.zeros(N, bool))
    np.testing.assert_allclose(result.unit_fd, unit(DIRECTIONS), atol=1e-6)
    assert np.isnan(result.mean_cosine_f).all()


def plain_logits() -> tuple[np.ndarray, np.ndarray]:
    """Raw and centred logits [N, V], formula by formula."""
    raw = unit(DIRECTIONS.astype(np.float64)) @ (UNEMBED * NORM).astype(np.float64).T
    raw -= raw.mean(1, keepdims=True)
    return raw, (raw - raw[ALIVE].mean(0)) / raw[ALIVE].std(0)


def test_logit_lens_against_plain_numpy() -> None:
    result = logit_lens(DIRECTIONS, ALIVE, NORM, UNEMBED, k=3)
    for kind, logit in zip(("raw_", ""), plain_logits(), strict=True):
        for k in range(N):
            ordered = np.sort(logit[k])
            np.testing.assert_allclose(result[f"{kind}promoted_logit"][k], ordered[::-1][:3], atol=1e-3)
            np.testing.assert_allclose(result[f"{kind}suppressed_logit"][k], ordered[:3], atol=1e-3)
            at = result[f"{kind}promoted"][k]
            np.testing.assert_allclose(logit[k, at], result[f"{kind}promoted_logit"][k], atol=1e-3)
    largest = np.abs(plain_logits()[1]).max(1)
    assert result["informative"].tolist() == (largest > chance_limit(V)).tolist()


def test_a_token_that_is_the_same_for_all_features_is_never_promoted() -> None:
    unembed = UNEMBED.copy()
    unembed[7:] = unembed[7:].mean(0)  # as rows of a vocabulary that no training has touched
    directions = DIRECTIONS.copy()
    directions[:, 0] = 0
    flat = np.zeros_like(unembed)
    flat[:, 0] = np.arange(V)  # differs only where no direction does
    assert (logit_lens(directions, ALIVE, None, flat)["promoted_logit"] == 0).all()


def test_the_limit_is_what_chance_exceeds_in_one_case_of_twenty() -> None:
    draws = np.abs(np.random.default_rng(0).normal(size=(4000, 500))).max(1)
    assert (draws > chance_limit(500)).mean() == pytest.approx(0.05, abs=0.012)
    assert chance_limit(1) == pytest.approx(norm.isf(0.025))


def test_figures_of_an_sae() -> None:
    """A shared direction is seen in the cosine, and not in the near-copies; a copy is."""
    alive = np.ones(N, bool)
    before = direction_figures(DIRECTIONS, alive, NORM, UNEMBED)
    pairs = unit(DIRECTIONS.astype(np.float64)) @ unit(DIRECTIONS.astype(np.float64)).T
    plain = pairs[np.triu_indices(N, 1)].mean()
    assert before["mean_pairwise_cosine"] == pytest.approx(plain) and plain > 0.5
    assert mean_pairwise_cosine(DIRECTIONS) == pytest.approx(plain)
    assert before["near_copies"] == 0 and before["own_tokens"] == 1
    copied = DIRECTIONS.copy()
    copied[:10] = copied[10:20] * 2
    assert direction_figures(copied, alive, NORM, UNEMBED)["near_copies"] == pytest.approx(20 / N)
    assert set(direction_figures(DIRECTIONS, np.arange(N) < 1, NORM, UNEMBED).values()) == {None}


def test_largest_cosine_of_another() -> None:
    vectors = unit(RNG.normal(size=(30, 5))).astype(np.float32)
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1)
    np.testing.assert_allclose(largest_cosines(vectors), cosine.max(1), atol=1e-6)


def test_tokens_of_its_own() -> None:
    common = np.tile(np.arange(4), (6, 1))
    own = 10 + np.arange(12).reshape(3, 4)
    half = np.c_[np.arange(2), [50, 51]].reshape(1, -1)  # half of them are common
    assert own_tokens(np.vstack([common, own, half])) == pytest.approx(3 / 10)
