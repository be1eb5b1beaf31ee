"""The page of the SAE: its figures on this data, its evaluation and its training."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from backend.api import sae as sae_api
from backend.api.controls import get_hallucination
from backend.drawing.charts import Bar, Curves, curves, range_bars, verdict_bar
from backend.drawing.figures import format_figure, format_percent, with_minus, with_noun
from backend.pages.hallucination import hallucination_panel
from backend.pages.visit import PageDep
from backend.schemas.sae import DensityGrid, SaeTraining, ScorecardFigure, Spread
from precompute.store.schema import PLACE_SIDE

ABOUT_ONE = 1.2
"""Shares may be above 1, as a loss better than the original's; they are drawn at 1."""

router = APIRouter(default_response_class=HTMLResponse)


@router.get("/sae")
def sae(visit: PageDep) -> HTMLResponse:
    report = sae_api.get_sae(visit.state, visit.store)
    scorecard = scorecard_lines(report.evaluation.card) if report.evaluation else []
    return visit.render(
        "sae.html",
        section="/sae",
        sae=report,
        figures=[
            ("FVU", "Fraction of variance unexplained, of the residual stream by its reconstruction ĥ", report.fvu, 3),
            ("L0", "Mean number of active features per token", report.l0, 1),
            ("dead", "Features that no such token activates", report.dead, 0),
        ],
        parts=[("all", ""), ("text only", "_text"), ("image only", "_image")],
        halluc=hallucination_panel(get_hallucination(visit.store)),
        scorecard=scorecard,
        scorecard_sentence=scorecard_sentence(scorecard),
        charts=training_charts(report.training) if report.training else [],
        split=verdict_bar(report.verdicts),
        density=density_map(report.density),
        text_density=text_density(report.density),
        spreads=[
            ("FVU of samples", "lower is better", "samples", report.fvu_samples.n, group_bars(report.fvu_samples, 3)),
            ("Active features of tokens (L0)", "", "samples", report.l0_tokens.n, group_bars(report.l0_tokens, 0)),
        ],
        places=[
            (title, noun, digits, figure.n, place_cells(figure.mean or []))
            for title, noun, digits, figure in (
                ("L0", " active features of a patch", 1, report.l0_places),
                ("FVU", "", 3, report.fvu_places),
            )
        ],
        side=PLACE_SIDE,
    )


class DrawnFigure(NamedTuple):
    """A figure of the scorecard between 0 and 1, and those of its controls, on an axis of 200 units."""

    value: float
    low: float
    high: float
    """Of the interval; both are the value where there is none."""
    random: float | None
    untrained: float | None


class ScorecardRow(NamedTuple):
    """A figure of the scorecard as a row."""

    figure: ScorecardFigure
    drawn: DrawnFigure | None
    beaten_by: list[str]
    """The controls that are better than the interval."""


def scorecard_lines(figures: list[ScorecardFigure]) -> list[tuple[str, list[ScorecardRow]]]:
    """The figures of each line."""
    return [(line, [scorecard_row(c) for c in rows]) for line, rows in groupby(figures, lambda figure: figure.line)]


def scorecard_row(figure: ScorecardFigure) -> ScorecardRow:
    """With its drawing where it is a share and so are its controls."""
    if figure.value is None or figure.better is None:
        return ScorecardRow(figure, drawn_figure(figure), [])
    low, high = figure.interval or (figure.value, figure.value)
    beaten_by = [
        name
        for name, value in controls_of(figure).items()
        if value is not None and (value < low if figure.better == "lower" else value > high)
    ]
    return ScorecardRow(figure, drawn_figure(figure), beaten_by)


def controls_of(figure: ScorecardFigure) -> dict[str, float | None]:
    return {"random decoder": figure.control_random_decoder, "untrained model": figure.control_untrained}


def has_contest(figure: ScorecardFigure) -> bool:
    """Whether the figure can be better or worse than one of its controls."""
    has_control = any(value is not None for value in controls_of(figure).values())
    return figure.value is not None and figure.better is not None and has_control


def scorecard_sentence(lines: list[tuple[str, list[ScorecardRow]]]) -> str:
    """In how many figures the SAE is at least as good as its controls, and in which it is not; "" without controls."""
    rows = [f for _, rows in lines for f in rows if has_contest(f.figure)]
    if not rows:
        return ""
    worse_figures = []
    for figure, beaten_by in ((f.figure, f.beaten_by) for f in rows if f.beaten_by):
        values = controls_of(figure)
        better_controls = ", ".join(f"{name} {format_figure(values[name])}" for name in beaten_by)
        worse_figures.append(f"{figure.name} ({better_controls} against {format_figure(figure.value)})")
    n_good = len(rows) - len(worse_figures)
    sentence = f"In {n_good} of {len(rows)} figures that have a control, this SAE is at least as good as the control."
    return sentence + (f" A control is better in: {'; '.join(worse_figures)}." if worse_figures else "")


def drawn_figure(figure: ScorecardFigure) -> DrawnFigure | None:
    """None for counts and for what is below 0: on one axis with shares they would say nothing."""
    value, of_random, of_untrained = figure.value, figure.control_random_decoder, figure.control_untrained
    if value is None or any(v is not None and not 0 <= v <= ABOUT_ONE for v in (value, of_random, of_untrained)):
        return None
    low, high = figure.interval or (value, value)
    at = [None if v is None else round(200 * min(1, max(0, v)), 1) for v in (value, low, high, of_random, of_untrained)]
    return DrawnFigure(*at)  # type: ignore[arg-type]


