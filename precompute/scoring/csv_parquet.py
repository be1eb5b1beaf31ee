"""Rows of a filtered set as a table, CSV or Parquet, made while it is sent; and the name of its file."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from precompute.scoring.filter import items_of
from precompute.store.quality import flag_and_limit
from precompute.store.reader import Store
from precompute.store.schema import FLAGS, SCORES
from precompute.store.sql import fetch_plain
from precompute.utils.text import ascii_name
from precompute.utils.types import Array

MAX_NAMED = 3
"""Flags that a file's name lists; of more it says how many."""
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a cell begins that a spreadsheet may take for a formula (OWASP, *CSV Injection*), in wide signs too."""


def columns_of(store: Store, by: str | None) -> list[str]:
    """`id`, `text`, the fields that any row of the data has, by name, and the score."""
    fields = fetch_plain(store.engine, "SELECT DISTINCT j.key FROM samples, json_each(samples.extra) j ORDER BY 1")
    other_names = [name for (name,) in fields if name not in ("id", "text", by)]
    return ["id", "text", *other_names, *([by] if by in SCORES else [])]


def rows_in(store: Store, rows: Array, by: str | None, columns: list[str]) -> Iterator[list[list[Any]]]:
    """Lists of rows in the order of `columns`; a field that is no text is written as JSON."""
    for items in items_of(store, rows, by):
        yield [[_cell(item, name) for name in columns] for item in items]


def _cell(item: dict[str, Any], name: str) -> Any:
    if name in item and name != "fields":
        return item[name]
    value = item["fields"].get(name)
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def csv_of(store: Store, rows: Array, by: str | None) -> Iterator[str]:
    """The table as CSV, a chunk at a time."""
    columns = columns_of(store, by)
    return csv_parts(columns, rows_in(store, rows, by, columns))


def csv_parts(columns: Sequence[str], chunks: Iterable[Iterable[Sequence[Any]]]) -> Iterator[str]:
    """CSV of the rows of all chunks, a chunk at a time. A text that a spreadsheet would compute begins with `'`."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(plain_cell, columns))
    for rows in chunks:
        writer.writerows(map(plain_cell, row) for row in rows)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()  # of no rows, the header


def plain_cell(value: Any) -> Any:
    """The value, with `'` before a text that begins as a formula does; numbers as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


class _Sent(io.RawIOBase):
    """A file that is sent while it is written."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        self.length += len(self.parts[-1])
        return len(self.parts[-1])

    def tell(self) -> int:
        return self.length

    def take(self) -> bytes:
        """What was written since the last call."""
        data, self.parts = b"".join(self.parts), []
        return data


def parquet_of(store: Store, rows: Array, by: str | None) -> Iterator[bytes]:
    """The table as Parquet, a row group a chunk; the score is a number, all else text."""
    columns = columns_of(store, by)
    types = {name: "float64" if name == by else "string" for name in columns}
    return parquet_parts(types, rows_in(store, rows, by, columns))


def parquet_parts(types: Mapping[str, str], chunks: Iterable[Iterable[Sequence[Any]]]) -> Iterator[bytes]:
    """Parquet of the rows of all chunks, a row group a chunk.

    Args:
        types: Arrow's name of each column's type, in the order of a row.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in types.items()])
    file = _Sent()
    with parquet.ParquetWriter(pa.PythonFile(file, "w"), schema) as writer:
        for rows in chunks:
            columns = list(zip(*rows, strict=True)) or [()] * len(schema)
            arrays = [pa.array(values, kind) for values, kind in zip(columns, schema.types, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield file.take()
    yield file.take()


def file_stem(
    store: Store,
    *,
    by: str | None,
    keep: float,
    flags: Sequence[str] = (),
    require: Sequence[str] = (),
    marks: Sequence[str] = (),
) -> str:
    """What the set is, as a file's name without its ending: `demo-not-mismatch-0.991`, `demo-pooled-cosine-50`; `marks`
    are words for what people marked."""
    parts = [ascii_name(str(store.manifest["name"]))]
    parts += _flags_in_words(store, require)
    if flags:
        parts += ["not", *_flags_in_words(store, flags)]
    parts += marks
    if by is not None:
        parts += [by, f"{keep:g}"]
    return "-".join(parts)


def _flags_in_words(store: Store, options: Sequence[str]) -> list[str]:
    if set(options) == set(FLAGS):
        return ["flagged"]
    if len(options) > MAX_NAMED:
        return [f"{len(options)}-flags"]
    limits = [flag_and_limit(option) for option in options]
    return [f"{name}-{store.quality.flag(name)['threshold'] if limit is None else limit:.3g}" for name, limit in limits]
