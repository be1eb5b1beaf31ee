"""What is let go of no longer counts as resident, and is still there."""

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from precompute.store.events import map_array
from precompute.utils import memory
from precompute.utils.files import new_array
from tests.helpers.machine import environment

BYTES = 1 << 26


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="other systems keep pages as they like")
def test_a_mapped_file_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "big.npy"
    written = new_array(path, np.uint8, (BYTES,))
    written[:] = 7
    full = memory.resident()
    memory.release(written, np.zeros(3), None)
    assert memory.resident() < full - BYTES // 2
    written[0] = 9
    memory.release(written)
    assert written[0] == 9 and written[-1] == 7

    for read in (np.load(path, mmap_mode="r"), map_array(path)):
        total = int(read.sum())
        full = memory.resident()
        memory.release(read)
        assert memory.resident() < full - BYTES // 2
        assert int(read.sum()) == total == 7 * BYTES + 2


def free_a_lot() -> tuple[int, int]:
    """Resident bytes after 64 MB were freed, and once they are given back."""
    remaining, freed = [], []
    for _ in range(1000):  # what lives on lies between what does not, as in the pass
        freed.append(np.ones(1 << 16, np.uint8))
        remaining.append(np.ones(1 << 10, np.uint8))
    freed.clear()
    full = memory.resident()
    memory.give_back()
    assert all(subset.all() for subset in remaining)
    return full, memory.resident()


@pytest.mark.skipif(memory._TRIM is None, reason="not glibc")
def test_what_was_freed_is_given_back() -> None:
    """In a process of its own: another's freed memory would be used first, and there is less to give back."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        full, after = process.submit(free_a_lot).result()
    assert after < full - (1000 << 16) / 2


def test_it_is_imported_where_the_system_has_less(tmp_path: Path) -> None:
    """As on Windows and macOS: no `resource`, `fcntl` or glibc, and maps that take no advice."""
    code = """
import ctypes, mmap, os, sys
import numpy as np, psutil, wrapt
for name in ("resource", "fcntl", "msvcrt"):
    sys.modules[name] = None  # an import of it fails
class Nothing:
    def __init__(self, name):
        raise TypeError("LoadLibrary() argument 1 must be str, not None")
ctypes.CDLL = Nothing
os.__dict__.pop("posix_fallocate")
mmap.__dict__.pop("MADV_DONTNEED")
sys.platform = "win32"
from precompute.utils import failures, files, memory
memory.give_back()
memory.reset_peak()
assert memory.resident() > 0 and memory.total() > memory.available() > 0
array = files.new_array(files.Path(sys.argv[1]), np.uint8, (10,))
array[:] = 1
assert array.sum() == 10
with files.atomic_write(files.Path(sys.argv[1]), "w") as file:
    file.write("x")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.npy")], capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 0, done.stderr
