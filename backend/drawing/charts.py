"""Histograms, curves over steps and the scale of ω as SVG geometry, so that pages are complete without JavaScript and
inline styles."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from backend.drawing.figures import format_significant
from backend.drawing.heat import LEVELS, level
from backend.schemas.common import FeatureDistribution, Histogram

WIDTH, HEIGHT = 400, 120


class Bar(NamedTuple):
    """A bar of a histogram."""

    height: float
    """In percent of the tallest bar; at least 1 if anything was counted."""
    title: str
    over: bool = False


@lru_cache(maxsize=256)  # the list of features has nine of them on each page
def bar_rects(bars: tuple[Bar, ...], cls: str, cls_over: str) -> Markup:
    """The bars as SVG, of the classes `cls` and `cls_over`. Titles are figures that `chart` and `range_filter` have
    written."""
    return Markup(
        "".join(
            f'<rect class="{cls_over if bar.over else cls}" x="{4 * at}" y="{_tenth(100 - bar.height)}" width="3.6" '
            f'height="{_tenth(bar.height)}"><title>{bar.title}</title></rect>'
            for at, bar in enumerate(bars)
            if bar.height
        )
    )


def _tenth(value: float) -> str:
    return "0" if value == 0 else f"{value:.1f}"


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars between `low` and `high`; `mark` is the place of a value in units of the drawing (4 per bar)."""

    bars: list[Bar]
    low: float
    high: float
    mark: float | None = None
    counts: tuple[int, ...] = ()
    """What each bar counts."""

    def place(self, value: float, *, log: bool = False) -> float:
        """Where a value stands on the axis, in the same units; the nearest end for one beyond it."""
        return round(4 * len(self.bars) * _share(value, self.low, self.high, log), 2)


def chart(
    histogram: Histogram,
    *,
    mark: float | None = None,
    log: bool = False,
    max_bars: int = 64,
) -> Chart:
    """A histogram as bars. Empty ends are cut, and neighbouring bins are joined until at most `max_bars` are left.

    `mark` splits it: bars above it get the second colour. With `log` the mark is placed on a logarithmic axis, as the
    activation histograms' edges are.
    """
    edges, counts = list(histogram.edges), list(histogram.counts)
    nonempty = [i for i, count in enumerate(counts) if count]
    if not nonempty:
        return Chart([], 0.0, 0.0)
    first, last = nonempty[0], nonempty[-1] + 1
    edges, counts = edges[first : last + 1], counts[first:last]
    step = math.ceil(len(counts) / max_bars)
    starts = range(0, len(counts), step)
    sums = [sum(counts[i : i + step]) for i in starts]
    cuts = [edges[i] for i in starts] + [edges[-1]]
    tallest = max(sums)
    bars = []
    for i, count in enumerate(sums):
        centre = (cuts[i] + cuts[i + 1]) / 2
        is_over = mark is not None and centre >= mark
        title = f"{format_significant(cuts[i], 4)} to {format_significant(cuts[i + 1], 4)}: {count:,}"
        bars.append(Bar(max(1.0, 100 * count / tallest) if count else 0.0, title, is_over))
    result = Chart(bars, cuts[0], cuts[-1], counts=tuple(sums))
    return result if mark is None else replace(result, mark=result.place(mark, log=log))


class RangeFilter(NamedTuple):
    """A figure's histogram beside the two fields that limit a list to a range of it."""

    name: str
    bars: tuple[Bar, ...]
    """`over`: inside the range."""
    low: float | None
    high: float | None
    edges: list[float]
    """Of the bars, as the fields show them."""


def range_filter(d: FeatureDistribution, low: float | None, high: float | None) -> RangeFilter:
    """The distribution as bars; those between `low` and `high` are inside."""
    bars, edges = range_bars(tuple(d.edges), tuple(d.counts), low, high)
    return RangeFilter(d.name, bars, low, high, edges)


