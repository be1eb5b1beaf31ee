"""The console command as programs call it in their own process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import run_saevx
from tests.helpers.forked import Forked, ForkServer, start

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


@pytest.mark.parametrize("arguments", [["verify", "no/such/store"], ["verify"], ["nonsense"], ["verify", "--help"]])
def test_a_copy_answers_as_a_fresh_process(arguments: list[str], tmp_path: Path) -> None:
    """What most tests start instead of one (tests/helpers/forked.py)."""
    fresh, copy = (run_saevx(*arguments, check=False, fresh=fresh) for fresh in (True, False))
    assert (copy.returncode, copy.stdout, copy.stderr) == (fresh.returncode, fresh.stdout, fresh.stderr)


def test_a_copy_has_its_own_session_and_ends_by_a_signal(tmp_path: Path) -> None:
    process = start("demo", "--dir", tmp_path, "--no-serve", start_new_session=True, stderr=subprocess.DEVNULL)
    assert type(process) is Forked or ForkServer.begun_with is None
    assert os.getsid(process.pid) == process.pid != os.getsid(0) and process.poll() is None
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_other_names_are_not_there() -> None:
    with pytest.raises(ImportError, match="Nothing"):
        from backend.cli import Nothing  # noqa: F401
