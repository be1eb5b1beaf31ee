"""The panel of the page SAE on hallucinated answers: which features tell them, and what steering these does."""

from typing import NamedTuple

from backend.drawing.figures import format_signed
from backend.schemas.hallucination import HallucinationFigures, HallucinationReport
from backend.schemas.sae import Estimate

FIGURES = {
    "hallucinated": ("Hallucinated", "absent objects to which the model says yes"),
    "missed": ("Missed", "present objects to which it says no"),
    "accuracy": ("Right", "right answers among all"),
    "chair": ("Captions", "objects in captions that are not there"),
}
"""name → title, meaning."""


class Panel(NamedTuple):
    """What the template draws."""

    report: HallucinationReport
    figures: dict[str, tuple[str, str]]
    rows: list[tuple[str, list[Estimate | None]]]
    """Way to steer, and its `FIGURES`."""
    sentence: str


def hallucination_panel(report: HallucinationReport) -> Panel:
    """The figures of a store in words and in rows."""
    h = report.hallucination
    rows = [] if h is None else [(way, [figures.get(name) for name in FIGURES]) for way, figures in h.ways.items()]
    return Panel(report, FIGURES, rows, "" if h is None else effect_sentence(h))


def effect_sentence(h: HallucinationFigures) -> str:
    """Whether steering towards the features beats random ones. Fewer hallucinated answers alone do not: a model that
    always says no has none."""
    hallucinations, accuracy = h.against_random.get("hallucinated"), h.against_random.get("accuracy")
    if hallucinations is None or accuracy is None:
        return "There were no hallucinated answers to compare."
    changes = (
        "Beside random features with a change as long, steering towards these changes the share of hallucinated "
        f"answers by {points(hallucinations)} and that of right answers by {points(accuracy)}"
    )
    if accuracy.low > 0:
        verdict = "it beats random features"
    elif accuracy.high < 0:
        verdict = "it does worse than random features"
    elif hallucinations.high < 0:
        verdict = "fewer answers are hallucinated than with random features, but no more are right"
    else:
        verdict = "no clear difference from random features"
    return f"{changes}: {verdict}."


def points(change: Estimate) -> str:
    """A change of a share, with its interval, in percentage points."""
    value, low, high = (format_signed(100 * v, 1) for v in (change.value, change.low, change.high))
    return f"{value} pp ({low} to {high})"
