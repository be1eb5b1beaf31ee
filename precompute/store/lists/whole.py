"""A whole list, some thousand rows at a time: for exports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Engine, Row

from precompute.store.sql import KeysetList, in_sentences

CHUNK = 2000
Rows = Sequence[Row[Any]]


def whole_list(engine: Engine, rows_of: KeysetList, order: str) -> Iterator[Rows]:
    """All rows in the order of `keyset_page`, never held together. An export may take longer than a page."""
    by, key, query = rows_of.by, rows_of.key, rows_of.query.where(*rows_of.where)
    down = [column.desc() if order == "desc" else column for column in ([key] if by is key else [by, key])]
    queries = [query.where(by.is_not(None)).order_by(*down)]
    if by is not key:
        queries.append(query.where(by.is_(None)).order_by(key))
    with in_sentences(), engine.connect() as conn:
        raw = conn.connection.driver_connection
        assert raw is not None
        for one in queries:
            result = conn.execution_options(yield_per=CHUNK).execute(one)
            raw.set_progress_handler(None, 0)
            yield from result.partitions()
