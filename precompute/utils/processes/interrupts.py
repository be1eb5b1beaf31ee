"""Interrupts that get lost: an exception that is raised in a callback of SQLite, in a `__len__` that NumPy calls, or
before a library's `except:`, is dropped there, and the command would go on to its end. So it is raised again at the
next batch, step or line of the report, and at the latest where the command ends."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from precompute.errors import Terminated, causes

_UNANSWERED: list[int] = []
"""The last signal whose exception was raised, until the command has ended because of it."""


def raise_interrupt(number: int) -> NoReturn:
    """Raise a signal's exception, from the handler of the signal."""
    _UNANSWERED[:] = [number]
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def raise_lost() -> None:
    """Raise an interrupt again that got lost. It is not lost while it is on its way, such as in a `finally`, and other
    threads than the main one have no part in it."""
    if not _UNANSWERED or threading.current_thread() is not threading.main_thread():
        return
    error = sys.exc_info()[1]
    if error is None or not any(isinstance(cause, KeyboardInterrupt) for cause in causes(error)):
        raise_interrupt(_UNANSWERED[0])


def answer(error: BaseException) -> int | None:
    """The signal because of which a command ends with this error, which may be what a library has made of the
    interrupt; None where there was none. The interrupt is answered with this."""
    numbers = [*_UNANSWERED]
    _UNANSWERED.clear()
    for cause in causes(error):
        if isinstance(cause, KeyboardInterrupt):
            numbers.append(signal.SIGTERM if isinstance(cause, Terminated) else signal.SIGINT)
    return numbers[0] if numbers else None


@contextmanager
def until_terminated() -> Iterator[None]:
    """For a service, which is stopped with SIGTERM: that ends the block without an error."""
    raise_lost()
    try:
        yield
    except Terminated:
        _UNANSWERED.clear()
