"""The rows of DATA, of which a million may be at hand without being in memory: a table on the disk, and views of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from precompute.data.arrow_tables import Cell
from precompute.data.disk.json_table import JsonTable, JsonTableWriter
from precompute.data.records import EmbeddedImage, Row, Slice, Source
from precompute.utils.types import Array, LazySequence


class RowRecords:
    """All rows of a source as they were read.

    Args:
        holders: files and tables that hold images of many rows.
        index_n: int64 [n], rising: the number of each row in the data.
    """

    def __init__(self, table: JsonTable, holders: list[Any], index_n: Array) -> None:
        self.table, self.holders, self.index_n = table, holders, index_n

    def image(self, place: str | list[int]) -> Source:
        """Where an image is, of its place as `RowTableWriter` writes it."""
        if isinstance(place, str):
            return Path(place)
        number, first, second = place
        holder = self.holders[number]
        if isinstance(holder, Path):
            return Slice(holder, first, second)
        return holder if isinstance(holder, EmbeddedImage) else Cell(holder, first, second)


class RowTableWriter:
    """Takes rows one by one.

    Args:
        folder: as of `JsonTableWriter`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.writer, self.index_n = JsonTableWriter(folder), array("q")
        self.holders: list[Any] = []
        self.number_of: dict[Any, int] = {}

    def append(self, row: Row) -> None:
        """Add a row. Raises OSError where the disk is full."""
        images = [self._place(image) for image in row.images]
        self.writer.append([row.sample_id, row.text, images, row.extra, row.source])
        self.index_n.append(row.index)

    def _place(self, image: Source) -> str | list[int]:
        """A path, or the number of what holds the image and two numbers that tell where in it."""
        if isinstance(image, Path):
            return str(image)
        if isinstance(image, Slice):
            return [self._holder(image.path), image.offset, image.size]
        if isinstance(image, Cell):
            return [self._holder(image.table), image.index, image.place]
        return [self._holder(image), 0, 0]

    def _holder(self, holder: Any) -> int:
        """Its number; an object that is no path is the same holder as itself alone."""
        key = holder if isinstance(holder, Path) else id(holder)
        if key not in self.number_of:
            self.number_of[key] = len(self.holders)
            self.holders.append(holder)
        return self.number_of[key]

    def rows(self) -> RowTable:
        """All rows; nothing can be added after this."""
        index_n = np.frombuffer(self.index_n, np.int64)
        return RowTable(RowRecords(self.writer.table(), self.holders, index_n), np.arange(len(index_n)))


class RowTable(LazySequence[Row]):
    """Rows of `RowRecords`, each made when it is read.

    Args:
        at_n: int64 [n]: the record of each row.
        image_n: int64 [n]: the record that has each row's images, −1 for none; None: each row its own.
        length_n: int64 [n]: characters of each row's text at most, −1 for all; None: all of every text.
    """

    def __init__(
        self, records: RowRecords, at_n: Array, image_n: Array | None = None, length_n: Array | None = None
    ) -> None:
        self.records, self.at_n, self.image_n, self.length_n = records, at_n, image_n, length_n

    def __len__(self) -> int:
        return len(self.at_n)

    def item(self, number: int) -> Row:
        records, at = self.records, int(self.at_n[number])
        sample_id, text, images, fields, source = records.table[at]
        if self.image_n is not None and (image_row := int(self.image_n[number])) != at:
            images = [] if image_row < 0 else records.table[image_row][2]
        if self.length_n is not None and (length := int(self.length_n[number])) >= 0:
            text = text[:length]
        return Row(int(records.index_n[at]), sample_id, text, tuple(map(records.image, images)), fields, source)

    def __iter__(self) -> Iterator[Row]:
        return (self[at] for at in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(self) != len(other):
            return False
        return all(own_row == row for own_row, row in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def index_n(self) -> Array:
        """int64 [n]: the number of each row in the data."""
        return self.records.index_n[self.at_n]

    def take(self, at: Array) -> RowTable:
        """The rows at these positions, int64 [m]."""
        columns = (None if column is None else column[at] for column in (self.image_n, self.length_n))
        return RowTable(self.records, self.at_n[at], *columns)

    def with_images(self, at: Array) -> RowTable:
        """The same rows, each with the images of the row at another position, int64 [n]; −1 for none."""
        image_n = self.at_n if self.image_n is None else self.image_n
        return RowTable(self.records, self.at_n, np.where(at < 0, -1, image_n[at]), self.length_n)

    def cut(self, length_of: Mapping[int, int]) -> RowTable:
        """The same rows, the texts at some positions cut to so many characters."""
        length_n = np.full(len(self), -1) if self.length_n is None else self.length_n.copy()
        length_n[list(length_of)] = list(length_of.values())
        return RowTable(self.records, self.at_n, self.image_n, length_n)


class SampleIds(LazySequence[str]):
    """The ids of rows, read when they are needed."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, number: int) -> str:
        return self.rows[number].sample_id

    def __iter__(self) -> Iterator[str]:
        return (row.sample_id for row in self.rows)


def take(rows: Sequence[Row], at: Array) -> Sequence[Row]:
    """The rows at these positions, int64 [m]: of a table a table, else a list."""
    return rows.take(at) if isinstance(rows, RowTable) else [rows[i] for i in at.tolist()]


def indices(rows: Sequence[Row]) -> Array:
    """int64 [n]: the number of each row in the data."""
    return rows.index_n if isinstance(rows, RowTable) else np.array([row.index for row in rows], np.int64)


def as_table(rows: Iterable[Row]) -> RowTable:
    """Rows as a table; one that is a table already stays it."""
    if isinstance(rows, RowTable):
        return rows
    writer = RowTableWriter()
    for row in rows:
        writer.append(row)
    return writer.rows()
