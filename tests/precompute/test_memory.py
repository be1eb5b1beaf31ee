"""What is let go of no longer counts as resident, and is still there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.lib.format import open_memmap

from precompute import memory
from precompute.store.events import mapped

BYTES = 1 << 26


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="other systems keep pages as they like")
def test_a_mapped_file_let_go_of(tmp_path: Path) -> None:
    path = tmp_path / "big.npy"
    written = open_memmap(path, "w+", np.dtype(np.uint8), (BYTES,))
    written[:] = 7
    full = memory.resident()
    memory.release(written, np.zeros(3), None)
    assert memory.resident() < full - BYTES // 2
    written[0] = 9
    memory.release(written)
    assert written[0] == 9 and written[-1] == 7

    for read in (np.load(path, mmap_mode="r"), mapped(path)):
        total = int(read.sum())
        full = memory.resident()
        memory.release(read)
        assert memory.resident() < full - BYTES // 2
        assert int(read.sum()) == total == 7 * BYTES + 2


@pytest.mark.skipif(memory._TRIM is None, reason="not glibc")
def test_what_was_freed_is_given_back() -> None:
    kept, freed = [], []
    for _ in range(1000):  # what lives on lies between what does not, as in the pass
        freed.append(np.ones(1 << 16, np.uint8))
        kept.append(np.ones(1 << 10, np.uint8))
    freed.clear()
    full = memory.resident()
    memory.give_back()
    assert memory.resident() < full - (1000 << 16) / 2
    assert all(some.all() for some in kept)
