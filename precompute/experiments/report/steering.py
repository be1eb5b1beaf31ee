"""The part of docs/results.md on steering."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from precompute.demo.evaluation.evaluate_steering import METHODS
from precompute.demo.evaluation.markdown import interval, share, table

Found = Mapping[str, Any]


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
