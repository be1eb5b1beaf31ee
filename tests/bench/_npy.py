"""Large arrays, written block by block."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from precompute.utils.files import new_array


def blocks(n: int, step: int = 65_536) -> Iterator[slice]:
    return (slice(low, min(low + step, n)) for low in range(0, n, step))


def as_npy(raw: Path, path: Path, dtype: np.dtype[Any]) -> None:
    """A file of plain numbers as a .npy file, without holding it."""
    n = raw.stat().st_size // dtype.itemsize
    target = new_array(path, dtype, (n,))
    if n:
        source = np.memmap(raw, dtype, "r")
        for subset in blocks(n, 1 << 26):
            target[subset] = source[subset]
    target.flush()
    raw.unlink()
