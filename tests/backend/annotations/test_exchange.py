"""Annotations as a file, and carried over to a store that was made again."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.annotations.book import Annotations
from backend.annotations.carry import WIDTH, carry, matches, sketch, sketches
from backend.annotations.database import Database, Entry
from backend.cli import Saevx, run
from precompute.errors import SaevxError
from precompute.store.reader import Store
from tests.helpers.machine import small_disk
from tests.helpers.stores import seal, sql
from tests.helpers.synthetic import word_feature

DOG, CAT, RED = (word_feature(word) for word in ("dog", "cat", "red"))


@pytest.fixture
def store(store_path: Path, tmp_path: Path) -> Path:
    """A store of the test's own."""
    return shutil.copytree(store_path, tmp_path / "store")


def write_all(folder: Path) -> list[str]:
    """Something of every kind; returns ids of samples."""
    opened = Store.open(folder)
    ids = [opened.samples.sample_id(row) for row in range(3)]
    database = Database(f"sqlite:///{folder}.annotations.sqlite")
    book = Annotations(database, str(opened.manifest["content_id"]), lambda k: sketch(opened, k))
    note = {"label": "a dog", "note": "", "tags": ["pet"], "reviewed": True}
    book.put("feature", DOG, note, author="Ann", version=0)
    book.put("feature", DOG, {**note, "label": "dog"}, author="Bob", version=1)
    book.put("sample", ids[0], {**note, "label": ""}, author="Ann", version=0)
    members = {"title": "L", "note": "", "features": [CAT, DOG], "samples": ids[:2], "pair": None}
    book.put("list", "l", members, author="Ann", version=0)
    book.put("filter", "f", {"title": "F", "page": "/features", "query": "tag=pet"}, author="Ann", version=0)
    mark = {"flag": "mismatch", "sample_id": ids[2], "right": True}
    book.put("mark", f"mismatch:{ids[2]}", mark, author="Ann", version=0)
    return ids


def bodies(folder: Path) -> dict[tuple[str, str], Any]:
    opened = Store.open(folder)
    book = Annotations(Database(f"sqlite:///{folder}.annotations.sqlite"), str(opened.manifest["content_id"]))
    book.refresh()
    kinds = ("feature", "sample", "list", "filter", "mark")
    return {(kind, one.key): (one.author, one.body) for kind in kinds for one in book.entries(kind)}


