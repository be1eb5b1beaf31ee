"""How the reader queries SQLite: read-only, immutable, with a time limit; and the words of full text search."""

import base64
import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Engine,
    Executable,
    Row,
    Select,
    create_engine,
    event,
    false,
    func,
    select,
    text,
)
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.opening import COPY_OR_MAKE, Stamp, StoreUnreadable
from precompute.utils.text import query_words, search_units
from precompute.utils.types import Array

TIME_LIMIT_S = 5.0
UNREADABLE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
UNDECODABLE = "Could not decode to UTF-8"
"""Begins the driver's own error, which has no code, about a text whose bytes are damaged."""
STOPPED = "The query took too long and was stopped: narrow it with a filter."
_IDS_AT_ONCE = 900
_OPS_PER_CHECK = 10_000  # SQLite virtual-machine steps between two looks at the clock


class Page(NamedTuple):
    """One page of a list: `items`, the length of the whole list, and the cursor of the next page or None."""

    items: list[dict[str, Any]]
    total: int
    next: str | None


def open_engine(path: Path, time_limit_s: float = TIME_LIMIT_S) -> Engine:
    """Engine over a finished store.sqlite; a query beyond `time_limit_s` is interrupted. When another file has taken
    its place, no new connection is made."""
    stamp = Stamp.from_file(path)

    def connect() -> sqlite3.Connection:
        if stamp is None or Stamp.from_file(path) != stamp:
            raise changed_error(path)
        uri = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        return sqlite3.connect(uri, uri=True, check_same_thread=False, cached_statements=256)

    connections = PlainConnections(connect)
    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=32,
        execution_options={"time_limit_s": time_limit_s, "plain": connections},
    )
    event.listen(engine, "engine_disposed", lambda _: connections.close())

    @event.listens_for(engine, "before_cursor_execute")
    def start_clock(conn: Any, *_: object) -> None:
        _limit(conn.connection.driver_connection, time_limit_s)

    return engine


class PlainConnections:
    """The driver's connections for `fetch_plain`: to borrow one of SQLAlchemy's takes as long as a small query."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._idle: deque[sqlite3.Connection] = deque()

    @contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile. Raises StoreUnreadable as `open_engine` says."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().close()


def _limit(connection: Any, seconds: float) -> None:
    """From now on, interrupts any statement on this driver's connection that runs longer than that."""
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, _OPS_PER_CHECK)


def changed_error(path: Path) -> StoreUnreadable:
    return StoreUnreadable(
        f"{path} was moved, deleted or made again since the store was opened: load the page again, or in Python "
        "open the store again."
    )


@contextmanager
def in_sentences() -> Iterator[None]:
    """Turns SQLite's errors about a file that it cannot read, or a query that took too long, into a SaevxError."""
    try:
        yield
    except (sqlite3.DatabaseError, DatabaseError) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the upper bits say more than is needed
        if code == sqlite3.SQLITE_INTERRUPT:
            raise SaevxError(STOPPED) from error
        if code in UNREADABLE or UNDECODABLE in str(cause):
            raise StoreUnreadable(f"The database of this store cannot be read ({cause}): {COPY_OR_MAKE}") from error
        raise


def fetch(engine: Engine, query: Executable, parameters: Any = None) -> Sequence[Row[Any]]:
    """All rows.

    Raises:
        SaevxError: the query took longer than the time limit.
        StoreUnreadable: the database is damaged, or another one lies in its place.
    """
    with in_sentences(), engine.connect() as conn:
        return conn.execute(query, parameters).all()


