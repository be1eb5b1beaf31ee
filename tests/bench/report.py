"""Renders the tables of docs/performance.md from docs/results/bench-*.json.

    python -m tests.bench.report          # rewrite
    python -m tests.bench.report --check  # exit 1 where the page is stale
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from precompute.rendering import RESULTS, Row, command, splice, table
from tests.bench.common import met

PAGE = Path("docs/performance.md")
SAID = {True: "yes", False: "**no**", None: "not measured"}


def results(folder: Path = RESULTS) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("bench-*.json"))]


def number(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    digits = f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{digits} {unit}".strip()


def figures(found: list[dict[str, Any]]) -> str:
    rows: list[Row] = [
        (f["what"], number(f["value"], f["unit"]), f"{f['sense']} {number(f['goal'], f['unit'])}", SAID[met(f)],
         f["note"], f"`{result['name']}`")
        for result in found for f in result["figures"]
    ]  # fmt: skip
    return table(("what", "measured", "goal", "reached", "how", "benchmark"), rows)


def runs(found: list[dict[str, Any]]) -> str:
    """How each result was made, and on what."""
    rows: list[Row] = []
    for result in found:
        m = result["machine"]
        options = ", ".join(f"{name} {value}" for name, value in result["options"].items())
        torch = m["versions"]["torch"]
        where = f"{m['gpu'] or m['processor']}, {m['cores']} cores, {m['threads']} threads, torch {torch}"
        took = f"{result['took_s']:.0f} s" if "took_s" in result else "–"
        rows.append((f"`{result['command']}`", options, where, took))
    return table(("command", "options", "machine", "took"), rows)


def steps(found: list[dict[str, Any]]) -> str:
    """Where the wall time of a whole run goes."""
    for result in found:
        if result["name"] == "collect":
            told = dict(result["steps"])
            total = told.pop("total")
            rows: list[Row] = [(f"`{name}`", f"{seconds / total:.1%}") for name, seconds in told.items()]
            return table(("step", "share of the whole run"), rows)
    return "Not measured."


def rendered(page: str) -> str:
    found = results()
    return splice(page, {"figures": figures(found), "steps": steps(found), "runs": runs(found)}, PAGE)


if __name__ == "__main__":
    command(PAGE, rendered, "tests.bench.report")