def command(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    status = run(Saevx, ["annotations", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out


def test_there_and_back(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_all(store)
    before, file = bodies(store), tmp_path / "notes.json"
    assert len(before) == 5
    assert command(capsys, "export", store, "--file", file) == f"{file}\n"
    Path(f"{store}.annotations.sqlite").unlink()
    assert command(capsys, "import", store, "--file", file) == "5 annotations read.\n"
    assert bodies(store) == before
    assert command(capsys, "import", store, "--file", file).startswith("0 annotations read; 5 left out")
    whole = json.loads(command(capsys, "export", store, "--history"))
    assert whole["format"] == "saevx-annotations" and set(map(int, whole["directions"])) == {DOG, CAT}


def test_a_store_made_again(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = write_all(store)
    before = bodies(store)
    old = Store.open(store).manifest["content_id"]
    sql("UPDATE samples SET sample_id = 'renamed' WHERE row = 0")(store)
    seal(store)
    assert Store.open(store).manifest["content_id"] != old and bodies(store) == {}
    output = command(capsys, "carry", store)
    assert output == f"4 annotations carried over; no counterpart for sample {ids[0]}.\n"
    now = bodies(store)
    assert now["feature", str(DOG)] == before["feature", str(DOG)] and now["list", "l"][1]["samples"] == [ids[1]]
    assert now["list", "l"][1]["features"] == [CAT, DOG] and ("sample", ids[0]) not in now
    assert command(capsys, "carry", store).startswith("0 annotations carried over; 4 left out")


def test_features_become_those_of_the_nearest_direction(store_path: Path, tmp_path: Path) -> None:
    opened = Store.open(store_path)
    database = Database(f"sqlite:///{tmp_path / 'x.sqlite'}")
    book = Annotations(database, str(opened.manifest["content_id"]))
    rng = np.random.default_rng(0)
    lost = np.uint32(48).tobytes() + rng.standard_normal(48).astype(np.float16).tobytes()
    vectors = {3: sketch(opened, DOG), 4: sketch(opened, CAT), 9: lost}
    centred = np.stack([opened.directions.get(k).centred_d for k in range(opened.n_features)])
    naive = centred @ np.stack([centred[DOG], centred[CAT]]).T
    assert naive.argmax(axis=0).tolist() == [DOG, CAT]
    moved = matches(opened, vectors, 0.9)
    assert {k: to for k, (to, _) in moved.items()} == {3: DOG, 4: CAT}
    assert all(cosine == pytest.approx(1, abs=0.01) for _, cosine in moved.values())
    body = {"label": "x", "note": "", "tags": [], "reviewed": False}
    old = [Entry("feature", str(k), 1, "Ann", "2026-01-01T00:00:00+00:00", body) for k in (3, 4, 9)]
    report = carry(book, opened, old, vectors, 0.9)
    assert report.written == 2 and report.lost == ["feature 9"]
    assert {one.key for one in book.entries("feature")} == {str(DOG), str(CAT)}
    assert book.get("feature", DOG).at == "2026-01-01T00:00:00+00:00"
    with pytest.raises(SaevxError, match="a model of 7 dimensions, and this store's has 48"):
        matches(opened, {1: np.uint32(7).tobytes() + bytes(14)}, 0.9)
    with pytest.raises(SaevxError, match="cut off"):
        matches(opened, {1: lost[:-2]}, 0.9)


def test_one_counterpart_each_and_the_same_number_first(store_path: Path) -> None:
    opened = Store.open(store_path)
    copies = {1: sketch(opened, RED), 2: sketch(opened, RED), RED: sketch(opened, RED)}
    assert {k: to for k, (to, _) in matches(opened, copies, 0.9).items()} == {RED: RED}


def test_sketches_keep_cosines() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((200, 2048)).astype(np.float32)
    near = one + 0.33 * rng.standard_normal((200, 2048)).astype(np.float32)
    exact = (one * near).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(near, axis=1)
    a, b = sketches(one), sketches(near)
    assert a.shape == (200, WIDTH) and np.abs((a * b).sum(1) - exact).mean() < 0.01
    far = np.abs(a @ b.T)[~np.eye(200, dtype=bool)]
    assert far.max() < 0.5, "directions that have nothing in common stay apart"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["import"], "Name the file to read"),
        (["import", "--file", "missing.json"], "There is no file or folder missing.json: check the path."),
        (["import", "--file", "/"], "/ is a folder where a file is expected: name a file."),
        (["import", "--file", "/dev/zero"], "/dev/zero is a pipe or a device, where a file is expected"),
        (["import", "--file", "PIPE"], "PIPE is a pipe or a device, where a file is expected"),
        (
            ["export", "--annotations", "sqlite:////missing.sqlite"],
            "There is no database sqlite:////missing.sqlite: check",
        ),
        (["export", "--annotations", "sqlite:////dev"], "/dev is no file, so it is no database of annotations"),
        (
            ["export", "--annotations", "sqlite:////dev/zero"],
            "/dev/zero is no file, so it is no database of annotations",
        ),
        (["export", "--annotations", "sqlite://"], "names no file, so nothing would be kept"),
        (["export", "--annotations", "sqlite:///:memory:"], "names no file, so nothing would be kept"),
        (
            ["export", "--annotations", "sqlite:///file:x?mode=memory&uri=true"],
            "names no file, so nothing would be kept",
        ),
        (["export", "--annotations", "postgresql://u:p@[::1/x"], "no address of a database"),
        (["carry"], "The database has no annotations of such another store"),
        (["export", "--annotations", "nonsense"], "no address of a database"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    store_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("PIPE")
    action, *options = arguments
    assert run(Saevx, ["annotations", action, str(store_path), *options]) == 1
    assert sentence in capsys.readouterr().err


def test_a_full_disk_is_named_and_the_same_command_goes_on(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = {"version": 1, "author": "Ann", "at": "2026-01-01T00:00:00+00:00", "deleted": False, "kind": "feature"}
    body = {"label": "x", "note": "n" * 3000, "tags": [], "reviewed": False}
    content_id = Store.open(store).manifest["content_id"]
    items = [{**note, "key": str(k), "body": body} for k in range(40)]
    file = tmp_path / "notes.json"
    file.write_text(json.dumps({"content_id": content_id, "store": "x", "items": items, "directions": {}}))
    with small_disk(tmp_path / "disk") as resize:
        disk = resize("100k")
        arguments = [
            "annotations",
            "import",
            str(store),
            "--file",
            str(file),
            "--annotations",
            f"sqlite:///{disk}/x.sqlite",
        ]
        assert run(Saevx, arguments) == 1
        assert f"No space is left in {disk}: make room" in capsys.readouterr().err
        resize("10m")
        assert run(Saevx, arguments) == 0 and capsys.readouterr().out == "40 annotations read.\n"


def test_a_database_of_annotations_beside_the_root_folder_is_no_crash(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Saevx, ["annotations", "export", "/"]) == 1
    assert "/ is not a store" in capsys.readouterr().err