def fetch_plain(engine: Engine, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """All rows of a statement, as the driver's tuples, JSON as text: for the queries of every page, where SQLAlchemy's
    query and row objects would take several times as long as SQLite itself.

    Raises:
        SaevxError, StoreUnreadable: as `fetch`.
    """
    options = engine.get_execution_options()
    with in_sentences(), options["plain"].borrow() as connection:
        _limit(connection, options["time_limit_s"])
        return list(connection.execute(sql, parameters))


def fetch_of(engine: Engine, sql: str, ids: Iterable[int | str], *parameters: Any) -> list[Any]:
    """`fetch_plain` of a statement in which `IN (?)` stands for all these ids; parameters after it are in `parameters`.

    They are taken sorted, some hundred at a time: older SQLite versions have at most 999 parameters."""
    unique_ids: list[Any] = sorted({i if isinstance(i, str) else int(i) for i in ids})  # sqlite3 takes no NumPy number
    rows: list[Any] = []
    for low in range(0, len(unique_ids), _IDS_AT_ONCE):
        chunk = unique_ids[low : low + _IDS_AT_ONCE]
        rows += fetch_plain(engine, sql.replace("IN (?)", f"IN ({', '.join('?' * len(chunk))})"), (*chunk, *parameters))
    return rows


class PlainQuery:
    """A SELECT of fixed columns that pages run often, as plain SQL; JSON columns come out parsed."""

    def __init__(self, columns: Iterable[Column[Any]]) -> None:
        columns = list(columns)
        self.names = [column.name for column in columns]
        self.json = [column.name for column in columns if isinstance(column.type, JSON)]
        self.sql = ", ".join(f"{column.table.name}.{column.name}" for column in columns)

    def fetch(self, engine: Engine, tables: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of `SELECT … FROM {tables}` as dicts; `tables` holds WHERE, ORDER BY and LIMIT too."""
        return self._items(fetch_plain(engine, f"SELECT {self.sql} FROM {tables}", parameters))

    def fetch_of(self, engine: Engine, tables: str, ids: Iterable[int | str], *parameters: Any) -> list[dict[str, Any]]:
        """As `fetch`, of these ids: as the function `fetch_of`."""
        return self._items(fetch_of(engine, f"SELECT {self.sql} FROM {tables}", ids, *parameters))

    def _items(self, rows: Iterable[Any]) -> list[dict[str, Any]]:
        items = [dict(zip(self.names, row, strict=True)) for row in rows]
        for item in items:
            for name in self.json:
                if item[name] is not None:
                    item[name] = json.loads(item[name])
        return items


@contextmanager
def without_time_limit(engine: Engine) -> Iterator[Any]:
    """The driver's own connection, without a time limit: for columns of all samples, of which SQLAlchemy's row objects
    would take longer than SQLite itself."""
    with in_sentences(), engine.connect() as conn:
        connection = conn.connection.driver_connection
        assert connection is not None
        connection.set_progress_handler(None, 0)
        yield connection


def scalars(engine: Engine, query: Select[Any]) -> Iterator[Any]:
    """The one column of many rows, as the driver gives them."""
    statement = query.compile(engine, compile_kwargs={"literal_binds": True})
    with without_time_limit(engine) as connection:
        yield from (value for (value,) in connection.execute(str(statement)))


def column_values(engine: Engine, column: str, n: int) -> Array:
    """float64 [n]: a column of the table `samples` by row, NaN for null. SQLite reads it from the column's index where
    it has one."""
    query = f"SELECT row, {column} FROM samples WHERE {column} IS NOT NULL"
    with without_time_limit(engine) as connection:
        pairs = np.fromiter(connection.execute(query), [("row", np.int64), ("value", np.float64)])
    values = np.full(n, np.nan)
    values[pairs["row"]] = pairs["value"]
    return values


def encode_cursor(tag: str, value: Any, key: int) -> str:
    """The place after (value, key) in the list that `tag` stands for; see `Core.list_tag`."""
    return base64.urlsafe_b64encode(json.dumps([tag, value, key]).encode()).decode().rstrip("=")


def decode_cursor(tag: str, cursor: str) -> tuple[Any, int]:
    """(value, key) of a cursor of the same list.

    Raises:
        SaevxError: the cursor is of another list, order, filter or store, or is no cursor.
    """
    try:
        cursor_tag, value, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if cursor_tag != tag or not (value is None or isinstance(value, int | float | str)):
            raise TypeError
        return value, int(key)
    except (ValueError, TypeError, RecursionError) as error:
        raise SaevxError(
            "This cursor belongs to another list, order, filter or store: start again without `cursor`."
        ) from error


def page_start(tag: str, cursor: str | None) -> int:
    """Where a page of a list begins whose cursors are `encode_cursor(tag, None, start)`.

    Raises:
        SaevxError: as `decode_cursor`.
    """
    return max(0, decode_cursor(tag, cursor)[1]) if cursor else 0


def next_cursor(tag: str, end: int, n: int) -> str | None:
    """The cursor after a page that ends before entry `end` of n, for `page_start`; None after the last page."""
    return encode_cursor(tag, None, end) if end < n else None


def match_pieces(q: str, *, prefix: bool = True) -> list[str]:
    """Each word of a search as an FTS5 query, whatever characters it holds: a quoted string of search units, or several
    with OR between; the last one is a prefix where `prefix`."""
    words = query_words(q)
    strings = [[_phrase(string) for string in word] for word in words]
    if strings and prefix:
        strings[-1] = [form for string in words[-1] for form in _beginnings(string)]
    return [forms[0] if len(forms) == 1 else f"({' OR '.join(forms)})" for forms in strings]


def _phrase(string: list[str]) -> str:
    return f'"{" ".join(string).replace(chr(34), chr(34) * 2)}"'


def _beginnings(string: list[str]) -> list[str]:
    """FTS5 queries, of which a text must have one, for a string whose last unit may be the beginning of a longer one.

    FTS5 stems a word before it looks for what begins so: `bus*` is bu*, which is butterfly too. A word that the stemmer
    changes is looked for whole, and with each further letter or digit that leaves it as it is: "bus", "busi"*, …"""
    *first_units, last = string
    longer = [last + sign for sign in ascii_lowercase + digits]
    stem_of = _stems(last, *longer)
    if stem_of.get(last, last) == last:
        return [_phrase(string) + "*"]
    unstemmed_units = [unit for unit in longer if stem_of.get(unit, "").startswith(last)]
    return [_phrase(string), *(f"{_phrase([*first_units, unit])}*" for unit in unstemmed_units)]


@lru_cache(maxsize=1024)
def _stems(*units: str) -> dict[str, str]:
    """What the full-text tables hold for each search unit: itself or its stem."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE VIRTUAL TABLE units USING fts5(unit, content='', {s.TOKENIZE})")
        db.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(units, 'instance')")
        db.executemany("INSERT INTO units (rowid, unit) VALUES (?, ?)", enumerate(units))
        return {units[at]: stem for at, stem in db.execute("SELECT doc, term FROM stems")}


def match_words(q: str, *, join: str = " AND ", prefix: bool = True) -> str:
    """`match_pieces` as one query: with `join` " AND " all words must be there, with " OR " one; "" without words."""
    return join.join(match_pieces(q, prefix=prefix))


def has_words(key: Column[Any], table: str, q: str) -> ColumnElement[bool]:
    """The condition that the row of `key` has these words in the full-text table; none has where `q` has no words."""
    if not (match := match_words(q)):
        return false()
    rowids = text(f"SELECT rowid FROM {table} WHERE {table} MATCH :q").bindparams(q=match)
    return key.in_(rowids.columns(key).scalar_subquery())


def is_one_of(key: Column[Any], ids: Iterable[int]) -> ColumnElement[bool]:
    """The condition that `key` is one of these numbers, as one parameter: an area of the map may hold more features
    than SQLite takes parameters."""
    id_table = func.json_each(json.dumps([int(i) for i in ids])).table_valued("value")
    return key.in_(select(id_table.c.value))


def indexed_words(words: str) -> str:
    """A text as the full-text tables store it, for `match_words`: its search units with blanks between."""
    return " ".join(search_units(words))
