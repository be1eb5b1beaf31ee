"""The rules of the code's layout, read from its source: what may import what, how long a module may be, which words are
not used as names. A violation is printed as one line, `file:line: what is wrong`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def none(violations: list[str]) -> None:
    """Fails with one line per violation."""
    assert not violations, "\n" + "\n".join(violations)


def test_no_test_imports_a_test() -> None:
    """What tests share lies in tests/helpers or is a fixture of a conftest.py."""
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import)
                else [f"{node.module or ''}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom)
                else []
            )  # fmt: skip
            wrong += [
                f"{path.relative_to(ROOT)}:{node.lineno}: imports {name}" for name in names
                if any(part.startswith("test_") or part == "conftest" for part in name.split("."))
            ]  # fmt: skip
    none(wrong)
