"""The command `saevx` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SAEVX = [sys.executable, "-m", "backend.cli"]


def run_saevx(*args: str | Path, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """The console command in a process of its own; on a failure the test shows what it printed."""
    done = subprocess.run([*SAEVX, *map(str, args)], capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        pytest.fail(f"saevx {' '.join(map(str, args))} → {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
