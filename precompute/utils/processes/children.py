"""Processes beside a command's own: none outlives it, and none gets its Ctrl-C."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes begun here never get Ctrl-C, which a terminal sends to all: the command itself ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def end_with_parent() -> None:
    """Ends this process as soon as its parent has ended, even where that was killed and could end nothing. Each process
    that a command starts calls this first."""

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
