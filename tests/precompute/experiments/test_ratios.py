"""Runs against the run on all data: values, intervals, pairing."""

from __future__ import annotations

from typing import Any

import numpy as np

from precompute.experiments.filtering.ratios import arms

KINDS = ("noun", "colour")


def runs(rng: np.random.Generator, rates: dict[tuple[str, float], float], n: int = 200) -> list[dict[str, Any]]:
    asked = rng.integers(1, 5, n)
    found = []
    for seed in (0, 1, 2):
        for (score, keep), rate in rates.items():
            right = rng.binomial(asked, rate)
            found.append(
                {
                    "score": score, "keep": keep, "seed": seed, "n_kept": 10, "n_swapped": 3,
                    "accuracy": right.sum() / asked.sum(), "by_kind": dict.fromkeys(KINDS, rate),
                    "right": right.tolist(), "asked": asked.tolist(),
                }
            )  # fmt: skip
    return found


def test_ratio_is_of_the_summed_words_and_its_interval_holds_it() -> None:
    told = runs(np.random.default_rng(0), {("full", 100.0): 0.5, ("cosine", 20.0): 0.7, ("random", 20.0): 0.5})
    found = arms(told)
    of_all, of_cosine = (sum(sum(r["right"]) for r in told if r["score"] == score) for score in ("full", "cosine"))
    ratio = found["cosine", 20.0].ratio
    assert ratio["value"] == of_cosine / of_all
    assert 1.2 < ratio["low"] < ratio["value"] < ratio["high"] < 1.6
    assert found["full", 100.0].ratio == {"value": 1.0, "low": 1.0, "high": 1.0}
    over = found["cosine", 20.0].over_random
    assert over is not None and over["low"] > 0.2
    assert found["random", 20.0].over_random is None
    assert found["cosine", 20.0].swapped_share == 0.3


def test_pairing_by_scene_narrows_the_interval() -> None:
    """An arm that errs exactly where the full run errs, a little more often, differs surely though both vary."""
    rng = np.random.default_rng(1)
    told = runs(rng, {("full", 100.0): 0.5})
    for run in list(told):
        fewer = np.maximum(np.array(run["right"]) - (rng.random(200) < 0.1), 0)
        told.append({**run, "score": "cosine", "keep": 50.0, "right": fewer.tolist()})
    ratio = arms(told)["cosine", 50.0].ratio
    assert ratio["high"] < 1.0
    assert ratio["high"] - ratio["low"] < 0.08


def test_an_arm_without_all_seeds_is_left_out() -> None:
    told = runs(np.random.default_rng(2), {("full", 100.0): 0.5, ("cosine", 20.0): 0.7})
    assert ("cosine", 20.0) not in arms(told[:-1])
