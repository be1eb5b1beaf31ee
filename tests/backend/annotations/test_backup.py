"""What docs/deploy.md says of backup and restore: with the databases' own programs, while people write."""

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backend.annotations.book import Annotations
from backend.annotations.database import Database
from tests.helpers.postgres import program

ID = "a" * 32


def write(url: str, numbers: range) -> Annotations:
    """Labels of these features, each changed once."""
    book = Annotations(Database(url), ID)
    for k in numbers:
        for label in ("first", "“second” 🐕"):
            note = {"label": f"{label} {k}", "note": "", "tags": ["pet"], "reviewed": False}
            book.put("feature", k, note, author="Ann", version=None)
    return book


def history(url: str) -> dict[str, list[Any]]:
    """Every version of everything."""
    book = Annotations(Database(url), ID)
    book.refresh()
    return {one.key: book.history("feature", one.key) for one in book.entries("feature")}


def test_sqlite(tmp_path: Path) -> None:
    file, backup = tmp_path / "store.annotations.sqlite", tmp_path / "backup.sqlite"
    url = f"sqlite:///{file}"
    book = write(url, range(20))
    before = history(url)
    with closing(sqlite3.connect(file)) as conn:
        conn.execute(f"VACUUM INTO '{backup}'")  # what the program sqlite3 does, with the server still open
    write(url, range(20, 25))
    assert book.database.exists() and history(url) != before
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    backup.rename(file)
    assert history(url) == before and len(before) == 20 and all(len(one) == 2 for one in before.values())
    write(url, range(30, 31))  # it can be written again


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
def test_postgres(url: str, tmp_path: Path) -> None:
    dump = tmp_path / "backup.dump"
    write(url, range(20))
    before = history(url)
    subprocess.run([program("pg_dump"), "--format=custom", f"--file={dump}", url], check=True)
    write(url, range(5))  # further versions of what is there
    write(url, range(20, 25))
    assert history(url) != before
    subprocess.run([program("pg_restore"), "--clean", "--if-exists", f"--dbname={url}", dump], check=True)
    assert history(url) == before and len(before) == 20
    write(url, range(30, 31))
    assert len(history(url)) == 21
