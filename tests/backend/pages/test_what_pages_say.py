"""Sentences that pages draw from figures."""

from __future__ import annotations

import pytest

from backend.pages.explain.page import sentence_of_test
from backend.schemas.explain import ExplanationTest
from backend.templating import format_figure


@pytest.mark.parametrize(
    ("verdict", "change", "says"),
    [
        ("kept", -0.01, "did not matter to it"),
        ("removed", -5.2, "removed: its log-probability changes by −5.20 nats, below the −0.10 to +0.20"),
        ("changed", 0.9, "no lower than the −0.10 to +0.20 in the random removals"),
    ],
)
def test_the_page_says_what_became_of_the_explained_word(verdict: str, change: float, says: str) -> None:
    word = {"text": " balloon,", "logprob": -0.01, "change": change, "verdict": verdict, "random_changes": [-0.1, 0.2]}
    test = ExplanationTest.model_validate(
        {"before": "a balloon", "answer": "", "words": [word], "random": [], "removed_below": -2.3, "changed_from": 0.7}
    )
    assert says in (sentence_of_test(test, " balloon") or "")
    assert sentence_of_test(test, " dog") is None and sentence_of_test(test, " ") is None


def test_a_count_has_no_decimals() -> None:
    assert [format_figure(one) for one in (89.0, 3374.0, 0.9, 12.5, 1.0, None, float("nan"))] == [
        "89", "3,374", "0.900", "12.500", "1.000", "–", "–",
    ]  # fmt: skip
