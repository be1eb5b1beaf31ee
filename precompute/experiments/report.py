"""Renders docs/results.md and its plots from the committed result files.

    python -m precompute.experiments.report          # rewrite
    python -m precompute.experiments.report --check  # exit 1 where the page or a plot is stale
"""

from __future__ import annotations

import sys
from pathlib import Path

from precompute.experiments import report_features as features
from precompute.experiments import report_tasks as tasks
from precompute.utils.markdown import RESULTS, read, read_lines, splice

PAGE = Path("docs/results.md")
IMAGES = Path("docs/img")


def render(results: Path = RESULTS) -> dict[str, str]:
    """Bodies by the name of their marks."""
    return {
        "omega": features.omega_part(read("demo-store", results)),
        "words": features.words_part(read("demo-evaluation", results)),
        "wrong-pairs": features.pairs_part(read("wrong-pairs", results)),
        "patches": tasks.patches_part(read("patches", results)),
        "filtering": tasks.filtering_part(read_lines("filtering", results)[1:]),
        "figure3": tasks.figure3_part(read_lines("figure3", results)),
    }


def plot(results: Path = RESULTS) -> dict[str, bytes]:
    """SVG by file name."""
    figures = {
        "omega": features.omega_plot(read("demo-store", results)),
        "wrong-pairs": features.pairs_plot(read("wrong-pairs", results)),
        "patches": tasks.patches_plot(read("patches", results)),
        "filtering": tasks.filtering_plot(read_lines("filtering", results)[1:]),
        "figure3": tasks.figure3_plot(read_lines("figure3", results)),
    }
    return {f"results-{name}.svg": svg for name, svg in figures.items()}


def main() -> None:
    before = PAGE.read_text(encoding="utf-8")
    after, drawn = splice(before, render(), PAGE), plot()
    if "--check" in sys.argv[1:]:
        stale = [PAGE] * (before != after)
        stale += [p for name, svg in drawn.items() if not (p := IMAGES / name).exists() or p.read_bytes() != svg]
        sys.exit(f"{stale[0]} is stale: run python -m precompute.experiments.report" if stale else 0)
    PAGE.write_text(after, encoding="utf-8")
    for name, svg in drawn.items():
        (IMAGES / name).write_bytes(svg)


if __name__ == "__main__":
    main()
