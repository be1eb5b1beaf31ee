"""The parts of docs/results.md on what is changed in the model: the effect of features, explanations, steering."""

from collections.abc import Mapping
from typing import Any

from precompute.demo.evaluation.evaluate_steering import METHODS
from precompute.demo.evaluation.markdown import interval, share, table

Found = Mapping[str, Any]


# ---- the effect of features

LINES = {
    "probability": "the word is among the ten most lowered, by probability (goal: ≥ .50)",
    "first": "it is the most lowered, by probability",
    "logprob": "the word is among the ten most lowered, by log-probability",
}


def effect_part(e: Found) -> str:
    """Shares of features whose ablation lowers the word of their name, beside a step along a random feature."""
    of_all = e["all"]
    sides = ("ablated", "control")
    rows = [(title, *(interval(of_all[name][side], 2) for side in sides)) for name, title in LINES.items()]
    for name, title in (("median_logprob", "median change of the word's log-probability"), ("median_kl", "median KL")):
        rows.append((f"{title}, nats", *(f"{of_all[name][side]:.2g}" for side in sides)))
    by_verdict = [
        (f"`{verdict}`", by_side["ablated"]["n"], by_side["ablated"]["hits"], by_side["control"]["hits"])
        for verdict, by_side in ((name, figure["probability"]) for name, figure in e["by_verdict"].items())
    ]
    return "\n\n".join((
        f"{of_all['probability']['ablated']['n']} features, drawn at random from the {e['n_noun_features']:,} whose "
        f"tested name is a thing of the scenes; up to {e['n_pairs']} pairs each.",
        table(("share of features (95 %)", "feature ablated", "random feature"), rows),
        f"The word falls more than with the random feature for {interval(of_all['falls_more'], 2)} of them.",
        table(("verdict", "features", "word among the ten, by probability", "random feature"), by_verdict),
    ))  # fmt: skip


# ---- explanations

PARTS = {"features": "all features", "error": "SAE error", "bias": "SAE bias", "rest": "special tokens"}
FIGURES = {"median_part": 2, "median_measured": 1, "rho": 2}
"""Figures of what is taken away at once, and with how many decimals each is written."""


def explain_part(e: Found) -> str:
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


# ---- steering


def steering_part(s: Found) -> str:
    """Harmonic means by method and kind of target, and what else the reply was worth."""
    groups, all_words = s["groups"], s["groups"]["colours and shapes"]
    methods = {method: name for method, name in METHODS.items() if method in all_words}  # older results lack some
    rows = [(name, *(interval(group[method], 2) for group in groups.values())) for method, name in methods.items()]
    parts = [
        (name, *(f"{all_words[method][part]:.2f}" for part in ("named", "answered", "fluent")))
        for method, name in methods.items()
    ]
    other_questions = "; ".join(f"{METHODS[method]}: {share(hits)}" for method, hits in s["other_question"].items())
    options = s["about"]["options"]
    return "\n\n".join(
        (
            f"{len(s['targets'])} targets, {options['n_scenes']} scenes each; strengths are chosen on "
            f"{options['n_tuning']} other scenes of each target.",
            table(("harmonic mean", *groups), rows),
            "Its parts, colours and shapes:",
            table(("", "target named", "question answered", "fluent"), parts),
            f"Another question on the same image is answered rightly meanwhile: {other_questions}.",
        )
    )
