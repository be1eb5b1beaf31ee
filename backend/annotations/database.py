"""The database that annotations lie in: an SQLite file beside the store, or any database that SQLAlchemy reaches."""

import datetime as dt
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, RowMapping, create_engine, event, func, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from backend.annotations import tables as t
from precompute.errors import SaevxError, first_line

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 20_250_217
"""Number of PostgreSQL's lock for writers: versions become visible in the order of their ids."""
WAIT_S = 5.0


class UnavailableError(SaevxError):
    """The database cannot be read or written now; one sentence says why."""


class ReadOnlyError(UnavailableError):
    """This server may not write the database."""


@dataclass(frozen=True)
class Entry:
    """One version of one thing."""

    kind: str
    key: str
    version: int = 0
    """0: nothing was ever written."""
    author: str = ""
    at: str = ""
    """Time in UTC, as ISO 8601."""
    body: Mapping[str, Any] | None = None
    """None where it was deleted, or never written."""
    id: int = 0


def default_url(store: Path) -> URL:
    """The address of the SQLite file beside a store."""
    folder = store.absolute()
    return URL.create("sqlite", database=str(folder.parent / f"{folder.name}.annotations.sqlite"))


class Writes(Protocol):
    """How the processes of one server tell each other that something was written."""

    def add(self) -> None: ...
    def count(self) -> int: ...


