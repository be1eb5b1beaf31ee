"""What tests of the machine's faults share: the command in a process of its own, a disk of any size, a place where
nothing can be written."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import to_its_end
from tests.helpers.forked import ROOT, SAEVX, start

Resize = Callable[[str], Path]


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


def begin(*args: object, fresh: bool = False, **variables: str) -> subprocess.Popen[str]:
    """`saevx ARGS` in a process of its own, at the head of a group as in a terminal.

    Args:
        fresh: as a user starts it, with all its imports.
        variables: of its environment.
    """
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options |= {"env": environment(**variables), "start_new_session": True}
    return subprocess.Popen([*SAEVX, *map(str, args)], **options) if fresh else start(*args, **options)


def saevx(*args: object, code: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """`saevx ARGS` to its end.

    Args:
        code: to run in place of the entry point.
    """
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return to_its_end(start(*args, code=code, env=environment(**variables), **options), 300)


def refused(result: subprocess.CompletedProcess[str], *words: str) -> str:
    """The one sentence in which a command was refused, with each of the words."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("saevx: ")]
    assert result.returncode == 1 and "Traceback" not in result.stderr, (result.returncode, result.stderr[-2000:])
    assert len(lines) == 1 and lines == result.stderr.splitlines()[-1:], result.stderr[-2000:]
    assert lines[0].endswith(".") and all(word in lines[0] for word in words), lines[0]
    return lines[0]


@contextmanager
def small_disk(folder: Path) -> Iterator[Resize]:
    """A function that gives the disk another size, such as 400k, and returns its folder."""
    folder.mkdir()

    def resize(size: str) -> Path:
        prefix = "remount," if folder.is_mount() else ""
        options = f"{prefix}size={size}"
        result = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if result.returncode:
            pytest.skip("this user may not mount a disk of a given size")
        return folder

    try:
        yield resize
    finally:
        subprocess.run(["umount", "-l", folder], capture_output=True)


@contextmanager
def closed(folder: Path) -> Iterator[Path]:
    """A folder in which this user may make nothing; to root it is one that may not change at all."""
    folder.mkdir()
    if os.geteuid() and not folder.chmod(0o500):
        yield folder
        return
    if subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
        pytest.skip("root may write anywhere here")
    try:
        yield folder
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)


HOLD = (
    "import sys, pathlib\n"
    "from precompute.utils.ownership import exclusive\n"
    "with exclusive(pathlib.Path(sys.argv[1])):\n"
)


@contextmanager
def another_owner(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns `out`."""
    code = HOLD + "    print('held', flush=True); sys.stdin.read()"
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with start(out, code=code, env=environment(), **options) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()
