"""What the marks of flagged pairs say of a flag: its precision above a threshold, and a threshold that is precise."""

from collections.abc import Sequence
from typing import NamedTuple

from precompute.utils.stats import wilson

TARGET = 0.9
"""Precision that the suggested threshold has."""
FEWEST = 10
"""Marks below which no threshold is suggested."""


class Judged(NamedTuple):
    """A marked pair."""

    score: float
    right: bool


class Share(NamedTuple):
    """Of the marked pairs above a threshold those about which the flag is right, with Wilson's 95 % interval."""

    threshold: float
    n: int
    n_right: int
    value: float | None
    low: float | None
    high: float | None


def precision(marks: Sequence[Judged], threshold: float) -> Share:
    """The precision of a flag that takes scores above the threshold."""
    verdicts = [mark.right for mark in marks if mark.score > threshold]
    n, right = len(verdicts), sum(verdicts)
    if not n:
        return Share(threshold, 0, 0, None, None, None)
    return Share(threshold, n, right, right / n, *wilson(right, n))


def suggest(marks: Sequence[Judged]) -> Share | None:
    """The lowest threshold above which at least TARGET of the marked pairs are right: halfway between the lowest
    score that it takes and the next lower one that was marked; below all marks just below the lowest.

    None with fewer than FEWEST marks, or where no threshold is so precise."""
    if len(marks) < FEWEST:
        return None
    scores = sorted({mark.score for mark in marks}, reverse=True)
    suggestion = None
    for i, score in enumerate(scores):
        next_score = scores[i + 1] if i + 1 < len(scores) else None
        threshold = (score + next_score) / 2 if next_score is not None else score - abs(score) * 1e-6 - 1e-12
        share = precision(marks, threshold)
        if share.value is not None and share.value >= TARGET:
            suggestion = share
    return suggestion
