"""The console command as programs call it in their own process."""

from __future__ import annotations

import pytest


def test_a_command_runs_in_this_process(capsys: pytest.CaptureFixture[str]) -> None:
    from backend.cli import Saevx, run

    assert run(Saevx, ["verify", "no/such/store"]) == 1
    assert "no/such/store" in capsys.readouterr().err


def test_other_names_are_not_there() -> None:
    with pytest.raises(ImportError, match="Nothing"):
        from backend.cli import Nothing  # noqa: F401
