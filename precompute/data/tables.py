"""Tables: Parquet, and whatever `datasets` opens. It keeps them as memory-mapped Arrow files, so that one image of a
million is read without its neighbours; Parquet alone would have to unpack a whole row group for each.

`datasets` takes seconds to import, so it is imported only when there is a table.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from precompute.data.base import BadRow, Columns, Listing, Stamp
from precompute.errors import SaevxError

NAMES = ("image", "images", "file_name", "file_names")
"""What a column of image paths may be called; a column of bytes may have any name."""
STEP = 1000
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

        reader: IO[bytes] = pa.BufferReader(self.table.buffer(self.index, self.place))
        return reader

    def stamp(self) -> Stamp:
        return [self.index, self.place]


# ---- where tables come from


def from_parquet(files: Sequence[Path], at: Path, columns: Columns) -> Listing:
    dataset = load("parquet", str(at), data_files=[str(file.resolve()) for file in files], split="train")
    folder = at if at.is_dir() else at.parent
    return listing(dataset, at.resolve().name if at.is_dir() else at.stem, folder, [*files], columns)


def from_folder(folder: Path, columns: Columns) -> Listing:
    """What `datasets` has saved, or any folder that it knows to read."""
    saved = (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()
    dataset = load(None if saved else str(folder.resolve()), str(folder))
    return listing(chosen(dataset, str(folder), columns), folder.resolve().name, folder, None, columns)


def from_hub(name: str, columns: Columns) -> Listing:
    """`OWNER/NAME`, or `OWNER/NAME:CONFIG`."""
    repo, _, config = name.partition(":")
    dataset = load(repo, name, **({"name": config} if config else {}))
    return listing(chosen(dataset, name, columns), repo.rpartition("/")[2], Path.cwd(), None, columns)


def load(what: str | None, source: str, **options: Any) -> Any:
    """`load_dataset(what)`, or `load_from_disk(source)` where that is None."""
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_from_disk(source) if what is None else datasets.load_dataset(what, **options)
    except Exception as error:  # builders raise whatever their format's library raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise SaevxError(
            f"There is no data at {source} that can be read ({reason}): give an imagefolder, JSONL, Parquet, "
            "WebDataset tars or a data set of the hub."
        ) from error


def chosen(dataset: Any, source: str, columns: Columns) -> Any:
    """The split asked for, or the only one."""
    if not hasattr(dataset, "keys"):
        return dataset
    if columns.split in dataset:
        return dataset[columns.split]
    names = sorted(dataset)
    if len(names) == 1 and columns.split == Columns().split:
        return dataset[names[0]]
    raise SaevxError(f"{source} has the splits {', '.join(names)}, not {columns.split}: choose with --split.")


# ---- its records


def listing(dataset: Any, name: str, folder: Path, files: list[Path] | None, columns: Columns) -> Listing:
    """
    Args:
        files: that hold the images; None are the Arrow files themselves.
    """
    schema = dataset.features.arrow_schema
    if columns.image is not None and columns.image not in schema.names:
        raise SaevxError(f"{name} has the columns {', '.join(schema.names)}, not {columns.image!r}.")
    held = [field.name for field in schema if holds_bytes(field.type)]
    preferred = sorted(held, key=lambda name: (name not in NAMES, schema.names.index(name)))
    named = [name for name in NAMES if name in schema.names]
    column = columns.image or next(iter([*preferred, *named]), None)
    if files is None:
        files = sorted(Path(file["filename"]) for file in dataset.cache_files)
    others = [one for one in schema.names if one not in held and one != column]
    records = table_records(dataset, name, column, others, columns.folder or folder)
    return Listing(name, records, (column,) if column else (), folder, files)


def table_records(
    dataset: Any, name: str, column: str | None, others: list[str], folder: Path
) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Every row's fields; images only located. Other columns of bytes are left in the table."""
    fields = dataset.select_columns(others).with_format("arrow") if others else None
    table = Table(dataset, column) if column else None
    for begin in range(0, len(dataset), STEP):
        end = min(begin + STEP, len(dataset))
        rows = fields[begin:end].to_pylist() if fields else [{} for _ in range(begin, end)]
        images: list[Any] = [None] * len(rows)
        if table is not None:
            chunks = table.rows[begin:end].column(0).chunks
            images = [found for chunk in chunks for found in located(chunk)]
        for index, (row, found) in enumerate(zip(rows, images, strict=True), begin):
            record = {key: plain(value) for key, value in row.items()}
            if column is not None and table is not None and found:
                record[column] = [
                    Cell(table, index, place) if one is None else one for place, one in enumerate(found)
                ]
            yield f"{name}:{index}", record


def located(array: Any) -> list[list[str | BadRow | None] | None]:
    """Per row of an Arrow array, its images: None for bytes in the cell, else a path, or what is wrong; None for a
    row without any. Bytes are not touched."""
    import pyarrow.compute as pc

    if is_list(array.type):
        lengths = pc.list_value_length(array).to_pylist()
        flat = iter(located(array.flatten()))
        missing: list[str | BadRow | None] = [BadRow("one of its images is missing")]
        return [None if not n else [one for _ in range(n) for one in (next(flat) or missing)] for n in lengths]
    there = array.is_valid().to_pylist()
    if is_struct(array.type):
        has_bytes = array.field("bytes").is_valid().to_pylist()
        paths = array.field("path").to_pylist()
        return [
            None if not ok or not (raw or path) else [None if raw else path]
            for ok, raw, path in zip(there, has_bytes, paths, strict=True)
        ]
    if holds_bytes(array.type):
        return [[None] if ok else None for ok in there]
    return [None if value is None else [value] for value in map(plain, array.to_pylist())]


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


def plain(value: Any) -> Any:
    """As JSON has it: times as ISO 8601, numbers that are none as null, what else there is as its text."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)
