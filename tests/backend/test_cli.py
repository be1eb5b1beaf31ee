"""The console command as programs call it in their own process."""

from __future__ import annotations

import subprocess
import sys

import pytest

HELP = """
import contextlib, sys
sys.argv = ["saevx", *sys.argv[1:], "--help"]
from backend.cli import main
with contextlib.suppress(SystemExit):
    main()
slow = {"numpy", "pyarrow", "PIL", "sqlalchemy", "fastapi", "torch"} & set(sys.modules)
assert not slow, slow
"""


def test_a_command_runs_in_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    from backend.cli import Saevx, run

    assert run(Saevx, ["verify", "no/such/store"]) == 1
    assert "no/such/store" in capsys.readouterr().err


@pytest.mark.parametrize("command", [(), ("precompute",), ("serve",), ("score",)], ids=lambda one: " ".join(one) or "-")
def test_help_imports_nothing_large(command: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", HELP, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage: saevx" in done.stdout


def test_other_names_are_not_there() -> None:
    with pytest.raises(ImportError, match="Nothing"):
        from backend.cli import Nothing  # noqa: F401
