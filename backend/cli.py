"""The console command `saevx`: the entry, and what signals do to it.

Nothing is imported here before Ctrl-C is answered in one line: an exception out of the middle of an import is a
traceback, and some imports swallow it. The commands are in commands.py.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    sys.exit(status)


def on_signals(handler: Callable[..., Any]) -> None:
    """Let a handler answer both signals, but for one that was to be ignored, as in a shell's background job."""
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            plain = number == signal.SIGINT and handler is interrupt
            signal.signal(number, signal.default_int_handler if plain else handler)


def end(number: int, _frame: object = None) -> None:
    """End the process at once: nothing has been begun, or all is put away."""
    status, word = ENDINGS[signal.Signals(number)]
    os.write(2, f"saevx: {word}\n".encode())
    os._exit(status)


def interrupt(_number: int, _frame: object) -> None:
    """Let what runs be put away."""
    from precompute.errors import Terminated

    raise Terminated


def again(lost: Any) -> None:
    """Raise an interrupt again that came in a destructor or a callback: Python would print it and go on."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT if type(lost.exc_value) is KeyboardInterrupt else signal.SIGTERM)
    else:
        sys.__unraisablehook__(lost)


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
