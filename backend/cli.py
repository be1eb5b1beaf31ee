"""The console command `saevx`: its entry point and its answers to signals. The commands are in commands.py.

Nothing is imported here before Ctrl-C can be answered in one line: an exception in the middle of an import prints a
traceback, and some imports swallow it.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

TYPE_CHECKING = False  # importing it from typing takes longer than all imports above
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

ENDINGS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
"""Exit status (128 + the signal's number, as in shells) and message."""


def main() -> None:
    """Entry point of the console script. Exit status: 0 done, 1 failed with one line on standard error, 2 wrong usage,
    130 interrupted, 143 terminated."""
    on_signals(end)
    gc.set_threshold(20_000)  # while libraries are imported there is little garbage to find
    from backend.commands import Saevx
    from precompute.cli import run

    sys.unraisablehook = raise_again
    on_signals(interrupt)
    try:
        status = run(Saevx, sys.argv[1:] or ["--help"])
    except KeyboardInterrupt:  # a second interrupt, during the answer to the first
        end(signal.SIGINT)
    on_signals(end)  # only threads are waited for from now on
    if status in (130, 143):
        leave(status)
    sys.exit(status)


def on_signals(handler: Callable[..., Any]) -> None:
    """Let `handler` answer both signals, except a signal that is ignored, as in a shell's background job."""
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end(number: int, _frame: object = None) -> NoReturn:
    """End the process at once, when there is nothing to clean up."""
    status, word = ENDINGS[signal.Signals(number)]
    os.write(2, f"saevx: {word}\n".encode())
    os._exit(status)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise an exception, so that the running code can clean up. Libraries in C++ abort at an exception in the middle
    of an import, so there the process ends at once or, if it has child processes to end first, after the import."""
    from precompute.utils import ownership
    from precompute.utils.processes import interrupts

    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            children = getattr(sys.modules.get("multiprocessing"), "active_children", None)  # it may be half imported
            if children is not None and children():
                return send_again(number)
            ownership.abandon()
            end(number)
        frame = frame.f_back
    interrupts.raise_interrupt(number)


def leave(status: int) -> NoReturn:
    """Exit like `sys.exit`, but always with this status: after an interrupt in code that `exec` runs, Python would end
    with the signal instead."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(status)


def raise_again(unraisable: Any) -> None:
    """Send an interrupt again that was raised in a destructor or callback, where Python prints it and continues."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        send_again(signal.SIGINT if type(unraisable.exc_value) is KeyboardInterrupt else signal.SIGTERM)
    else:
        sys.__unraisablehook__(unraisable)


def send_again(number: int) -> None:
    """Send the signal a moment later, from another thread: here it would be lost as well."""
    import threading

    threading.Timer(0.02, os.kill, (os.getpid(), number)).start()


def __getattr__(name: str) -> Any:
    """`Saevx` and `run` for programs that call a command in their own process: `run(Saevx, ["verify", "STORE"])`."""
    if name == "Saevx":
        from backend import commands

        return commands.Saevx
    if name == "run":
        from precompute import cli

        return cli.run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    main()
