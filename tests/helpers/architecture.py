"""The rooms of the code, from the bottom floor to the top, and what imports what.

`python -m tests.helpers.architecture` draws the picture in docs/architecture.md from the imports.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = [
    "precompute.errors", "precompute.utils", "precompute.geometry", "precompute.data", "precompute.options",
    "precompute.store", "precompute.model", "precompute.sae", "precompute.collect", "precompute.live",
    "precompute.training", "precompute.scoring", "precompute.patches", "precompute.steps", "precompute.estimate",
    "precompute.pipeline", "precompute.demo", "precompute.experiments", "precompute.cli", "backend",
]  # fmt: skip
"""A module imports only from its own floor and from those before it in this list."""


def floor_of(module: str) -> int | None:
    """Index in FLOORS of the floor on which a module stands."""
    for index, floor in enumerate(FLOORS):
        if module == floor or module.startswith(f"{floor}."):
            return index
    return None


@cache
def modules() -> dict[str, Path]:
    """Name and file of every module of `precompute` and `backend`."""
    paths = sorted(path for top in ("precompute", "backend") for path in (ROOT / top).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of all that a file imports, wherever in the file: a module, or a name in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
