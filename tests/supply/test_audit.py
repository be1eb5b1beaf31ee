"""`make audit` says what its databases answer, and in one sentence that they do not."""

import json
import sys
from typing import Any

import pytest

from tests.supply.audit import main

FINE: dict[str, Any] = {"dependencies": [{"name": "numpy", "version": "2.4.6", "vulns": []}]}
HOLE: dict[str, Any] = {"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-2026-1"}]}]}


def printing(answer: Any, status: int = 0) -> list[str]:
    return [sys.executable, "-c", f"import sys; print({json.dumps(answer)!r}); sys.exit({status})"]


FAILS = [sys.executable, "-c", "raise OSError('no route to host')"]


def test_no_hole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(printing(FINE), printing({"vulnerabilities": {}})) == 0
    assert capsys.readouterr().out == "No locked version has a known vulnerability.\n"


def test_each_hole_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    npm = printing({"vulnerabilities": {"htm": {"severity": "high"}}}, 1)
    assert main(printing(HOLE, 1), npm) == 1
    assert capsys.readouterr().out.splitlines() == ["a 1: CVE-2026-1", "htm: high"]


@pytest.mark.parametrize(
    ("python", "npm", "name"),
    [
        (FAILS, printing({"vulnerabilities": {}}), "PyPI"),
        (["/no/such/program"], printing({"vulnerabilities": {}}), "PyPI"),
        (printing(FINE), FAILS, "npm"),
        (printing(FINE), printing({"message": "request failed", "error": {"code": "ENOTFOUND"}}, 1), "npm"),
    ],
)
def test_without_an_answer_there_is_one_sentence(
    python: list[str], npm: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(python, npm) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and err.startswith(f"{name} gives no answer") and "network" in err
