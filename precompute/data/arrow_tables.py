"""Records of a table that `datasets` has opened. It keeps tables as memory-mapped Arrow files, so that one image of a
million is read without its neighbours; Parquet alone would have to unpack a whole row group for each.
"""

import datetime as dt
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from precompute.data.records import IMAGE_FIELDS, BadRow, Columns, Listing, Records, Stamp, key_of
from precompute.errors import SaevxError

ROWS_AT_ONCE = 1000
"""Rows listed at a time."""


class Table:
    """The image column of a data set, read cell by cell."""

    def __init__(self, dataset: Any, column: str) -> None:
        self.rows = dataset.select_columns([column]).with_format("arrow")

    def buffer(self, index: int, place: int) -> Any:
        """Arrow buffer of an image's bytes; nothing is copied."""
        cell = self.rows[index : index + 1].column(0).chunk(0)
        if is_list(cell.type):
            cell = cell.flatten()
        if is_struct(cell.type):
            cell = cell.field("bytes")
        return cell[place].as_buffer()


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """An image inside a table."""

    table: Table
    index: int
    place: int
    """Which of its row's images."""

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        import pyarrow as pa

        return pa.BufferReader(self.table.buffer(self.index, self.place))

    def stamp(self) -> Stamp:
        return [self.index, self.place]


# ---- its records


def listing(dataset: Any, name: str, folder: Path, files: list[Path] | None, columns: Columns) -> Listing:
    """
    Args:
        files: that hold the images; None are the Arrow files themselves.
    """
    schema = dataset.features.arrow_schema
    texts = {name.lower() for name in ("text", "caption", columns.text, columns.id) if name}
    of_bytes = [field.name for field in schema if holds_bytes(field.type) and field.name.lower() not in texts]
    column = image_column(schema.names, of_bytes, name, columns)
    if files is None:
        files = sorted(Path(file["filename"]) for file in dataset.cache_files)
    names = [n for n in schema.names if n not in of_bytes and n != column]
    records = partial(table_records, dataset, name, column, names)
    return Listing(name, records, (column,) if column else (), folder, files, list(schema.names))


def image_column(names: list[str], of_bytes: list[str], source: str, columns: Columns) -> str | None:
    """The column with the images: the one asked for, one of bytes, or one of a usual name.

    Args:
        of_bytes: columns of bytes.

    Raises:
        SaevxError: there is no column as it was asked for.
    """
    if columns.text_only:
        return None
    if columns.image is not None:
        key = key_of(dict.fromkeys(names), columns.image)
        if key not in names:
            raise SaevxError(f"{source} has the columns {', '.join(names)}, not {columns.image!r}: see --image-column.")
        return key
    by_rank = sorted(of_bytes, key=lambda name: (name.lower() not in IMAGE_FIELDS, names.index(name)))
    by_name = [name for known_name in IMAGE_FIELDS for name in names if name.lower() == known_name]
    return next(iter([*by_rank, *by_name]), None)


def table_records(dataset: Any, name: str, column: str | None, field_names: list[str]) -> Records:
    """Every row's fields, with references to its images, whose bytes are read later. Other columns of bytes are left
    out."""
    fields = dataset.select_columns(field_names).with_format("arrow") if field_names else None
    table = Table(dataset, column) if column else None
    for begin in range(0, len(dataset), ROWS_AT_ONCE):
        end = min(begin + ROWS_AT_ONCE, len(dataset))
        rows = fields[begin:end].to_pylist() if fields else [{} for _ in range(begin, end)]
        images: list[Any] = [None] * len(rows)
        if table is not None:
            chunks = table.rows[begin:end].column(0).chunks
            images = [cells for chunk in chunks for cells in image_references(chunk)]
        for index, (row, cells) in enumerate(zip(rows, images, strict=True), begin):
            record = {key: plain_value(decode_text(value)) for key, value in row.items()}
            if column is not None and table is not None and cells:
                record[column] = [
                    Cell(table, index, place) if image is None else image for place, image in enumerate(cells)
                ]
            yield f"{name}:{index}", record


def image_references(array: Any) -> list[list[str | BadRow | None] | None]:
    """Per row of an Arrow array, its images: None for bytes in the cell, else a path, or what is wrong; None for a
    row without any. Bytes are not touched."""
    import pyarrow.compute as pc

    if is_list(array.type):
        lengths = pc.list_value_length(array).to_pylist()
        flat = iter(image_references(array.flatten()))
        no_image: list[str | BadRow | None] = [BadRow("one of its images is missing")]
        return [None if not n else [image for _ in range(n) for image in (next(flat) or no_image)] for n in lengths]
    is_valid = array.is_valid().to_pylist()
    if is_struct(array.type):
        has_bytes = array.field("bytes").is_valid().to_pylist()
        paths = array.field("path").to_pylist()
        return [
            None if not ok or not (in_cell or path) else [None if in_cell else path]
            for ok, in_cell, path in zip(is_valid, has_bytes, paths, strict=True)
        ]
    if holds_bytes(array.type):
        return [[None] if ok else None for ok in is_valid]
    return [None if value is None else [value] for value in map(plain_value, array.to_pylist())]


def is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_struct(kind: Any) -> bool:
    """{bytes, path}, as `datasets` stores an image."""
    import pyarrow as pa

    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {field.name for field in kind}


def holds_bytes(kind: Any) -> bool:
    import pyarrow as pa

    if is_list(kind):
        return holds_bytes(kind.value_type)
    return is_struct(kind) or bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def decode_text(value: Any) -> Any:
    """A text that is kept as bytes, as text."""
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeError:
        return value


def plain_value(value: Any) -> Any:
    """A value as JSON can hold it: times as ISO 8601, NaN and infinity as null, any other object as its text."""
    if isinstance(value, dict):
        return {str(key): plain_value(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
