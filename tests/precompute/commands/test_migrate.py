"""`saevx migrate`: an older store of this schema gets what this version stores; any other is refused."""

import json
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from precompute.errors import SaevxError
from precompute.migrate import migrate
from precompute.store import mapfile
from precompute.store import schema as s
from precompute.store.making.sealing import seal
from precompute.store.making.verify import verify_or_raise
from precompute.store.reader import Store
from tests.helpers import machine, synthetic
from tests.helpers.machine import begin, refused, small_disk


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.small_store(tmp_path_factory)


def older(store: Path, folder: Path, *statements: str, files: tuple[str, ...] = ()) -> Path:
    """A copy as an older version would have written it: without these tables, columns and files."""
    copy = Path(shutil.copytree(store, folder / "older"))
    with closing(sqlite3.connect(copy / "store.sqlite")) as conn:
        for statement in statements:
            conn.execute(statement)
        conn.commit()
    for name in files:
        (copy / name).unlink()
    path = copy / "manifest.json"
    manifest = seal(copy, json.loads(path.read_text()))
    path.write_text(json.dumps({name: value for name, value in manifest.items() if name not in ("sealed", "sizes")}))
    return copy


def rows(store: Path, table: str) -> list[tuple[Any, ...]]:
    names = ", ".join(column.name for column in s.metadata.tables[table].columns)
    with closing(sqlite3.connect(store / "store.sqlite")) as conn:
        return conn.execute(f"SELECT {names} FROM {table} ORDER BY 1, 2").fetchall()


def test_what_the_store_can_give_is_the_pass_s_own(original: Path, tmp_path: Path) -> None:
    copy = older(
        original, tmp_path, "DROP TABLE top_words", "ALTER TABLE features DROP COLUMN namesake", files=("map.bin",)
    )
    before = (copy / "manifest.json").read_bytes()
    with pytest.raises(SaevxError, match=r"older version .*'namesake'.*: run `saevx migrate .* --out NEW`"):
        Store.open(copy)
    message = migrate(copy, tmp_path / "new")
    assert "top words, namesakes, map of features added" in message and "Only" not in message
    verify_or_raise(tmp_path / "new")
    for table in s.metadata.tables:
        assert rows(tmp_path / "new", table) == rows(original, table), table
    store = Store.open(tmp_path / "new")
    assert store.manifest["migrated"] == {"made": ["top words", "namesakes", "map of features"], "null": []}
    preserved = [one.manifest["map"]["preserved_neighbours"] for one in (store, Store.open(original))]
    assert abs(preserved[0] - preserved[1]) < 0.1
    assert [len(column) for column in store.map] == [store.n_features] * len(mapfile.FIELDS)
    assert (copy / "manifest.json").read_bytes() == before
    names = [one.name for table in s.metadata.sorted_tables for one in table.indexes]
    with closing(sqlite3.connect(tmp_path / "new/store.sqlite")) as conn:
        there = {name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert there >= set(names)


def test_what_only_the_pass_knows_is_null_and_named(original: Path, tmp_path: Path) -> None:
    copy = older(
        original,
        tmp_path,
        "DROP INDEX samples_score_image_gain",
        "ALTER TABLE samples DROP COLUMN score_image_gain",
        "DELETE FROM scores WHERE name = 'image-gain'",
    )
    message = migrate(copy, tmp_path / "new")
    assert "Only `saevx precompute` can add samples.score_image_gain: null here." in message
    store = Store.open(tmp_path / "new")
    assert store.samples.list(sort="image-gain").total == store.n_samples
    assert [score["mean"] for score in store.quality.scores if score["name"] == "image-gain"] == [None]


def test_a_store_of_another_schema_is_refused(original: Path, tmp_path: Path) -> None:
    words_of = dict.fromkeys(range(1, s.SCHEMA_VERSION), "run `saevx precompute` again")
    for version, words in {**words_of, s.SCHEMA_VERSION + 1: "install a newer saevx"}.items():
        copy = Path(shutil.copytree(original, tmp_path / str(version)))
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps({**manifest, "schema": version}))
        for read in (lambda path: migrate(path, tmp_path / "new"), Store.open):
            with pytest.raises(SaevxError, match=words) as refused:
                read(copy)
            assert "\n" not in str(refused.value)
    assert not (tmp_path / "new").exists()


def test_nothing_to_do_and_damage_leave_nothing_behind(original: Path, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="serve it as it is"):
        migrate(original, tmp_path / "new")
    copy = older(original, tmp_path, "DROP TABLE top_words")
    with (copy / "map.bin").open("r+b") as file:
        file.seek(40)
        byte = file.read(1)[0] ^ 1
        file.seek(40)
        file.write(bytes([byte]))
    with pytest.raises(SaevxError, match="damaged"):
        migrate(copy, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["older"]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.02, 1.3])
def test_on_a_full_disk_nothing_is_left_and_the_same_command_goes_on(
    share: float, original: Path, tmp_path: Path
) -> None:
    """Wherever the room ends: while files are copied, columns added, maps written or the database is packed."""
    copy = older(
        original, tmp_path, "DROP TABLE top_words", "ALTER TABLE features DROP COLUMN namesake", files=("map.bin",)
    )
    size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
    with small_disk(tmp_path / "disk") as resize:
        disk = resize(str(int(share * size)))
        done = machine.saevx("migrate", copy, "--out", disk / "new")
        refused(done, f"No space is left in {disk}", "make room and run the same command again")
        assert not list(disk.iterdir())
        resize("100m")
        again = machine.saevx("migrate", copy, "--out", disk / "new")
        assert again.returncode == 0, again.stderr
        verify_or_raise(disk / "new")
        assert [path.name for path in disk.iterdir()] == ["new"]


def test_what_cannot_be_copied_is_named(original: Path, tmp_path: Path) -> None:
    copy = older(original, tmp_path, "DROP TABLE top_words")
    os.mkfifo(copy / "images" / "pipe")
    refused(machine.saevx("migrate", copy, "--out", tmp_path / "new"), str(copy / "images" / "pipe"), "remove it")
    assert [path.name for path in tmp_path.iterdir()] == ["older"]


def test_a_killed_migration_is_begun_again(original: Path, tmp_path: Path) -> None:
    copy = older(original, tmp_path, "DROP TABLE top_words")
    process = begin("migrate", copy, "--out", tmp_path / "new")
    while process.poll() is None and not (tmp_path / ".new.part" / "store.sqlite").exists():
        time.sleep(0.002)
    assert process.poll() is None, "the migration was too fast for this test"
    process.kill()
    process.communicate(timeout=60)
    assert not (tmp_path / "new").exists()
    again = machine.saevx("migrate", copy, "--out", tmp_path / "new")
    assert again.returncode == 0, again.stderr
    verify_or_raise(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "older"]
