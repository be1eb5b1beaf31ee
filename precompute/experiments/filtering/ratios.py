"""Runs of the filtering experiment held against those on all the data, with paired intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from precompute.utils.stats import interval
from precompute.utils.types import Array

RESAMPLES = 2000
SEED = 0
Key = tuple[str, float]
"""Score and percent kept."""


class Arm(NamedTuple):
    """One score at one percentage, over its seeds."""

    accuracy: float
    swapped_share: float
    """Of the pairs kept, those with a wrong caption."""
    ratio: dict[str, float]
    """Accuracy over that on all data, with its 95 % interval."""
    over_random: dict[str, float] | None
    """The same less the ratio of `random` at the same percentage."""
    by_kind: dict[str, float]


def arms(runs: Sequence[Mapping[str, Any]]) -> dict[Key, Arm]:
    """Every arm of the grid that has the same seeds as the runs on all data.

    A resample draws seeds and held-out scenes with replacement, the same for both sides of a ratio.
    """
    by_key: dict[Key, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        by_key.setdefault((run["score"], run["keep"]), {})[run["seed"]] = run
    full_arm = by_key[("full", 100.0)]
    seeds = sorted(full_arm)
    expected_n = np.array(full_arm[seeds[0]]["asked"], dtype=np.float64)
    right = {
        key: np.array([run_of[seed]["right"] for seed in seeds], dtype=np.float64)
        for key, run_of in by_key.items()
        if set(run_of) >= set(seeds)
    }
    rng = np.random.default_rng(SEED)
    draws = [
        (rng.integers(0, len(seeds), len(seeds)), rng.integers(0, len(expected_n), len(expected_n)))
        for _ in range(RESAMPLES)
    ]

    def accuracies(right_sn: Array) -> Array:
        """[1 + RESAMPLES]: of the whole, then of each resample."""
        result = [right_sn.sum() / (expected_n.sum() * len(seeds))]
        for s, n in draws:
            result.append(right_sn[np.ix_(s, n)].sum() / (expected_n[n].sum() * len(seeds)))
        return np.array(result)

    of_all = accuracies(right["full", 100.0])
    ratio = {key: accuracies(right_sn) / of_all for key, right_sn in right.items()}
    result = {}
    for key in right:
        runs_of_arm = [by_key[key][seed] for seed in seeds]
        chance = ratio.get(("random", key[1]))
        result[key] = Arm(
            accuracy=float(np.mean([run["accuracy"] for run in runs_of_arm])),
            swapped_share=sum(run["n_swapped"] for run in runs_of_arm) / sum(run["n_kept"] for run in runs_of_arm),
            ratio=with_interval(ratio[key]),
            over_random=None if chance is None or key[0] == "random" else with_interval(ratio[key] - chance),
            by_kind={
                kind: float(np.mean([run["by_kind"][kind] for run in runs_of_arm]))
                for kind in runs_of_arm[0]["by_kind"]
            },
        )
    return result


def with_interval(values: Array) -> dict[str, float]:
    """The first of float64 [1 + RESAMPLES] values, with the 95 % interval of the others."""
    result = interval(values[0], values[1:])
    assert result is not None
    return result