@lru_cache(maxsize=64)  # all but one or two of a list's figures have no limits
def range_bars(
    edges: tuple[float, ...], counts: tuple[int, ...], low: float | None, high: float | None
) -> tuple[tuple[Bar, ...], list[float]]:
    """The bars of a `RangeFilter` and its edges."""
    tallest = max(counts, default=0)
    bars = []
    for first, last, count in zip(edges, edges[1:], counts, strict=False):
        is_inside = (low is None or last > low) and (high is None or first < high)
        height = max(2.0, 100 * math.sqrt(count / tallest)) if count else 0.0  # small bins stay visible
        title = f"{format_significant(first)} to {format_significant(last)}: {count:,}"
        bars.append(Bar(height, title, is_inside))
    return tuple(bars), [float(f"{edge:.3g}") for edge in edges]


def _share(value: float, low: float, high: float, log: bool) -> float:
    if log and value > 0 and low > 0:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return 0.0 if high <= low else min(1.0, max(0.0, (value - low) / (high - low)))


class Curve(NamedTuple):
    """One line of a chart of WIDTH × HEIGHT units."""

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


def curves(
    x: Sequence[float],
    series: Sequence[tuple[str, str, Sequence[float | None]]],
    *,
    log: bool = False,
    max_points: int = 300,
) -> Curves:
    """Lines of (name, class, values at `x`), broken where a value is missing; at most `max_points` points each.

    The axis begins at 0. With `log` it begins at the smallest positive value, and values up to 0 count as missing."""
    at_step = range(0, len(x), math.ceil(len(x) / max_points) or 1)
    at = sorted({*at_step, len(x) - 1}) if x else []
    series = [
        (name, cls, [v if v is not None and (v > 0 or not log) else None for v in (values[i] for i in at)])
        for name, cls, values in series
    ]
    numbers = [v for _, _, values in series for v in values if v is not None]
    if not numbers:
        return Curves([], 0.0, 0.0, 0.0, 0.0)
    low, high, start, end = min(numbers) if log else 0.0, max(numbers), x[at[0]], x[at[-1]]
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
    """A part of a stacked bar, with place and width in its units."""

    verdict: str
    n: int
    x: float
    width: float


def verdict_bar(verdicts: dict[str, int]) -> list[Segment]:
    """One stacked bar, 1,000 units long, of the features by verdict."""
    total = sum(verdicts.values()) or 1
    at, segments = 0.0, []
    for verdict, count in verdicts.items():
        width = 1000 * count / total
        segments.append(Segment(verdict, count, round(at, 2), round(width, 2)))
        at += width
    return segments


class OmegaScale(NamedTuple):
    """Places on the scale, 10 … 310 for ω from -1 to 1, or from 0 to 1 if no value is below 0."""

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
    lowest_value = min([omega, *spans, baseline if baseline is not None else 0.0])
    start = 0.0 if lowest_value >= 0 else -1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round(10 + 300 * (value - start) / (1 - start), 1)

    ends = [place(edge) for edge in spans] if len(spans) == 2 else [None, None]
    return OmegaScale(place(0.0) or 10.0, place(omega) or 10.0, place(baseline), ends[0], ends[1])


SMALL_MAP = 8
"""Most rows and columns of a small map of places."""


class SmallMap(NamedTuple):
    """A map of places as one path for each of the levels of the colour scale."""

    rows: int
    columns: int
    paths: list[tuple[int, str]]
    title: str


def place_map(places: Mapping[str, Any] | None) -> SmallMap | None:
    """Mean activation by place (schemas.PlaceMap), in even steps up to the largest; of a fine map, the means of
    neighbouring places together."""
    if places is None or not max(places["mean"], default=0):
        return None
    mean_rc = np.array(places["mean"]).reshape(places["rows"], places["columns"])
    row, col = np.unravel_index(mean_rc.argmax(), mean_rc.shape)
    for axis in (0, 1):
        starts = np.unique(np.arange(SMALL_MAP) * mean_rc.shape[axis] // SMALL_MAP)
        lengths = np.diff([*starts, mean_rc.shape[axis]]).reshape((-1, 1) if axis == 0 else (1, -1))
        mean_rc = np.add.reduceat(mean_rc, starts, axis) / lengths
    paths, top = [""] * (LEVELS + 1), float(mean_rc.max())
    for (y, x), mean in np.ndenumerate(mean_rc):
        paths[level(float(mean), top)] += f"M{x} {y}h1v1h-1z"
    title = f"Mean activation by place: strongest in row {row}, column {col} of {places['rows']} × {places['columns']}"
    return SmallMap(*mean_rc.shape, [(k, d) for k, d in enumerate(paths) if k and d], title)
