"""Pages of a list in the order of a column, which are fast at any depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Engine, Row, Select, func, literal_column, select, tuple_

from precompute.errors import SaevxError
from precompute.store.sql import decode_cursor, encode_cursor, fetch


@dataclass(frozen=True)
class KeysetList:
    """A list of rows in the order (by, key), either way; rows where `by` is null come last in both."""

    query: Select[Any]
    by: Column[Any]
    key: Column[Any]
    where: list[ColumnElement[bool]]
    tag: str
    """What the list's cursors carry, so that those of another list are refused."""
    n: int
    """Rows of the table."""
    total: int | None
    """Length of the whole list, None where it must be counted: with a million rows that takes longer than a page."""


def keyset_page(
    engine: Engine, rows_of: KeysetList, *, order: str, limit: int, cursor: str | None
) -> tuple[Sequence[Row[Any]], int, str | None]:
    """One page of a list.

    A page begins after the last row of the page before, whose (by, key) is in the cursor. SQLite finds that place in an
    index, so a page deep in a list is as fast as the first one; OFFSET would read all rows before it.

    Args:
        order: "asc" or "desc".
        cursor: as a former page returned it.

    Returns:
        rows, length of the whole list, next cursor or None.
    """
    if order not in ("asc", "desc"):
        raise SaevxError(f"Unknown order {order!r}: use asc or desc.")
    limit = max(1, min(int(limit), 1000))
    by, key, where, tag, total = rows_of.by, rows_of.key, rows_of.where, rows_of.tag, rows_of.total
    query = rows_of.query.where(*where)
    if total is None:
        total = int(fetch(engine, select(func.count()).select_from(key.table).where(*where))[0][0])
    start = decode_cursor(tag, cursor) if cursor else None
    if total == 0:  # an index would be walked to its end
        return [], 0, None
    rows: list[Row[Any]] = []
    # Rows with a value, then those without: in each of the two SQLite walks an index instead of sorting.
    if start is None or start[0] is not None:
        descending = order == "desc"
        past_start = [] if start is None else [_is_after(start, by, key, descending)]
        # That walk passes n · limit / total rows, unless a filter bounds it. Where sorting the whole list reads fewer,
        # the plus keeps SQLite from walking the index.
        is_bounded = any(getattr(condition, "left", None) is by for condition in where)
        is_sparse = bool(where) and not is_bounded and total * total < rows_of.n * limit
        first: Any = literal_column(f"+{by.table.name}.{by.name}") if is_sparse else by
        keys = [key] if by is key else [first, key]
        in_order = query.where(by.is_not(None), *past_start).order_by(*(c.desc() if descending else c for c in keys))
        rows += fetch(engine, in_order.limit(limit + 1))
    if len(rows) <= limit and by is not key:
        past = [key > start[1]] if start is not None and start[0] is None else []
        rows += fetch(engine, query.where(by.is_(None), *past).order_by(key).limit(limit + 1 - len(rows)))
    last = rows[limit - 1]._mapping if len(rows) > limit else None
    return rows[:limit], total, encode_cursor(tag, last[by], last[key]) if last is not None else None


def _is_after(start: tuple[Any, int], by: Column[Any], key: Column[Any], descending: bool) -> ColumnElement[bool]:
    """Whether a row comes after (value, key) in the order (by, key)."""
    if by is key:
        return key < start[1] if descending else key > start[1]
    return tuple_(by, key) < start if descending else tuple_(by, key) > start
