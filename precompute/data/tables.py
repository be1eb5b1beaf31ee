"""Tables: Parquet, and whatever `datasets` opens. It keeps them as memory-mapped Arrow files, so that one image of a
million is read without its neighbours; Parquet alone would have to unpack a whole row group for each.

`datasets` takes seconds to import, so it is imported only when there is a table.
"""

from __future__ import annotations

import datetime as dt
import glob
import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from precompute.data.base import BadRow, Columns, Listing, NoRows, Records, Stamp, empty, key_of
from precompute.data.starts import other_than_named
from precompute.errors import SaevxError

NAMES = ("image", "images", "file_name", "file_names")
"""What a column of image paths may be called, in any case; a column of bytes may have any name."""
TABLES = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".txt": "text"}
"""Builder of `datasets` by a file's suffix."""
NO_ROWS = ("EmptyDataError", "SchemaInferenceError", "EmptyDatasetError")
NO_DATA = 'Instruction "train" corresponds to no data'
"""What `datasets` and pandas raise over data without a row."""
GENERATING = "An error occurred while generating the dataset"
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


def from_files(files: Sequence[Path], at: Path, columns: Columns) -> Listing:
    """Parquet, CSV, TSV or plain text, one row a line; `at` is the folder or the first of them."""
    name, source = (at.resolve().name if at.is_dir() else at.stem), str(at)
    folder = at if at.is_dir() else at.parent
    suffix = files[0].suffix.lower()
    with explained(source):
        filled = [file for file in files if has_rows(file)]
    if not filled:
        raise empty(source)
    options: dict[str, Any] = {"sep": "\t"} if suffix == ".tsv" else {}
    # A path is a pattern to `datasets`, and "::" in it a chain of file systems.
    names = [glob.escape(str(file.resolve())) for file in filled]
    dataset = load(TABLES[suffix], source, data_files=names, split="train", **options)
    return listing(dataset, name, folder, [*files], columns)


def has_rows(file: Path) -> bool:
    """Whether a table has a row; those without one stop `datasets`.

    Raises:
        SaevxError: it is something else than its name says.
        OSError, ValueError: it cannot be read.
    """
    if (what := other_than_named(file)) is not None:
        raise SaevxError(f"{file} is {what}.")
    if file.suffix.lower() == ".parquet":
        from pyarrow import parquet

        return bool(parquet.read_metadata(file).num_rows)
    with file.open("rb") as opened:
        lines = sum(1 for _ in islice((line for line in opened if line.strip(b"\xef\xbb\xbf\r\n\t ")), 2))
    return lines > (file.suffix.lower() != ".txt")  # a first line names the columns


def from_folder(folder: Path, columns: Columns) -> Listing:
    """What `datasets` has saved, or any folder that it knows to read."""
    source, name = str(folder), folder.resolve().name
    if (folder / "dataset_dict.json").is_file() and not (folder / "state.json").is_file():
        with explained(source):
            splits = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
            folder = folder / chosen(splits, source, columns)  # one split alone: an empty one cannot be opened
    if (folder / "state.json").is_file():
        with explained(source):
            if not json.loads((folder / "state.json").read_text("utf-8"))["_data_files"]:
                raise empty(source)
        return listing(load(None, str(folder)), name, folder, None, columns)
    if set("*?[") & set(str(folder.resolve())):
        return from_files(of_one_kind(folder), folder, columns)
    try:
        splits = load(str(folder.resolve()), source)
    except NoRows:
        tables = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in TABLES]
        if bare := [path for path in tables if not has_rows(path)][: len(tables) - 1]:
            raise SaevxError(f"{bare[0]} has no row, which stops `datasets`: remove it.") from None
        raise
    return listing(splits[chosen(list(splits), source, columns)], name, folder, None, columns)


