"""The file of `saevx score`, one row a pair: how it is written from shards and read back. Layout: docs/store.md.

JSONL and Parquet hold the same; where JSONL has the pair's own fields as an object, Parquet has them as JSON.
"""

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.utils.files import atomic_write
from precompute.utils.stats import spearman
from precompute.utils.types import Item

SUFFIXES = (".jsonl", ".parquet")
COUNTS = ("n_text", "n_image")
NUMBERS = (*map(s.score_column, s.SCORES), *map(s.flag_column, s.FLAGS))
COLUMNS = ("id", *COUNTS, *NUMBERS, "flags", "fields")
FOR_LENGTH = 100_000
"""Pairs, those with the smallest SHA-256 of the id, from which the rank correlation with length is taken."""
_CHUNK = 1000


def check_suffix(path: Path) -> None:
    """Raises SaevxError where the name does not say the format."""
    if path.suffix not in SUFFIXES:
        raise SaevxError(f"{path} does not say its format: end the name in .jsonl or .parquet.")


def as_line(item: Item) -> str:
    return json.dumps(item, ensure_ascii=False) + "\n"


def read_lines(path: Path) -> Iterator[Item]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def write(out: Path, shards: Iterable[Path], about: dict[str, str]) -> None:
    """The shards' rows as one file, shard by shard.

    Args:
        out: its suffix names the format.
        about: provenance, kept in the metadata of Parquet.
    """
    with atomic_write(out) as file:
        if out.suffix == ".jsonl":
            file.writelines(shard.read_bytes() for shard in shards)
        else:
            _write_parquet(file, shards, about)


def _write_parquet(file: IO[bytes], shards: Iterable[Path], about: dict[str, str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"id": pa.string(), "flags": pa.list_(pa.string()), "fields": pa.string()}
    kinds |= dict.fromkeys(COUNTS, pa.int32()) | dict.fromkeys(NUMBERS, pa.float64())
    schema = pa.schema([(name, kinds[name]) for name in COLUMNS], {"saevx": json.dumps(about)})
    with parquet.ParquetWriter(file, schema) as writer:
        for shard in shards:
            rows = [{**item, "fields": as_line(item["fields"]).strip()} for item in read_lines(shard)]
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema))


def rows_of(path: Path, columns: Iterable[str] = COLUMNS) -> Iterator[Item]:
    """Rows of a file of `saevx score`, in its order.

    Args:
        columns: those wanted; JSONL gives all.

    Raises:
        SaevxError: it is no such file.
    """
    check_suffix(path)
    names = list(columns)
    wrong = SaevxError(f"{path} is no file of `saevx score`: make one, or give a store.")
    if path.suffix == ".jsonl":
        try:
            for item in read_lines(path):
                if not isinstance(item, dict) or any(name not in item for name in names):
                    raise wrong
                yield item
        except ValueError as error:
            raise wrong from error
        return
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            if any(name not in file.schema_arrow.names for name in names):
                raise wrong
            for batch in file.iter_batches(_CHUNK, columns=names):
                for item in batch.to_pylist():
                    yield {**item, "fields": json.loads(item["fields"])} if "fields" in item else item
    except (pa.ArrowException, OSError) as error:
        raise wrong from error


def closing_lines(path: Path) -> list[str]:
    """Lines for a person: each score's mean and rank correlation with length, and how many pairs each flag
    marks. Memory does not grow with the file."""
    names = tuple(map(s.score_column, s.SCORES))
    total, count = np.zeros(len(names)), np.zeros(len(names), np.int64)
    n_flagged = dict.fromkeys(s.FLAGS, 0)
    sample: list[tuple[int, int, tuple[float, ...]]] = []  # a heap, the largest hash first
    n = 0
    for n, item in enumerate(rows_of(path, ("id", *COUNTS, *names, "flags")), 1):
        values = np.array([np.nan if item[name] is None else item[name] for name in names])
        is_known = ~np.isnan(values)
        total[is_known] += values[is_known]
        count += is_known
        for name in item["flags"]:
            n_flagged[name] += 1
        digest = -int.from_bytes(hashlib.sha256(item["id"].encode()).digest()[:8])
        entry = (digest, -n, (*values.tolist(), item["n_text"] + item["n_image"]))
        (heapq.heappush if len(sample) < FOR_LENGTH else heapq.heappushpop)(sample, entry)
    table = np.array([entry[2] for entry in sample])
    clause = "" if n <= FOR_LENGTH else f" (of {FOR_LENGTH} pairs)"
    lines = [f"{'score':<20}{'mean':>12}  rank correlation with length{clause}"]
    for i, name in enumerate(s.SCORES):
        if count[i]:
            rho = spearman(table[:, i], table[:, -1])
            lines.append(f"{name:<20}{total[i] / count[i]:>12.4g}  {'–' if rho is None else f'{rho:+.2f}'}")
    flags_text = ", ".join(f"{name} {m}" for name, m in n_flagged.items() if m)
    return [*lines, f"flagged: {flags_text or 'none'}"]


def drop_fields(fields: Item, *names: str) -> Item:
    """A row's own fields but those of a name that stands for something of the sample."""
    return {name: value for name, value in fields.items() if name not in names}
