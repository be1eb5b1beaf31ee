"""Sentences that pages draw from figures."""

from __future__ import annotations

import re

import pytest

from backend.drawing.figures import format_figure, format_number
from backend.drawing.parts import name_text
from backend.pages.explain.page import sentence_of_test
from backend.pages.sae import card_lines
from backend.schemas.explain import ExplanationTest
from backend.schemas.sae import CardLine


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


def test_a_negative_number_has_a_minus_sign() -> None:
    assert [format_number(one, 2) for one in (-0.416, 1.5, 0.0, -0.0)] == ["−0.42", "1.50", "0", "0"]


@pytest.mark.parametrize(
    ("score", "says"),
    [(0.6, "bus"), (0.59, "on “a” 90 %perhaps bus"), (0.55, "on “a” 90 %perhaps bus"), (0.54, "on “a” 90 %")],
)
def test_a_name_that_failed_is_a_guess_and_one_at_chance_is_not_shown(score: float, says: str) -> None:
    feature = {"id": 7, "label": "bus", "label_score": score, "description": "on “a” 90 %"}
    text = re.sub(r"<[^>]*>\s*", "", name_text(feature, None))
    assert " ".join(text.split()) == says


def line(value: float | None, random: float | None = None, **more: tuple[float, float]) -> CardLine:
    return CardLine(line="names", name="one", value=value, control_random_decoder=random, note="", **more)


def test_the_card_draws_shares_beside_their_controls() -> None:
    [(title, rows)] = card_lines([line(0.5, 0.25, interval=(0.4, 1.05)), line(25.6, 0.3), line(0.2, 3.0), line(None)])
    assert title == "names" and [drawn is not None for _, drawn in rows] == [True, False, False, False]
    drawn = rows[0][1]
    assert drawn == (100.0, 80.0, 200.0, 50.0, None), "an end above 1 is drawn at 1"


def test_the_card_has_a_heading_for_each_line() -> None:
    other = CardLine(line="stability", name="nearest", value=0.8, note="")
    titles = [(title, len(rows)) for title, rows in card_lines([line(0.1), line(0.2), other])]
    assert titles == [("names", 2), ("stability", 1)]
