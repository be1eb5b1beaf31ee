"""Sentences that pages draw from figures."""

import re
from typing import Literal

import pytest

from backend.drawing.figures import format_figure, format_number
from backend.drawing.parts import name_text
from backend.pages.explain.page import sentence_of_test
from backend.pages.feature.summary import difference
from backend.pages.sae import scorecard_lines, scorecard_sentence
from backend.pages.sample.view import pair_groups
from backend.schemas.common import ImageRef, Modal
from backend.schemas.explain import ExplanationTest
from backend.schemas.features import FeatureDetail, TopWord
from backend.schemas.sae import ScorecardFigure
from backend.schemas.samples import SampleDetail, SampleGroups


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
    test.words[0].random_changes = [0.0, 0.001]
    assert "0 in the random removals" in (says := sentence_of_test(test, " balloon") or "") and "0 to " not in says
    assert sentence_of_test(test, " dog") is None and sentence_of_test(test, " ") is None


@pytest.mark.parametrize(
    ("text", "image", "says"),
    [
        ("bee", "owl", "are most often in “bee”, and the captions of its strongest images most often have “owl”."),
        ("bee", None, "are most often in “bee”, and the captions of its strongest images have no common word."),
        (None, "a\n", "have no common word, and the captions of its strongest images most often have “a⏎”."),
    ],
)
def test_sides_that_differ_are_named(text: str | None, image: str | None, says: str) -> None:
    top = {side: word and {"word": word, "n": 12, "of": 16} for side, word in (("text", text), ("image", image))}
    feature = FeatureDetail.model_construct(words=Modal[TopWord | None].model_validate(top))
    assert difference(feature) == f"So the two sides differ: its tokens {says}"


def test_a_count_has_no_decimals() -> None:
    assert [format_figure(one) for one in (89.0, 3374.0, 0.9, 12.5, 1.0, None, float("nan"))] == [
        "89", "3,374", "0.900", "12.5", "1.000", "–", "–",
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


def line(value: float | None, random: float | None = None, **more: tuple[float, float]) -> ScorecardFigure:
    return ScorecardFigure(line="names", name="one", value=value, control_random_decoder=random, note="", **more)


def test_the_scorecard_draws_shares_beside_their_controls() -> None:
    figures = [line(0.5, 0.25, interval=(0.4, 1.05)), line(25.6, 0.3), line(0.2, 3.0), line(None)]
    [(title, rows)] = scorecard_lines(figures)
    assert title == "names" and [row.drawn is not None for row in rows] == [True, False, False, False]
    drawn = rows[0].drawn
    assert drawn == (100.0, 80.0, 200.0, 50.0, None), "an end above 1 is drawn at 1"


def test_the_scorecard_has_a_heading_for_each_line() -> None:
    other = ScorecardFigure(line="stability", name="nearest", value=0.8, note="")
    titles = [(title, len(rows)) for title, rows in scorecard_lines([line(0.1), line(0.2), other])]
    assert titles == [("names", 2), ("stability", 1)]


def test_the_scorecard_says_where_a_control_is_better() -> None:
    """Of figures in which lower is better too; within the interval neither is; L0 is no matter of better."""

    def figure(name: str, value: float, better: Literal["higher", "lower"] | None, **more: float) -> ScorecardFigure:
        interval = (value - 0.02, value + 0.02)
        return ScorecardFigure(line="one", name=name, better=better, value=value, interval=interval, note="", **more)

    lines = scorecard_lines(
        [
            figure("FVU, image", 0.1, "lower", control_random_decoder=0.57, control_untrained=0.017),
            figure("strongest patch in the box", 0.58, "higher", control_random_decoder=0.64, control_untrained=0.12),
            figure("FVU, text", 0.1, "lower", control_untrained=0.09),
            figure("all", 0.9, "higher"),
            figure("L0, text", 25, None, control_untrained=3),
        ]
    )
    assert scorecard_sentence(lines) == (
        "In 1 of 3 figures that have a control, this SAE is at least as good as the control. A control is better in: "
        "FVU, image (untrained model 0.017 against 0.100); strongest patch in the box (random decoder 0.640 against "
        "0.580)."
    )
    assert scorecard_sentence(scorecard_lines([figure("all", 0.9, "higher")])) == ""


@pytest.mark.parametrize(("score", "step"), [(1.0, 10), (0.996, 10), (0.796, 8), (0.794, 7), (0.9, 9), (0.6, 6)])
def test_the_dot_of_a_name_is_that_of_the_figure_beside_it(score: float, step: int) -> None:
    assert f'class="name-score s{step}"' in str(name_text({"label": "bus", "label_score": score}, None))


def test_a_text_without_an_image_has_one_list_of_features() -> None:
    groups = SampleGroups.model_construct(both=[], image_only=[], text_only=["one"])
    text = SampleDetail.model_construct(images=[], groups=groups)
    assert pair_groups(text) == [("text_only", "In the text", ["one"])]
    pair = SampleDetail.model_construct(images=[ImageRef.model_construct(url="")], groups=groups)
    assert [name for name, _, _ in pair_groups(pair)] == ["both", "image_only", "text_only"]
