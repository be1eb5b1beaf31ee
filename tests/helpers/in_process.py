"""The command `saevx` in this process, and the hashes of what it wrote."""

import asyncio
import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from backend.commands import Saevx
from precompute.cli import run

T = TypeVar("T")


class CommandResult(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


def saevx(*args: object) -> CommandResult:
    """The console command, run in this process; in a thread of its own where an event loop runs in this one, as
    Playwright's does, and the command starts another one."""
    return apart(run_here, *args) if args[:1] == ("export",) and is_in_a_loop() else run_here(*args)


def is_in_a_loop() -> bool:
    """Whether an event loop runs in this thread."""
    with suppress(RuntimeError):
        return asyncio.get_running_loop() is not None
    return False


def run_here(*args: object) -> CommandResult:
    """The same in this thread."""
    output, err = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(err):
        try:
            status = run(Saevx, [str(arg) for arg in args])
        except SystemExit as end:  # of --help
            status = int(end.code or 0)
    return CommandResult(status, output.getvalue(), err.getvalue())


def apart(function: Callable[..., T], *args: Any) -> T:
    """What the function returns, called in a thread of its own: Playwright has an event loop in the main one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function, *args).result()


def sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but run.json."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "run.json"
    }
