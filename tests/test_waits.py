"""No test ends a wait within a minute: two busy cores may take that long over what takes a moment on free ones."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
SECONDS, MILLISECONDS = 60, 60_000
"""The shortest waits: of Python, and of Playwright, whose numbers are a thousand or more."""
SHORT_ON_PURPOSE = {
    ("backend/live/test_explained_answers.py", 0.5): "the visitor goes away before the answer",
    ("helpers/map_page.py", 5_000): "nothing comes where no point lies that way",
    ("helpers/servers.py", 2): "is asked again until the server's own minute is over",
}


def short_waits(code: str) -> Iterator[tuple[int, float]]:
    """(line, value) of each argument `timeout` that is too short."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.keyword) and node.arg == "timeout" and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, int | float) and value < (SECONDS if value < 1000 else MILLISECONDS):
                yield node.value.lineno, value


def test_no_wait_is_short_but_on_purpose() -> None:
    seen = [
        (path.relative_to(TESTS).as_posix(), line, value)
        for path in sorted(TESTS.rglob("*.py"))
        if path.parent.name != "bench"
        for line, value in short_waits(path.read_text(encoding="utf-8"))
    ]
    wrong = [f"tests/{path}:{line}: {value}" for path, line, value in seen if (path, value) not in SHORT_ON_PURPOSE]
    assert not wrong, wrong
    assert {(path, value) for path, _, value in seen} == SHORT_ON_PURPOSE.keys(), "an exception that nothing needs"


def test_short_waits_are_noticed() -> None:
    code = "process.wait(timeout=20)\npage.goto('/', timeout=30_000)\nget(timeout=60)\nexpect(timeout=60_000)\n"
    assert list(short_waits(code)) == [(1, 20), (2, 30_000)]
