"""Result files into a page's figures: between marks of a Markdown page stands what a command renders there."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from precompute.utils.files import write_text

RESULTS = Path("docs/results")
MARKS = re.compile(r"(<!-- ([a-z0-9-]+): rendered by [^>]*? -->\n).*?(\n<!-- end of \2 -->)", re.S)

Row = tuple[object, ...]


def read(name: str, results: Path = RESULTS) -> dict[str, Any]:
    """A result file of one JSON object."""
    return dict(json.loads((results / f"{name}.json").read_text(encoding="utf-8")))


def read_lines(name: str, results: Path = RESULTS) -> list[dict[str, Any]]:
    """A result file of one JSON object a line."""
    return [json.loads(line) for line in (results / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def share(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.3f} ({figure['hits']} of {figure['n']})"


def interval(figure: dict[str, Any] | None, digits: int = 3) -> str:
    if figure is None:
        return "–"
    value, low, high = (f"{figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def image(name: str, alt: str) -> str:
    """A plot of docs/results.md."""
    return f"![{alt}](img/results-{name}.svg)"


def splice(page: str, bodies: Mapping[str, str], name: Path) -> str:
    """The page with each body between the marks of its name."""
    marks = [match[2] for match in MARKS.finditer(page)]
    if sorted(marks) != sorted(bodies):
        raise SystemExit(f"{name} has no marks around its figures, or others than {', '.join(bodies)}.")
    return MARKS.sub(lambda m: m[1] + "\n" + bodies[m[2]] + "\n" + m[3], page)


def command(name: Path, render: Callable[[str], str], module: str) -> None:
    """Rewrite the page, or with `--check` exit 1 where it is stale."""
    old_text = name.read_text(encoding="utf-8")
    new_text = render(old_text)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if old_text == new_text else f"{name} is stale: run python -m {module}")
    write_text(name, new_text)
