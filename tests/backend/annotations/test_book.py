"""Versions, conflicts, history and search, against SQLite and a real PostgreSQL."""

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from backend.annotations.book import Annotations, ConflictError
from backend.annotations.database import Database, Entry, ReadOnlyError, UnavailableError, default_url, migrate
from backend.annotations.tables import metadata
from precompute.errors import SaevxError

both_databases = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)
HOSTILE = "<script>alert(1)</script> ' \" \\ % {{ x }} שלום 日本 🙂\n\t"


def book(url: str, store: str = "store") -> Annotations:
    return Annotations(Database(url), store)


def note(label: str = "", text: str = "", tags: tuple[str, ...] = (), reviewed: bool = False) -> dict[str, object]:
    return {"label": label, "note": text, "tags": list(tags), "reviewed": reviewed}


@both_databases
def test_what_is_written_is_there_in_another_process(url: str) -> None:
    one = book(url).put("feature", 7, note(HOSTILE, HOSTILE, (HOSTILE,)), author=HOSTILE, version=0)
    assert (one.version, one.author, one.key) == (1, HOSTILE, "7")
    other = book(url)
    other.refresh()
    assert other.get("feature", 7) == one and one.body == note(HOSTILE, HOSTILE, (HOSTILE,))
    assert other.get("feature", 8) == Entry("feature", "8")
    assert book(url, "another store").get("feature", 7).version == 0


@both_databases
def test_two_people_edit_one_label(url: str) -> None:
    ann, bob = book(url), book(url)
    ann.put("feature", 1, note("dog"), author="Ann", version=0)
    seen = 1  # by both
    ann.put("feature", 1, note("puppy"), author="Ann", version=seen)
    with pytest.raises(ConflictError, match="Ann changed this after you opened it") as conflict:
        bob.put("feature", 1, note("hound"), author="Bob", version=seen)
    assert conflict.value.current.body == note("puppy") and conflict.value.yours == note("hound")
    assert [one.author for one in bob.history("feature", 1)] == ["Ann", "Ann"], "nothing was overwritten"
    bob.put("feature", 1, note("hound"), author="Bob", version=conflict.value.current.version)
    history = ann.history("feature", 1)
    assert [(one.version, one.author, (one.body or {})["label"]) for one in history] == [
        (3, "Bob", "hound"),
        (2, "Ann", "puppy"),
        (1, "Ann", "dog"),
    ]
    bob.put("feature", 1, note("hound"), author="Bob", version=1)  # the same again is no change, and no conflict
    assert len(ann.history("feature", 1)) == 3


@both_databases
def test_many_writers_at_once_lose_nothing(url: str) -> None:
    book(url).put("list", "l", {"features": []}, author="", version=0)
    books = [book(url) for _ in range(4)]
    wrong: list[Exception] = []

    def add(writer: Annotations, first: int) -> None:
        try:
            for number in range(first, first + 10):
                writer.change(
                    "list", "l", lambda now, n=number: {"features": [*(now.body or {})["features"], n]}, author=""
                )
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=add, args=(one, 10 * i)) for i, one in enumerate(books)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    body = book(url).history("list", "l")[0].body
    assert body is not None and sorted(body["features"]) == list(range(40))
    for one in books:
        one.refresh()
        assert one.body("list", "l") == body


@both_databases
def test_deleting_and_taking_it_back(url: str) -> None:
    one = book(url)
    one.put("sample", "a/b", note("x", tags=("t",)), author="", version=0)
    assert one.keys("sample", tag="T") == ["a/b"] and one.tags("sample") == {"t": 1}
    one.put("sample", "a/b", None, author="", version=1)
    assert one.entries("sample") == [] and one.get("sample", "a/b").version == 2 and one.tags("sample") == {}
    other = book(url)
    other.refresh()
    assert other.entries("sample") == []
    one.put("sample", "a/b", one.history("sample", "a/b")[1].body, author="", version=2)
    assert one.body("sample", "a/b")["label"] == "x"


