"""Samples and rejected rows of an unfinished store: JSON lines, and the columns of all samples as an Arrow file."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from precompute.utils.files import atomic_write
from precompute.utils.types import Array, LazySequence

_READ = 1 << 22
"""Bytes of a JSONL file that are searched for line ends at a time."""
_ROWS = 4000
"""Samples parsed at a time."""


class Records(LazySequence[dict[str, Any]]):
    """The lines of a JSONL file, each parsed when it is read: a million of them would fill the memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: Array = np.zeros(0, np.uint8)
        """uint8: the bytes of the file, memory-mapped."""
        if path.exists() and path.stat().st_size:
            self.data = np.memmap(path, np.uint8, "r")

    @cached_property
    def offset(self) -> Array:
        """int64 [n+1]: where each line begins and, last, where all end."""
        ends = [np.zeros(1, np.int64)]
        for low in range(0, len(self.data), _READ):
            ends.append(np.flatnonzero(self.data[low : low + _READ] == ord("\n")) + low + 1)
        return np.concatenate(ends)

    def __len__(self) -> int:
        return len(self.offset) - 1

    def item(self, number: int) -> dict[str, Any]:
        return json.loads(self.data[self.offset[number] : self.offset[number + 1]].tobytes())


class SampleRecords(Records):
    """The records of samples, and what the steps read of all of them as columns.

    The first use of a column parses the lines once, some thousand at a time, into `samples.arrow`, which is then
    memory-mapped: a step holds Python objects of one batch at a time.
    """

    COLUMNS = ("sample_id", "text", "views", "sha256", "thumb")
    """Strings; `views` is JSON, `sha256` and `thumb` are lists with an entry for each image."""

    def column(self, name: str, rows: Array | None = None) -> Iterator[Any]:
        """The values of one of `COLUMNS` in row order, or of these rows alone.

        Args:
            rows: int64 [n].
        """
        column = self._table[name]
        if rows is not None:  # `take` would copy the whole column
            yield from (column[int(row)].as_py() for row in rows)
            return
        for chunk in column.chunks:
            yield from chunk.to_pylist()

    def values(self, name: str, rows: Array | None = None) -> Sequence[Any]:
        """As `column`, to be read more than once."""
        return _Column(self, name, rows)

    @cached_property
    def _table(self) -> Any:
        """A memory-mapped `pyarrow.Table`."""
        import pyarrow as pa

        path = self.path.with_suffix(".arrow")
        if not path.is_file():
            string = pa.string()
            types = {"sha256": pa.list_(string), "thumb": pa.list_(string)}
            schema = pa.schema([(name, types.get(name, string)) for name in self.COLUMNS])
            with atomic_write(path) as file, pa.ipc.new_file(file, schema) as writer:
                for low in range(0, len(self), _ROWS):
                    lines = [_columns_of(record) for record in self[low : low + _ROWS]]
                    writer.write_batch(pa.RecordBatch.from_pylist(lines, schema))
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class _Column(LazySequence[Any]):
    """Values of a column, read from the table each time: of these rows, int64 [n], or of all."""

    def __init__(self, records: SampleRecords, name: str, rows: Array | None) -> None:
        self.records, self.name, self.rows = records, name, rows

    def __len__(self) -> int:
        return len(self.records if self.rows is None else self.rows)

    def item(self, number: int) -> Any:
        row = number if self.rows is None else int(self.rows[number])
        return self.records._table[self.name][row].as_py()

    def __iter__(self) -> Iterator[Any]:
        return self.records.column(self.name, self.rows)


def _columns_of(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "sample_id": str(record["sample_id"]),
        "text": str(record["text"]),
        "views": json.dumps(record["views"]),
        **{name: [str(image[name]) for image in record["images"]] for name in ("sha256", "thumb")},
    }
