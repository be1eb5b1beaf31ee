"""Memory of this process: bytes resident now and at most, and how freed memory returns to the system."""

import ctypes
import mmap
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


try:
    _TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
except (OSError, TypeError):  # Windows
    _TRIM = None


def resident() -> int:
    """Bytes resident now."""
    return int(psutil.Process().memory_info().rss)


def available() -> int:
    """Bytes that the machine can still give without swapping."""
    return int(psutil.virtual_memory().available)


def peak() -> int:
    """Most bytes resident at any time since `reset_peak`, or since the start where the system cannot forget it."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    max_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(max_rss * (1 if sys.platform == "darwin" else 1024))


def reset_peak() -> None:
    """Let `peak` count from now on, where the system can (Linux)."""
    with suppress(OSError):
        _CLEAR.write_text("5")


def give_back() -> None:
    """Return freed memory to the system. The C library would keep it, in gaps between objects still in use, and the
    process would grow from batch to batch."""
    if _TRIM is not None:
        _TRIM(0)


def release(*arrays: Any) -> None:
    """Drop the pages of memory-mapped arrays, which count as resident once they were read or written. Written data
    stays in the file; what is used again is read again."""
    for array in arrays:
        while isinstance(array, np.ndarray):
            array = array.base
        if isinstance(array, mmap.mmap) and hasattr(array, "madvise"):  # Windows keeps pages as it likes
            array.madvise(mmap.MADV_DONTNEED)


def total() -> int:
    """Bytes of the machine."""
    return int(psutil.virtual_memory().total)


def process_start() -> float:
    """When this process began, in seconds of `time.time`."""
    return float(psutil.Process().create_time())
