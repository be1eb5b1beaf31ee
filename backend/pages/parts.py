"""What templates draw but Jinja should not compute: levels of activation, heat paths, bars of a histogram.

Everything is plain SVG geometry in attributes, so that pages are whole without JavaScript and under a policy
that allows no inline style. `frontend/static/js/heatmap.js` draws by the same rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from backend.pages.text import drawn_token, running_text
from backend.schemas import Example, FloatHistogram, Histogram, TokenActivation, View

LEVELS = 8
"""Steps of the colour scale, `--t1 … --t8` and `--p1 … --p8` in tokens.css."""
GridT = TypeVar("GridT", bound=View)
"""A view with `values`: of one feature, or of several."""


def level(value: float | None, top: float) -> int:
    """0 where inactive, else 1 … LEVELS as a share of `top`, the value of the last step."""
    if value is None or not value > 0 or not top > 0:
        return 0
    return min(LEVELS, max(1, math.ceil(value / top * LEVELS)))


def finest(grids: Sequence[GridT]) -> GridT | None:
    """Of one image's views with the values of one feature, the one with the smallest patches where it fires; where it
    fires nowhere, of those that have patches at all: a long thin image leaves some families a view without any."""
    filled = [grid for grid in grids if grid.rows and grid.cols]
    firing = [grid for grid in filled if any(value for row in first_values(grid) for value in row)]
    return min(firing or filled, key=lambda grid: (grid.box[2] - grid.box[0]) / grid.cols, default=None)


def first_values(grid: GridT) -> Sequence[Sequence[float | None]]:
    """Rows of a grid's values, of the first feature where it has several."""
    values: Any = grid.values  # type: ignore[attr-defined]
    return values[0] if values and values[0] and isinstance(values[0][0], list) else values


@dataclass(frozen=True, slots=True)
class Heat:
    """Activations over one picture: one path per level, in the picture's own pixels."""

    width: float
    height: float
    paths: list[tuple[int, str]]
    peak: str | None = None


def rect(x0: float, y0: float, width: float, height: float) -> str:
    return f"M{x0:.5g} {y0:.5g}h{width:.5g}v{height:.5g}h{-width:.5g}z"


def patch_path(view: View, row: int, col: int) -> str:
    """Outline of one patch of a view."""
    x0, y0, x1, y1 = view.box
    width, height = (x1 - x0) / view.cols, (y1 - y0) / view.rows
    return rect(x0 + col * width, y0 + row * height, width, height)


def heat(
    view: View,
    values: Sequence[Sequence[float | None]],
    *,
    top: float,
    size: tuple[float, float],
    peak: Sequence[float] | None = None,
) -> Heat:
    """Heat of one view over its picture of `size` (width, height); `peak` is the box of the patch to outline.

    One path per level keeps a picture at nine elements however many patches it has."""
    paths = [""] * (LEVELS + 1)
    for row, columns in enumerate(values):
        for col, value in enumerate(columns):
            if step := level(value, top):
                paths[step] += patch_path(view, row, col)
    outline = rect(peak[0], peak[1], peak[2] - peak[0], peak[3] - peak[1]) if peak else None
    return Heat(size[0], size[1], [(k, d) for k, d in enumerate(paths) if d], outline)


class Tok(NamedTuple):
    """Text as the macro `tokens` draws it: one active token, or all those between two of them."""

    spaced: bool
    """Whether it begins with a space, which then stands before it and not in `text`."""
    text: str
    position: int
    """Of its first token."""
    value: float | None
    level: int


def drawn_tokens(tokens: Sequence[TokenActivation], top: float) -> list[Tok]:
    """The tokens of a window as steps of `top`; inactive ones side by side are one, as nothing tells them apart."""
    drawn: list[Tok] = []
    for t in tokens:
        step = level(t.activation, top)
        if step:
            drawn.append(Tok(*drawn_token(t.text), t.position, t.activation, step))
        elif drawn and not drawn[-1].level:
            drawn[-1] = drawn[-1]._replace(text=drawn[-1].text + running_text(t.text))
        else:
            spaced = t.text[:1] == " "
            drawn.append(Tok(spaced, running_text(t.text[spaced:]), t.position, None, 0))
    return drawn


class Picture(NamedTuple):
    url: str
    heat: Heat | None


def example_picture(example: Example, top: float, query: str = "") -> Picture | None:
    """The picture of an example with its grid over it; None for text alone. `query` ends its address."""
    if not example.images:
        return None
    grid, patch = example.grid, example.patch
    shown = example.images[grid.image if grid else patch.image if patch else 0]
    box = patch.box if patch else None
    drawn = None
    if grid:
        drawn = heat(grid, grid.values, top=top, size=(shown.width, shown.height), peak=box)
    elif box:  # a store that keeps no activations still knows the place
        drawn = Heat(shown.width, shown.height, [], rect(box[0], box[1], box[2] - box[0], box[3] - box[1]))
    return Picture(shown.url + query, drawn)


class Bar(NamedTuple):
    height: float
    """0 … 100, of the tallest bar; never below 1 where anything was counted."""
    title: str
    over: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars between `low` and `high`; `mark` is a value's place in the units of the drawing (4 a bar)."""

    bars: list[Bar]
    low: float
    high: float
    mark: float | None = None