class Database:
    """A database of annotations, opened and brought up to date at its first use.

    Args:
        url: as SQLAlchemy takes it; a password in it is in no message.
        read_only: nothing is written, whatever the file system allows.
        writes: counts the changes of all processes of this server; None where it is one.
    """

    def __init__(self, url: URL | str, read_only: bool = False, writes: Writes | None = None) -> None:
        self.read_only, self.writes = read_only, writes
        try:
            self.url = make_url(url)
            if self.url.drivername == "postgresql":
                self.url = self.url.set(drivername="postgresql+psycopg")
            self.engine = self._engine()
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
            raise SaevxError(_wrong_address(error)) from error
        in_memory = self.url.database in (None, "", ":memory:") or self.url.query.get("mode") == "memory"
        if self.url.get_backend_name() == "sqlite" and in_memory:
            raise SaevxError(
                "The value of --annotations names no file, so nothing would be kept: give sqlite:////FILE."
            )
        self._ready = False
        self._lock = threading.Lock()

    def _engine(self) -> Engine:
        if self.url.get_backend_name() != "sqlite":
            waits = {"connect_timeout": int(WAIT_S)} if self.url.get_backend_name() == "postgresql" else {}
            return create_engine(self.url, pool_pre_ping=True, pool_size=4, connect_args=waits)
        engine = create_engine(self.url, connect_args={"timeout": WAIT_S})

        @event.listens_for(engine, "connect")
        def keep_every_commit(connection: Any, _: object) -> None:
            connection.execute("PRAGMA synchronous = FULL")

        return engine

    @property
    def file(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(self.url.database) if self.url.get_backend_name() == "sqlite" and self.url.database else None

    def exists(self) -> bool:
        """Whether there may be anything to read: the file beside a store is made when something is written."""
        return self.file is None or self.file.exists()

    def why_read_only(self) -> str | None:
        """One sentence why nothing can be written, as far as options and the file system tell; None where it can."""
        file = self.file
        if self.read_only:
            return "Annotations are read-only: this server was started with --read-only."
        if file is None:
            return None
        target = file if file.exists() else file.parent
        if os.access(target, os.W_OK) and os.access(file.parent, os.W_OK) and file.parent.is_dir():
            return None
        return (
            f"Annotations are read-only: {file} cannot be written. Give --annotations the address of a database that "
            "can be written."
        )

    def check(self) -> None:
        """Reach it now, if it is more than a file that may be missing. Raises UnavailableError."""
        if self.exists():
            with self.reading():
                pass

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection. Raises UnavailableError."""
        with self._in_sentences():
            self._prepare()
            with self.engine.connect() as conn:
                yield conn

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, one at a time in PostgreSQL. IntegrityError passes through. Raises UnavailableError."""
        with self._in_sentences():
            self._prepare()
            with self.engine.begin() as conn:
                self._lock_writers(conn)
                yield conn

    def _lock_writers(self, conn: Connection) -> None:
        if self.engine.dialect.name == "postgresql":
            conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})

    @contextmanager
    def _in_sentences(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            if reason := self.why_read_only():
                raise ReadOnlyError(reason) from error
            raise UnavailableError(
                f"The database of annotations cannot be used now ({_reason(error)}): check {self.url!r}."
            ) from error

    def _prepare(self) -> None:
        """Make the tables, or bring those of an older version up to date."""
        if self._ready and self.exists():
            return
        with self._lock:
            if self._ready and self.exists():
                return
            if self.file is not None and self.exists() and not self.file.is_file():
                raise UnavailableError(f"{self.file} is no file, so it is no database of annotations: name another.")
            self.engine.dispose()  # connections to a file that was deleted
            with self.engine.begin() as conn:
                self._lock_writers(conn)
                migrate(conn)
            self._ready = True

    def since(self, store: str, last: int) -> list[Entry]:
        """The versions of a store with ids above `last`, in their order."""
        with self.reading() as conn:
            rows = conn.execute(
                select(t.versions).where(t.versions.c.store == store, t.versions.c.id > last).order_by(t.versions.c.id)
            ).all()
        return [entry(row._mapping) for row in rows]

    def history(self, store: str, kind: str, key: str) -> list[Entry]:
        """Every version of one thing, the newest first."""
        c = t.versions.c
        query = select(t.versions).where(c.store == store, c.kind == kind, c.key == key).order_by(c.version.desc())
        with self.reading() as conn:
            return [entry(row._mapping) for row in conn.execute(query)]

    def remember(self, store: str, vectors: Mapping[int, bytes]) -> None:
        """Keep sketches of features' directions (carry.sketch) that are not there yet."""
        c = t.directions.c
        with self.writing() as conn:
            known_ids = conn.execute(select(c.feature).where(c.store == store, c.feature.in_(vectors))).scalars().all()
            if rows := [{"store": store, "feature": k, "vector": vectors[k]} for k in vectors.keys() - set(known_ids)]:
                conn.execute(t.directions.insert(), rows)

    def remembered(self, store: str) -> dict[int, bytes]:
        """The sketches of a store's features, by number."""
        c = t.directions.c
        with self.reading() as conn:
            rows = conn.execute(select(c.feature, c.vector).where(c.store == store)).all()
        return {int(feature): bytes(vector) for feature, vector in rows}

    def stores(self) -> dict[str, int]:
        """How many versions there are of each store, by content id."""
        c = t.versions.c
        with self.reading() as conn:
            rows = conn.execute(select(c.store, func.count()).group_by(c.store).order_by(func.max(c.id))).all()
        return {str(store): int(n) for store, n in rows}


def append(conn: Connection, store: str, entries: Sequence[Entry]) -> None:
    """Write versions. Raises IntegrityError where one of them exists."""
    if entries:
        conn.execute(t.versions.insert(), [
            {"store": store, "kind": entry.kind, "key": entry.key, "version": entry.version, "author": entry.author,
             "at": entry.at, "body": None if entry.body is None else dict(entry.body)} for entry in entries
        ])  # fmt: skip


def newest_entry(conn: Connection, store: str, kind: str, key: str) -> Entry:
    """The version that holds; version 0 where there is none."""
    c = t.versions.c
    query = select(t.versions).where(c.store == store, c.kind == kind, c.key == key).order_by(c.version.desc()).limit(1)
    row = conn.execute(query).first()
    return Entry(kind, key) if row is None else entry(row._mapping)


def entry(row: RowMapping) -> Entry:
    """A row of `versions`."""
    return Entry(**{str(name): value for name, value in row.items() if name != "store"})


def time_now() -> str:
    """This second in UTC."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def migrate(conn: Connection) -> None:
    """Bring the tables of a database to the newest revision.

    Raises:
        SaevxError: a newer version of saevx has changed them.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = conn
    head = ScriptDirectory.from_config(config).get_current_head()
    if inspect(conn).has_table("alembic_version"):
        revision = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if revision == head:
            return
        if revision is not None and revision > (head or ""):
            raise SaevxError("The database of annotations is of a newer version: update saevx.")
    command.upgrade(config, "head")


def _reason(error: SQLAlchemyError) -> str:
    return first_line(getattr(error, "orig", None) or error).rstrip(".")


def _wrong_address(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"The database needs the Python package {error.name}: for PostgreSQL, pip install 'saevx[postgres]'."
    return (
        "The value of --annotations is no address of a database: give one such as "
        "postgresql://user@host/name or sqlite:////folder/file.sqlite."
    )
