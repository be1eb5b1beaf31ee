"""The part of docs/results.md on the measured effect of features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from precompute.demo.evaluation.markdown import interval, table

LINES = {
    "probability": "the word is among the ten most lowered, by probability (goal: ≥ .50)",
    "first": "it is the most lowered, by probability",
    "logprob": "the word is among the ten most lowered, by log-probability",
}


def effect_part(e: Mapping[str, Any]) -> str:
    """Shares of features whose ablation lowers the word of their name, beside a step along a random feature."""
    of_all = e["all"]
    sides = ("ablated", "control")
    rows = [(title, *(interval(of_all[name][side], 2) for side in sides)) for name, title in LINES.items()]
    for name, title in (("median_logprob", "median change of the word's log-probability"), ("median_kl", "median KL")):
        rows.append((f"{title}, nats", *(f"{of_all[name][side]:.2g}" for side in sides)))
    by_verdict = [
        (f"`{verdict}`", by_side["ablated"]["n"], by_side["ablated"]["hits"], by_side["control"]["hits"])
        for verdict, by_side in ((name, figure["probability"]) for name, figure in e["by_verdict"].items())
    ]  # fmt: skip
    return "\n\n".join((
        f"{of_all['probability']['ablated']['n']} features, drawn at random from the {e['n_noun_features']:,} whose "
        f"tested name is a thing of the scenes; up to {e['n_pairs']} pairs each.",
        table(("share of features (95 %)", "feature ablated", "random feature"), rows),
        f"The word falls more than with the random feature for {interval(of_all['falls_more'], 2)} of them.",
        table(("verdict", "features", "word among the ten, by probability", "random feature"), by_verdict),
    ))  # fmt: skip
