"""What is wrong with the files of a table. The files themselves are looked at: the words of the library that has
refused them change with its version."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

SEPARATORS = {".csv": ",", ".tsv": "\t"}
SHOWN = 200
"""Characters of a list of columns."""


def fault_of(files: Sequence[Path]) -> str | None:
    """A sentence about the files of a table that was refused; None where nothing is found.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    suffix = files[0].suffix.lower()
    if suffix in SEPARATORS:
        return next((fault for file in files if (fault := fault_of_rows(file, SEPARATORS[suffix]))), None)
    return fault_of_types(files) if suffix == ".parquet" else None


def csv_header(file: Path, separator: str) -> list[str]:
    """The names of a CSV's columns, as its first line has them."""
    return next(cells for _, cells in csv_rows(file, separator))


def csv_rows(file: Path, separator: str, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Rows of a CSV with the line in which each ends; empty lines are left out."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter=separator, strict=strict)
        yield from ((reader.line_num, cells) for cells in reader if cells)


def fault_of_rows(file: Path, separator: str) -> str | None:
    """What is wrong with a CSV whose header can be read."""
    n_columns: int | None = None
    longer: list[tuple[bool, int]] = []
    end = 0
    try:
        for line, cells in csv_rows(file, separator, strict=True):
            n_columns = len(cells) if n_columns is None else n_columns
            if len(cells) > n_columns:
                longer.append((not any(cells[n_columns:]), line))
                if any(cells[n_columns:]):
                    break
            end = line
    except csv.Error as error:
        return f"{file} cannot be read behind line {end} ({error}): close every quote, and double those inside a text."
    if not longer:
        return None
    _, line = min(longer)  # one whose cells too many are empty may be right
    return (
        f"{file} has a row with more cells than there are columns (line {line}): put texts that hold a separator in "
        "quotes."
    )


def difference_of(file: Path, columns: Sequence[str], other: Path, other_columns: Sequence[str]) -> str:
    """A sentence about two files of one table that have other columns."""
    return (
        f"{file} has the columns {list_columns(columns)}, and {other} {list_columns(other_columns)}: give them the "
        "same columns, or name the files to read as DATA."
    )


def list_columns(columns: Sequence[str]) -> str:
    text = ", ".join(columns)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def fault_of_types(files: Sequence[Path]) -> str | None:
    """What is wrong with Parquet files that are one table: the first says which columns there are, of which type."""
    from pyarrow import parquet

    first = parquet.read_schema(files[0])
    for file in files[1:]:
        schema = parquet.read_schema(file)
        if not set(schema.names) <= set(first.names):
            return difference_of(files[0], first.names, file, schema.names)
        for field in schema:
            if field.type != first.field(field.name).type:
                return (
                    f"{files[0]} has {first.field(field.name).type} in its column {field.name}, and {file} "
                    f"{field.type}: give them the same type, or name the files to read as DATA."
                )
    return None