def training_charts(training: SaeTraining) -> list[tuple[str, str, Curves]]:
    """Title, subtitle and lines over the steps, one tuple per chart."""
    steps = [float(row.step) for row in training.log]
    sides = [("text", "t"), ("image", "p"), ("both", "b")]
    losses = [("loss", "b", [row.loss for row in training.log])]
    charts = [("Loss", "per batch, log scale", curves(steps, losses, log=True))]
    for title, help, name in (
        ("FVU", "fraction of variance unexplained", "fvu"),
        ("L0", "active features per token", "l0"),
        ("Dead features", "not active on such tokens in the last steps", "dead"),
    ):
        lines = [(side, cls, [getattr(getattr(row, name), side) for row in training.log]) for side, cls in sides]
        charts.append((title, help, curves(steps, lines)))
    return charts


class MapCell(NamedTuple):
    """Features of about one density on text and on images, in units of a cell."""

    x: float
    y: float
    level: int
    """1–8, by the logarithm of their number."""
    title: str


class DensityMap(NamedTuple):
    """Cells from the left and from the top; the first column and the last row hold features that never fire there."""

    cells: list[MapCell]
    ticks: list[tuple[float, str]]
    """Place on the axis, in cells, and density."""
    side: float
    most: int
    """Features of the fullest cell."""


GAP = 1.5
"""Of the axes: where the cells of features that fire begin."""


def density_map(grid: DensityGrid) -> DensityMap:
    """The features by density, on axes that begin at the first full decade that any of them needs."""
    bins = [(i, j, n) for i, row in enumerate(grid.counts) for j, n in enumerate(row) if n]
    per_decade = sum(1 for edge in grid.edges if 0.099 < edge < 0.99)
    min_bin = min((k for i, j, _ in bins for k in (i, j) if k), default=1)
    first = (min_bin - 1) // per_decade * per_decade + 1
    side = GAP + len(grid.edges) - first
    max_count = max((n for _, _, n in bins), default=1)

    def place(cell: int) -> float:
        return GAP + cell - first if cell else 0.0

    def words(cell: int) -> str:
        low_high = f"{grid.edges[cell - 1]:.1e} to {grid.edges[cell]:.1e}" if cell else "never"
        return with_minus(low_high)

    cells = [
        MapCell(
            place(i),
            side - 1 - place(j),
            1 + round(7 * math.log(n) / math.log(max_count)) if max_count > 1 else 8,
            f"{with_noun(n, 'feature')}; text: {words(i)}; images: {words(j)}",
        )
        for i, j, n in bins
    ]
    decades = range(first - 1 + per_decade, len(grid.edges), per_decade)  # the first would stand in the way of "never"
    ticks = [(0.5, "never"), *((GAP + k + 1 - first, f"{100 * grid.edges[k]:.4g} %") for k in decades)]
    return DensityMap(cells, ticks, side, max_count)


def text_density(grid: DensityGrid) -> tuple[Sequence[Bar], str, str, int]:
    """The features by density on text alone: bars, both ends of the axis, and how many are active on no text."""
    counts = [sum(row) for row in grid.counts]
    first = next((k for k, n in enumerate(counts) if k and n), 1)
    bars, _ = range_bars(tuple(grid.edges[first - 1 :]), tuple(counts[first:]), None, None)
    return bars, format_percent(grid.edges[first - 1], 3), format_percent(grid.edges[-1], 0), counts[0]


class GroupedBar(NamedTuple):
    """A bar of a histogram of both modalities, in units of the drawing (4 per bin, 100 high)."""

    cls: str
    x: float
    height: float
    title: str


class Grouped(NamedTuple):
    """Two histograms with the same edges, each in shares of its own total."""

    bars: list[GroupedBar]
    n: int
    """Bins."""
    low: str
    high: str


def group_bars(spread: Spread, digits: int) -> Grouped:
    """The shares of text and image in each bin, side by side."""
    sides = [(name, cls, side) for name, cls, side in (("text", "t", spread.text), ("image", "p", spread.image))]
    shares = {name: [n / (sum(side.counts) or 1) for n in side.counts] for name, _, side in sides}
    top = max((share for side_shares in shares.values() for share in side_shares), default=0) or 1
    edges = spread.text.edges
    bars = [
        GroupedBar(
            cls, 4 * i + (0 if cls == "t" else 1.9), 100 * share / top,
            f"{name}, {edges[i]:.{digits}f} to {edges[i + 1]:.{digits}f}: {100 * share:.1f} % ({side.counts[i]:,})",
        )
        for name, cls, side in sides for i, share in enumerate(shares[name]) if share
    ]  # fmt: skip
    ends = [f"{edge:.{digits}f}" for edge in (edges[0], edges[-1])] if edges else ["", ""]
    return Grouped(bars, max(1, len(edges) - 1), *ends)


class PlaceCell(NamedTuple):
    x: int
    y: int
    share: float
    """Between the smallest mean and the largest, 0.1–1."""
    mean: float


def place_cells(mean: list[list[float | None]]) -> list[PlaceCell]:
    """The places that the data has."""
    values = [value for row in mean for value in row if value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    return [
        PlaceCell(x, y, round(0.1 + 0.9 * (value - low) / ((high - low) or 1), 3), value)
        for y, row in enumerate(mean)
        for x, value in enumerate(row)
        if value is not None
    ]
