"""The console command `saevx`: the entry, and what signals do to it.

Nothing is imported here before Ctrl-C is answered in one line: an exception out of the middle of an import is a
traceback, and some imports swallow it. The commands are in commands.py.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False  # the module of that name takes longer to import than all above
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, NoReturn

    from backend.commands import Saevx as Saevx
    from precompute.cli import run as run

ENDINGS = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
"""Exit status, 128 and the signal's number as shells have it, and the word for it."""


def main() -> None:
    """Entry of the console script: exit 0 done, 1 failed with one line on standard error, 2 wrong usage, 130
    interrupted, 143 terminated."""
    on_signals(end)
    from backend.commands import Saevx
    from precompute.cli import run

    sys.unraisablehook = again
    on_signals(interrupt)
    try:
        status = run(Saevx, sys.argv[1:] or ["--help"])
    except KeyboardInterrupt:  # a second one, while the first was being answered
        end(signal.SIGINT)
    on_signals(end)  # from here on only threads are waited for
    if status in (130, 143):
        leave(status)
    sys.exit(status)


def on_signals(handler: Callable[..., Any]) -> None:
    """Let a handler answer both signals, but for one that was to be ignored, as in a shell's background job."""
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def end(number: int, _frame: object = None) -> NoReturn:
    """End the process at once: nothing has been begun, or all is put away."""
    status, word = ENDINGS[signal.Signals(number)]
    os.write(2, f"saevx: {word}\n".encode())
    os._exit(status)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Let what runs be put away. Not in the middle of an import, where libraries in C++ abort at an exception: there
    the process ends at once, or behind it where there are processes to be ended first."""
    from precompute.errors import Terminated
    from precompute.utils import ownership

    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if "multiprocessing" in sys.modules and sys.modules["multiprocessing"].active_children():
                return send_again(number)
            ownership.abandon()
            end(number)
        frame = frame.f_back
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def leave(status: int) -> NoReturn:
    """Exit as `sys.exit` does, but with this status: where an interrupt came in code that was run as a text, Python
    would end by the signal instead."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    os._exit(status)


def again(lost: Any) -> None:
    """Raise an interrupt again that came in a destructor or a callback: Python would print it and go on."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        send_again(signal.SIGINT if type(lost.exc_value) is KeyboardInterrupt else signal.SIGTERM)
    else:
        sys.__unraisablehook__(lost)


def send_again(number: int) -> None:
    """A moment later, from another thread: here it would be lost as well."""
    import threading

    threading.Timer(0.02, os.kill, (os.getpid(), number)).start()


def __getattr__(name: str) -> Any:
    """`Saevx` and `run`, where they are asked for."""
    if name == "Saevx":
        from backend import commands

        return commands.Saevx
    if name == "run":
        from precompute import cli

        return cli.run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    main()
