"""A bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

EVERY_S = 10.0


def say(line: str) -> None:
    """A line of the running report, on standard error: standard output is for results."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def human(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError


class Progress:
    """Counts `unit`s up to `total`, which may be unknown; `quiet` says nothing."""

    def __init__(self, title: str, total: int | None, unit: str, done: int = 0, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self.title, self.total, self.unit, self.done = title, total, unit, done
        self.start = self.told = time.monotonic()
        self.first = done
        self.bar = (
            tqdm(total=total, initial=done, desc=title, unit=f" {unit}", dynamic_ncols=True)
            if sys.stderr.isatty() and not quiet
            else None
        )

    def add(self, n: int) -> None:
        self.done += n
        if self.bar is not None:
            self.bar.update(n)
        elif not self.quiet and time.monotonic() - self.told > EVERY_S:
            self.told = time.monotonic()
            rate = (self.done - self.first) / (self.told - self.start)
            of = "" if self.total is None else f" of {self.total}"
            say(f"{self.title}: {self.done}{of} {self.unit}, {rate:.1f} a second")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()
        elif kind is None and not self.quiet:
            say(f"{self.title}: {self.done} {self.unit} in {time.monotonic() - self.start:.1f} s")
