"""How much memory this process has, and has had at most."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """Bytes resident now."""
    return int(psutil.Process().memory_info().rss)


def available() -> int:
    """Bytes that the machine can still give without swapping."""
    return int(psutil.virtual_memory().available)


def peak() -> int:
    """Most bytes resident at any time since `forget_peak`, or since the start where the system cannot forget it."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most * (1 if sys.platform == "darwin" else 1024))


def forget_peak() -> None:
    """Let `peak` start anew, where the system can (Linux)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def total() -> int:
    """Bytes of the machine."""
    return int(psutil.virtual_memory().total)


def begun() -> float:
    """When this process began, in seconds of `time.time`."""
    return float(psutil.Process().create_time())
