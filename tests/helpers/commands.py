"""The command `saevx` in a process of its own, to its end."""

import subprocess
from pathlib import Path

import pytest

from tests.helpers.forked import SAEVX, start


def to_its_end(process: subprocess.Popen[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """What the process printed until it ended. Raises subprocess.TimeoutExpired, when it is killed."""
    try:
        output, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, err)


def run_saevx(
    *args: str | Path, check: bool = True, timeout: float = 900, fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """The console command in a process of its own; on a failure the test shows what it printed.

    Args:
        fresh: as a user starts it, with all its imports.
    """
    if fresh:
        result = subprocess.run([*SAEVX, *map(str, args)], capture_output=True, text=True, timeout=timeout)
    else:
        result = to_its_end(start(*args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), timeout)
    if check and result.returncode:
        pytest.fail(f"saevx {' '.join(map(str, args))} → {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result
