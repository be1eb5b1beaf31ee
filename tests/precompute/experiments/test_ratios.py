"""Runs against the run on all data: values, intervals, pairing."""

from typing import Any

import numpy as np

from precompute.experiments.filtering.ratios import arms

KINDS = ("noun", "colour")


def runs(rng: np.random.Generator, rates: dict[tuple[str, float], float], n: int = 200) -> list[dict[str, Any]]:
    query = rng.integers(1, 5, n)
    result = []
    for seed in (0, 1, 2):
        for (score, keep), rate in rates.items():
            right = rng.binomial(query, rate)
            result.append(
                {
                    "score": score, "keep": keep, "seed": seed, "n_kept": 10, "n_swapped": 3,
                    "accuracy": right.sum() / query.sum(), "by_kind": dict.fromkeys(KINDS, rate),
                    "right": right.tolist(), "asked": query.tolist(),
                }
            )  # fmt: skip
    return result


def test_ratio_is_of_the_summed_words_and_its_interval_holds_it() -> None:
    report = runs(np.random.default_rng(0), {("full", 100.0): 0.5, ("cosine", 20.0): 0.7, ("random", 20.0): 0.5})
    result = arms(report)
    of_all, of_cosine = (sum(sum(r["right"]) for r in report if r["score"] == score) for score in ("full", "cosine"))
    ratio = result["cosine", 20.0].ratio
    assert ratio["value"] == of_cosine / of_all
    assert 1.2 < ratio["low"] < ratio["value"] < ratio["high"] < 1.6
    assert result["full", 100.0].ratio == {"value": 1.0, "low": 1.0, "high": 1.0}
    over = result["cosine", 20.0].over_random
    assert over is not None and over["low"] > 0.2
    assert result["random", 20.0].over_random is None
    assert result["cosine", 20.0].swapped_share == 0.3


def test_pairing_by_scene_narrows_the_interval() -> None:
    """An arm that errs exactly where the full run errs, a little more often, differs surely though both vary."""
    rng = np.random.default_rng(1)
    report = runs(rng, {("full", 100.0): 0.5})
    for run in list(report):
        fewer = np.maximum(np.array(run["right"]) - (rng.random(200) < 0.1), 0)
        report.append({**run, "score": "cosine", "keep": 50.0, "right": fewer.tolist()})
    ratio = arms(report)["cosine", 50.0].ratio
    assert ratio["high"] < 1.0
    assert ratio["high"] - ratio["low"] < 0.08


def test_an_arm_without_all_seeds_is_left_out() -> None:
    report = runs(np.random.default_rng(2), {("full", 100.0): 0.5, ("cosine", 20.0): 0.7})
    assert ("cosine", 20.0) not in arms(report[:-1])