@both_databases
def test_the_tables_are_those_of_the_migrations(url: str) -> None:
    """What Alembic makes is what the code declares, and a second start changes nothing."""
    database = Database(url)
    database.check() if database.file is None else Annotations(database, "s").put(
        "filter", "f", {"a": 1}, author="", version=0
    )
    declared = {name: {c.name for c in table.columns} for name, table in metadata.tables.items()}
    here = inspect(database.engine)
    assert {name: {c["name"] for c in here.get_columns(name)} for name in declared} == declared
    assert [one["name"] for one in here.get_unique_constraints("versions")] == ["one_of_each_version"]
    assert "versions_of_store" in {one["name"] for one in here.get_indexes("versions")}
    with database.engine.begin() as conn:
        migrate(conn)
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SaevxError, match="newer version"):
        Database(url).check()


def test_words_in_labels_notes_and_tags(url: str) -> None:
    one = book(url)
    texts = {
        1: note("Big dog"),
        2: note("cat", "afraid of dogs"),
        3: note(tags=("C++", "日本語")),
        4: note("a", "dog big"),
    }
    for key, body in texts.items():
        one.put("feature", key, body, author="", version=0)

    def hits(q: str) -> list[str]:
        return one.search("feature", q)

    assert hits("dog") == ["1", "2", "4"] and hits("dog big") == ["1", "4"] and hits("dogs") == ["2"]
    assert hits("C++") == ["3"] and hits("本") == ["3"] and hits("") == hits("  ") == hits("horse") == []
    one.put("feature", 1, note("bird"), author="", version=1)
    assert hits("dog") == ["2", "4"] and hits("bird") == ["1"]


def test_the_file_is_made_when_something_is_written(tmp_path: Path) -> None:
    database = Database(default_url(tmp_path / "store"))
    one = Annotations(database, "id")
    one.refresh()
    assert one.get("feature", 1).version == 0 and one.history("feature", 1) == [] and list(tmp_path.iterdir()) == []
    one.put("feature", 1, note("x"), author="", version=0)
    assert [path.name for path in tmp_path.iterdir()] == ["store.annotations.sqlite"]
    (tmp_path / "store.annotations.sqlite").unlink()
    one.put("feature", 1, note("y"), author="", version=0)
    assert [entry.version for entry in one.history("feature", 1)] == [1]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    one = Annotations(Database("sqlite:////proc/nothing/here.sqlite"), "id")
    one.refresh()
    assert one.get("feature", 1).version == 0 and one.keys("feature") == []
    sentence = "Annotations are read-only: /proc/nothing/here.sqlite cannot be written. Give"
    assert str(one.why_read_only()).startswith(sentence)
    with pytest.raises(ReadOnlyError, match="read-only"):
        one.put("feature", 1, note("x"), author="", version=0)


def test_a_database_that_is_damaged_or_gone(tmp_path: Path, postgres_url: str) -> None:
    file = tmp_path / "notes.sqlite"
    file.write_bytes(b"no database" * 100)
    one = Annotations(Database(f"sqlite:///{file}"), "id")
    one.refresh()
    assert one.problem and "cannot be used now (file is not a database)" in one.problem
    with pytest.raises(UnavailableError, match="cannot be used now"):
        one.put("feature", 1, note("x"), author="", version=0)
    gone = postgres_url.replace("saevx@", "saevx:secret@").rpartition("/")[0] + "/missing"
    with pytest.raises(UnavailableError, match="missing") as refusal:
        Database(gone).check()
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("url", ["nonsense", "what://x/y"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(SaevxError, match="no address of a database"):
        Database(url)


def test_what_was_committed_is_whole_after_a_kill(tmp_path: Path) -> None:
    """The file is complete after each reply, without the writer closing it."""
    file = tmp_path / "notes.sqlite"
    one = book(f"sqlite:///{file}")
    one.put("feature", 1, note("x"), author="", version=0)
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(file.read_bytes())
    with sqlite3.connect(copy) as conn:
        assert conn.execute("SELECT count(*) FROM versions").fetchone() == (1,)
    assert create_engine(f"sqlite:///{copy}").connect().execute(text("PRAGMA integrity_check")).scalar() == "ok"