def of_one_kind(folder: Path) -> list[Path]:
    """The tables of a folder whose path `datasets` would take for a pattern: the file that describes its images, else
    all.

    Raises:
        SaevxError: there is none, or they are of several formats.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in TABLES and path.is_file()]
    files = [path for path in files if path.stem == "metadata"] or files
    if len({path.suffix.lower() for path in files}) != 1:
        raise SaevxError(
            f"{folder} holds no table, or tables of several formats, and `datasets` takes *, ? and [ in a folder's "
            "name for a pattern: rename the folder, or name one file."
        )
    return files


def from_hub(name: str, columns: Columns) -> Listing:
    """`OWNER/NAME`, or `OWNER/NAME:CONFIG`."""
    repo, _, config = name.partition(":")
    splits = load(repo, name, **({"name": config} if config else {}))
    dataset = splits[chosen(list(splits), name, columns)]
    return listing(dataset, repo.rpartition("/")[2], Path.cwd(), None, columns)


def load(what: str | None, source: str, **options: Any) -> Any:
    """`load_dataset(what)`, or `load_from_disk(source)` where that is None."""
    import datasets

    if "::" in source and Path(source).exists():
        raise SaevxError(f"{source} has a :: in its name, which `datasets` takes for a chain of archives: rename it.")
    datasets.disable_progress_bars()
    level = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it logs of an error is said below
    try:
        with explained(source):
            return datasets.load_from_disk(source) if what is None else datasets.load_dataset(what, **options)
    finally:
        datasets.logging.set_verbosity(level)


@contextmanager
def explained(source: str) -> Iterator[None]:
    """Turns whatever a table's library raises into one sentence with the cause."""
    try:
        yield
    except SaevxError:
        raise
    except Exception as error:  # builders raise whatever their format's library raises
        if any(type(one).__name__ in NO_ROWS or NO_DATA in str(one) for one in causes(error)):
            raise empty(source) from error
        raise SaevxError(
            f"There is no data at {source} that can be read ({cause_of(error)}): give an imagefolder, JSONL, Parquet, "
            "WebDataset tars or a data set of the hub."
        ) from error


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it was raised from."""
    at: BaseException | None = error
    while at is not None:
        yield at
        at = at.__cause__


def cause_of(error: BaseException) -> str:
    """What an error says beyond that there was one, else what the one that it was raised from says."""
    for one in causes(error):
        if words := " ".join(str(one).replace(GENERATING, "").split()):
            return words[:200]
    return type(error).__name__


def chosen(splits: list[str], source: str, columns: Columns) -> str:
    """The split asked for, or the only one."""
    if columns.split in splits:
        return columns.split
    names = sorted(map(str, splits))
    if len(names) == 1 and columns.split == Columns().split:
        return names[0]
    raise SaevxError(f"{source} has the splits {', '.join(names)}, not {columns.split}: choose with --split.")


# ---- its records


def listing(dataset: Any, name: str, folder: Path, files: list[Path] | None, columns: Columns) -> Listing:
    """
    Args:
        files: that hold the images; None are the Arrow files themselves.
    """
    schema = dataset.features.arrow_schema
    held = [field.name for field in schema if holds_bytes(field.type)]
    column = image_column(schema.names, held, name, columns)
    if files is None:
        files = sorted(Path(file["filename"]) for file in dataset.cache_files)
    others = [one for one in schema.names if one not in held and one != column]
    records = partial(table_records, dataset, name, column, others)
    return Listing(name, records, (column,) if column else (), folder, files, list(schema.names))


def image_column(names: list[str], held: list[str], source: str, columns: Columns) -> str | None:
    """The column with the images: the one asked for, one of bytes, or one of a usual name.

    Args:
        held: columns of bytes.

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
    preferred = sorted(held, key=lambda name: (name.lower() not in NAMES, names.index(name)))
    usual = [name for usual in NAMES for name in names if name.lower() == usual]
    return next(iter([*preferred, *usual]), None)


def table_records(dataset: Any, name: str, column: str | None, others: list[str]) -> Records:
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
