"""The part of docs/results.md on the attribution of answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from precompute.demo.evaluation.markdown import interval, table

PARTS = {"features": "all features", "error": "SAE error", "bias": "SAE bias", "rest": "special tokens"}

FIGURES = {"median_part": 2, "median_measured": 1, "rho": 2}
"""Of what is taken away at once, and the decimals."""


def explain_part(e: Mapping[str, Any]) -> str:
    """Completeness, rank correlations with ablation, and first features beside random ones."""
    options, first, linear = e["about"]["options"], e["first"], e["linear"]
    n = len(e["scenes"])
    sizes = [(title, f"{e['median_size'][name]:.2f}") for name, title in PARTS.items()]
    ablation = [
        (title, e["ablation"][name]["n"], interval(e["ablation"][name]["rho"], 2))
        for name, title in (("any", "drawn among all that fire"), ("strongest", "drawn among the 20 largest parts"))
    ]
    removal = [
        (title, *(f"{linear[name][figure]:.{digits}f}" for figure, digits in FIGURES.items()))
        for name, title in (("without_features", "all features"), ("without_h", "h (set to 0)"))
    ]
    n_compared, change = first["more_than_mean"]["n"], -first["median_change"]
    return "\n\n".join((
        f"{n} captions, the first thing that each names. {options['n_features']} features of either draw are ablated "
        f"one by one, and the first feature of {n_compared} words beside {options['n_random']} random ones.",
        f"The parts miss Σ h·gradient by at most {e['largest_gap']:.0e} of their absolute sum. Their median sizes:",
        table(("part", "nats"), sizes),
        table(("features ablated one by one", "pairs of answer and feature", "rank correlation of part and effect"),
              ablation),
        "Ablating the first feature lowers its word's log-probability more than the mean of the random features in "
        f"{interval(first['more_than_mean'], 2)} of the words, and more than each of them in "
        f"{interval(first['more_than_each'], 2)}; by {change:.2g} nats in the median, where random ones change it by "
        f"{abs(first['median_random']):.0e}. On {first['on_image']['hits']} of {n_compared} words most of the first "
        "feature's part lies on the image.",
        "All at once is beyond the first order:",
        table(("taken away from all tokens", "sum of the parts, median", "fall of the log-odds, median",
               "rank correlation"), removal),
    ))  # fmt: skip
