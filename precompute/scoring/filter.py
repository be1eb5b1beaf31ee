"""Keep the best x % of the pairs of a store or of a file of `saevx score`, without those that a flag excludes: the
filtered set for alignment.
"""

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from sqlalchemy import select

from precompute.errors import SaevxError
from precompute.scoring.facility_location import representative_items
from precompute.scoring.score_file import as_line, drop_fields, rows_of
from precompute.store import schema as s
from precompute.store.quality import best_rows_of, check_keep, flag_and_limit, n_kept
from precompute.store.reader import Store
from precompute.store.sql import fetch, fetch_plain
from precompute.utils.types import Array

Format = Literal["ids", "jsonl"]
_CHUNK = 500
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""Characters at which programs that read lines may end one: those of `str.splitlines`."""


def kept_rows(
    store: Store,
    *,
    by: str | None,
    keep: float,
    flags: Sequence[str] = (),
    require: Sequence[str] = (),
    within: Array | None = None,
) -> Array:
    """`best_rows`, also by the names of `SELECTIONS`, which look at the whole set: int64 [K], rising.

    `within`: bool [N], only these samples."""
    if by not in s.SELECTIONS:
        return store.quality.best_rows(by=by, keep=keep, flags=flags, require=require, within=within)
    check_keep(keep)
    rows = np.flatnonzero(store.quality.matching(flags, require, within))
    return rows[representative_items(store.search.vectors_of(rows), n_kept(len(rows), keep))]


def filter_store(
    store: Store, *, by: str, keep: float, flags: Sequence[str] = (), format: Format = "jsonl"
) -> Iterator[str]:
    """Lines of the kept samples in the data's order, each ending in a newline.

    Args:
        format: "ids" gives one sample id a line; "jsonl" one object with the row's original fields, `id`, `text` and
            the score under its name, if `by` is one, which `datasets.load_dataset("json", …)` loads back.

    Raises:
        SaevxError: as `kept_rows` and `lines_of`.
    """
    return lines_of(store, kept_rows(store, by=by, keep=keep, flags=flags), by, format)


def lines_of(store: Store, rows: Array, by: str | None, format: Format) -> Iterator[str]:
    """Lines of these rows. Raises SaevxError where an id has a line break and `format` is ids."""
    if format == "ids":
        query = "SELECT row, sample_id FROM samples WHERE sample_id GLOB ?"
        bad_ids = dict(fetch_plain(store.engine, query, (f"*[{_LINE_ENDS}]*",)))
        for row in bad_ids.keys() & set(rows.tolist() if bad_ids else ()):
            _check_one_line(bad_ids[row])
    return _lines(store, rows, by, format)


def _check_one_line(sample_id: str) -> None:
    if not set(_LINE_ENDS).isdisjoint(sample_id):
        raise SaevxError(
            f"The id {sample_id!r} has a line break, so one id a line cannot be read back: choose format jsonl."
        )


def _lines(store: Store, rows: Array, by: str | None, format: Format) -> Iterator[str]:
    for items in items_of(store, rows, by):
        for item in items:
            if format == "ids":
                yield f"{item['id']}\n"
            else:
                score = {by: item[by]} if by in item else {}
                yield as_line({"id": item["id"], "text": item["text"], **item["fields"], **score})


def items_of(store: Store, rows: Array, by: str | None) -> Iterator[list[dict[str, Any]]]:
    """These rows, 500 at a time: `id`, `text`, the row's other `fields`, and the score under its name, if it is one."""
    c = s.samples.c
    score = [] if by is None or by not in s.SCORES else [c[s.score_column(by)].label("score")]
    columns = [c.row, c.sample_id, c.text, c.extra, *score]
    for start in range(0, len(rows), _CHUNK):
        chunk = [int(row) for row in rows[start : start + _CHUNK]]
        yield [
            {
                "id": r.sample_id,
                "text": r.text,
                "fields": drop_fields(r.extra, "id", "text"),
                **({str(by): r.score} if score else {}),
            }
            for r in fetch(store.engine, select(*columns).where(c.row.in_(chunk)).order_by(c.row))
        ]


def filter_file(
    path: Path, *, by: str, keep: float, flags: Sequence[str] = (), format: Format = "jsonl"
) -> Iterator[str]:
    """As `filter_store`, from a file of `saevx score`; one number a pair is all that is held in memory.

    Raises:
        SaevxError: as `best_rows`, or the file is none of `saevx score`.
    """
    check_keep(keep)
    if by in s.SELECTIONS:
        raise SaevxError(f"{by} compares the samples of a store, and {path} has scores alone: give a store.")
    if by not in s.SCORES:
        raise SaevxError(f"Unknown score {by!r}: use one of {', '.join(s.SCORES)}.")
    column = s.score_column(by)
    limits = [flag_and_limit(option) for option in flags]
    scores, is_allowed = array("d"), bytearray()
    for item in rows_of(path, (column, "flags", *(s.flag_column(name) for name, _ in limits))):
        scores.append(np.nan if item[column] is None else item[column])
        is_allowed.append(not any(_has_flag(item, name, limit) for name, limit in limits))
    score = np.asarray(scores)
    if np.isnan(score).all():
        raise SaevxError(f"{path} has no {by!r} score: run `saevx score` with it, or choose another.")
    passes = np.zeros(len(score), dtype=bool)
    passes[best_rows_of(score, np.frombuffer(bytes(is_allowed), dtype=bool), keep)] = True
    for is_kept, item in zip(passes, rows_of(path, ("id", "fields", column)), strict=True):
        if is_kept and format == "ids":
            _check_one_line(item["id"])
            yield f"{item['id']}\n"
        elif is_kept:
            yield as_line({"id": item["id"], **drop_fields(item["fields"], "id"), by: item[column]})


def _has_flag(item: dict[str, Any], name: str, limit: float | None) -> bool:
    """Is the flag raised: by the store's own threshold where `limit` is None, else above `limit`?"""
    if limit is None:
        return name in item["flags"]
    value = item[s.flag_column(name)]
    return value is not None and value > limit
