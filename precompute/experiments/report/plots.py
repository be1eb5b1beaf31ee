"""The plots of docs/results.md: points with their intervals, as SVG whose bytes follow from the figures alone."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

STYLE = {
    "svg.hashsalt": "saevx", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#bf3989", "#0a7ea4")
Interval = Mapping[str, float]


def interval_plot(
    groups: Mapping[str, Mapping[str, Interval]],
    *,
    label: str,
    line: tuple[float, str] | None = None,
    marks: Mapping[str, float] | None = None,
) -> bytes:
    """SVG of values with their intervals: a row for each group, a colour for each series in it.

    Args:
        groups: row → series → value with its interval.
        label: of the horizontal axis.
        line: a vertical line, and what it stands for.
        marks: row → a figure of the authors', drawn as a cross.
    """
    series = list(dict.fromkeys(name for by_name in groups.values() for name in by_name))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 0.7 + 0.13 * sum(len(by_name) + 1 for by_name in groups.values())))
        ticks, at = [], 0.0
        for row, by_name in groups.items():
            begin = at
            for name, figures in by_name.items():
                low, high = figures["value"] - figures["low"], figures["high"] - figures["value"]
                colour = COLOURS[series.index(name) % len(COLOURS)]
                style = {"fmt": "o", "ms": 4, "capsize": 2, "lw": 1.2, "color": colour}
                axes.errorbar(figures["value"], at, xerr=[[max(low, 0)], [max(high, 0)]], **style)
                at += 1
            if marks and row in marks:
                axes.plot(marks[row], (begin + at - 1) / 2, "x", color="#24292f", ms=7)
            ticks.append((begin + at - 1) / 2)
            at += 1
        if line is not None:
            axes.axvline(line[0], color="#8c959f", lw=0.8, ls="--", label=line[1])
        for name in series:
            axes.plot([], [], "o", ms=4, color=COLOURS[series.index(name) % len(COLOURS)], label=name)
        if marks:
            axes.plot([], [], "x", color="#24292f", ms=7, label="authors")
        axes.set_yticks(ticks, list(groups))
        axes.invert_yaxis()
        axes.set_xlabel(label)
        axes.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
        return as_svg(figure)


def histogram_plot(edges: Sequence[float], counts: Mapping[str, Sequence[int]], *, label: str) -> bytes:
    """SVG of the outlines of several histograms over the same edges."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7, 2.6))
        for colour, (name, bins) in zip(COLOURS, counts.items(), strict=False):
            axes.stairs(bins, edges, color=colour, label=name, lw=1.4)
        axes.set_xlabel(label)
        axes.set_ylabel("features")
        axes.legend(frameon=False, bbox_to_anchor=(1.01, 1), loc="upper left")
        return as_svg(figure)


def as_svg(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return file.getvalue()
