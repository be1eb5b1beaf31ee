"""Lines of the running report, and progress: tqdm's bar on a terminal, a plain line now and then elsewhere."""

import sys
from typing import Any

from tqdm import tqdm

from precompute.utils.processes.interrupts import raise_lost

_COMMANDS = dict.fromkeys(
    [*(i for i in range(32) if chr(i) not in "\t\n"), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)],
    "\N{REPLACEMENT CHARACTER}",
)
"""Characters that a terminal obeys: control characters, and those that turn the direction of writing."""
EVERY_S = 10.0
"""Between two lines of progress in a log, in seconds."""


def harmless(line: str) -> str:
    """A line for a terminal: an id or a file name in it may hold what a terminal obeys."""
    return line.translate(_COMMANDS)


def say(line: str) -> None:
    """Print a line of the running report on standard error: standard output is for results."""
    raise_lost()
    tqdm.write(harmless(line), file=sys.stderr)
    sys.stderr.flush()


def human(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError


class _Report:
    """A file for tqdm, which makes each state of its bar a line of the report."""

    def write(self, text: str) -> None:
        if line := text.strip():
            say(line)

    def flush(self) -> None:
        """Nothing: `say` has flushed."""


class _Bar(tqdm):
    def update(self, n: float | None = 1) -> bool | None:
        raise_lost()
        return super().update(n)


class _Lines(_Bar):
    monitor_interval = 0
    """tqdm's thread, which would shorten the interval, is not started."""


def progress_bar(title: str, total: int | None, unit: str, n_done: int = 0, *, quiet: bool = False) -> tqdm:
    """A tqdm that counts `unit`s from `n_done` up to `total`, which may be unknown; silent where `quiet`."""
    options: dict[str, Any] = {"total": total, "initial": n_done, "desc": title, "unit": f" {unit}", "disable": quiet}
    if sys.stderr.isatty():
        return _Bar(**options, dynamic_ncols=True)
    line = f"{{desc}}: {{n_fmt}}{'' if total is None else ' of {total_fmt}'}{{unit}} in {{elapsed}}, {{rate_noinv_fmt}}"
    # The delay suppresses the line that tqdm prints at the start; set to 0 afterwards, it leaves the last line alone.
    bar = _Lines(**options, file=_Report(), bar_format=line, mininterval=EVERY_S, miniters=1, delay=1e-9)
    bar.delay = 0
    return bar
