"""Many small values in few bytes of memory: as JSON in one file that is mapped, with the place of each."""

import json
import mmap
import tempfile
from array import array
from pathlib import Path
from typing import IO, Any

import numpy as np

from precompute.utils import memory
from precompute.utils.types import Array

IN_MEMORY = 1 << 22
"""Bytes that are gathered before they are written; a table of fewer needs no file."""
READS = 1 << 13
"""Values that are read before the pages of the file are released: they count as resident once they were read."""


class JsonTable:
    """Values by number, each parsed when it is read. Made by `JsonTableWriter`; a copy in another process holds the
    bytes themselves.

    Args:
        data: uint8: the values as JSON, one behind the other.
        offset_n: int64 [n+1]: where each begins and, last, where all end.
    """

    def __init__(self, data: Array, offset_n: Array) -> None:
        self.data, self.offset_n, self.n_reads = data, offset_n, 0

    def __len__(self) -> int:
        return len(self.offset_n) - 1

    def __getitem__(self, number: int) -> Any:
        low, high = self.offset_n[number : number + 2].tolist()
        value = json.loads(self.data[low:high].tobytes())
        self.n_reads += 1
        if self.n_reads % READS == 0:
            memory.release(self.data)
        return value


class JsonTableWriter:
    """Takes values one by one. Many of them go into a file without a name, which is gone when its table is.

    Args:
        folder: where that file is made, with the space for it; None is the system's folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.end_n, self.n_written = folder, array("q", [0]), 0
        self.buffer = bytearray()
        self.file: IO[bytes] | None = None

    def append(self, value: Any) -> None:
        """Add a value that JSON can hold. Raises OSError where the disk is full."""
        self.buffer += json.dumps(value).encode()  # ASCII, so that any string comes back as it was
        self.end_n.append(self.n_written + len(self.buffer))
        if len(self.buffer) >= IN_MEMORY:
            self._write()

    def _write(self) -> None:
        if self.file is None:
            self.file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115 (the table's, while it is mapped)
        self.file.write(self.buffer)
        self.n_written += len(self.buffer)
        self.buffer.clear()

    def table(self) -> JsonTable:
        """All values; nothing can be added after this."""
        offset_n = np.frombuffer(self.end_n, np.int64)
        if self.file is None:
            return JsonTable(np.frombuffer(self.buffer, np.uint8), offset_n)
        self._write()
        with self.file as file:
            file.flush()
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return JsonTable(np.ndarray((len(memory),), np.uint8, memory), offset_n)