def chart(
    histogram: Histogram | FloatHistogram,
    *,
    mark: float | None = None,
    over: str = "above",
    log: bool = False,
    most: int = 64,
) -> Chart:
    """A histogram as bars. Empty ends are cut, neighbouring bins joined until at most `most` are left.

    `mark` splits it: bars on its `over` side ("above" or "below") get the second colour. With `log` the mark
    is placed on a logarithmic axis, as the activation histograms' edges are.
    """
    edges, counts = list(histogram.edges), list(histogram.counts)
    filled = [i for i, count in enumerate(counts) if count]
    if not filled:
        return Chart([], 0.0, 0.0)
    first, last = filled[0], filled[-1] + 1
    edges, counts = edges[first : last + 1], counts[first:last]
    step = math.ceil(len(counts) / most)
    starts = range(0, len(counts), step)
    joined = [sum(counts[i : i + step]) for i in starts]
    cuts = [edges[i] for i in starts] + [edges[-1]]
    tallest = max(joined)
    bars = []
    for i, count in enumerate(joined):
        middle = (cuts[i] + cuts[i + 1]) / 2
        split = mark is not None and (middle >= mark if over == "above" else middle < mark)
        title = f"{cuts[i]:.4g} to {cuts[i + 1]:.4g}: {count:,}"
        bars.append(Bar(max(1.0, 100 * count / tallest) if count else 0.0, title, split))
    place = None if mark is None else 4 * len(bars) * _share(mark, cuts[0], cuts[-1], log)
    return Chart(bars, cuts[0], cuts[-1], place)


def _share(value: float, low: float, high: float, log: bool) -> float:
    if log and value > 0 and low > 0:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return 0.0 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))


class Curve(NamedTuple):
    """One line of a drawing of WIDTH × HEIGHT units."""

    name: str
    cls: str
    path: str
    last: float | None


@dataclass(frozen=True, slots=True)
class Curves:
    """Lines over one axis; `low` and `high` are the values at the bottom and at the top."""

    lines: list[Curve]
    low: float
    high: float
    start: float
    end: float


WIDTH, HEIGHT = 400, 120


def curves(
    x: Sequence[float], series: Sequence[tuple[str, str, Sequence[float | None]]], *, log: bool = False, most: int = 300
) -> Curves:
    """Lines of (name, class, values at `x`), broken where a value is missing; at most `most` points each.

    The axis begins at 0; with `log` at the smallest value above 0, and values at or under 0 are missing."""
    keep = range(0, len(x), math.ceil(len(x) / most) or 1)
    at = sorted({*keep, len(x) - 1}) if x else []
    series = [
        (name, cls, [v if v is not None and (v > 0 or not log) else None for v in (values[i] for i in at)])
        for name, cls, values in series
    ]
    known = [v for _, _, values in series for v in values if v is not None]
    if not known:
        return Curves([], 0.0, 0.0, 0.0, 0.0)
    low, high, start, end = min(known) if log else 0.0, max(known), x[at[0]], x[at[-1]]
    lines = []
    for name, cls, values in series:
        path, pen = "", "M"
        for i, value in zip(at, values, strict=True):
            if value is None:
                pen = "M"
                continue
            path += f"{pen}{WIDTH * _share(x[i], start, end, False):.1f} "
            path += f"{HEIGHT * (1 - _share(value, low, high, log)):.1f}"
            pen = "L"
        if path:
            lines.append(Curve(name, cls, path, next((v for v in reversed(values) if v is not None), None)))
    return Curves(lines, low, high, start, end)


class Segment(NamedTuple):
    verdict: str
    n: int
    x: float
    width: float


def split(verdicts: dict[str, int]) -> list[Segment]:
    """One stacked bar, 1,000 units long, of the features by verdict."""
    whole = sum(verdicts.values()) or 1
    at, segments = 0.0, []
    for verdict, count in verdicts.items():
        width = 1000 * count / whole
        segments.append(Segment(verdict, count, round(at, 2), round(width, 2)))
        at += width
    return segments


class OmegaScale(NamedTuple):
    """Places on the interval drawing, 10 … 310 for ω from -1 to 1 (or 0 to 1 where nothing is below 0)."""

    zero: float
    omega: float
    base: float | None
    low: float | None
    high: float | None


def omega_scale(
    omega: float | None, baseline: float | None, low: float | None, high: float | None
) -> OmegaScale | None:
    """ω, its baseline, and the baseline shifted by the interval of the lift."""
    if omega is None:
        return None
    spans = [baseline + edge for edge in (low, high) if baseline is not None and edge is not None]
    least = min([omega, *spans, baseline if baseline is not None else 0.0])
    start = 0.0 if least >= 0 else -1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round(10 + 300 * (value - start) / (1 - start), 1)

    ends = [place(edge) for edge in spans] if len(spans) == 2 else [None, None]
    return OmegaScale(place(0.0) or 10.0, place(omega) or 10.0, place(baseline), ends[0], ends[1])
