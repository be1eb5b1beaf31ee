"""What a row may name: files of its own folder, and nothing else that the user may read."""

from __future__ import annotations

import builtins
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from precompute.data import Columns, Data, open_image, read
from precompute.data.paths import ImageRoot
from precompute.data.rejections import kind_of
from tests.helpers import tiny
from tests.helpers.hostile.paths import CASES, USED, make_data


def kinds(data: Data) -> dict[str | None, str]:
    used: dict[str | None, str] = {row.sample_id: USED for row in data.rows}
    return used | {bad.sample_id: kind_of(bad.reason) for bad in data.rejected_rows}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that are opened; a socket fails the test."""
    names: list[str] = []

    def note(real: Any) -> Any:
        def wrapped(path: Any, *args: Any, **kwargs: Any) -> Any:
            names.append(os.path.realpath(path) if isinstance(path, str | os.PathLike) else str(path))
            return real(path, *args, **kwargs)

        return wrapped

    def refuse(*args: Any) -> None:
        raise AssertionError("a socket is opened")

    for module, name in ((builtins, "open"), (os, "open"), (__import__("io"), "open")):
        monkeypatch.setattr(module, name, note(getattr(module, name)))
    monkeypatch.setattr(socket, "socket", refuse)
    return names


def test_a_row_names_files_of_its_own_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = make_data(tmp_path)
    opened.clear()
    data = read(folder)
    assert kinds(data) == {case.name: case.must for case in CASES}
    for row in data.rows:
        for image in row.images:
            open_image(image)
    inside = os.path.realpath(folder)
    assert opened and not [name for name in opened if not name.startswith(inside)]
    assert all(len(bad.reason) < 300 for bad in data.rejected_rows)


def test_trusted_data_may_name_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = kinds(read(make_data(tmp_path), Columns(anywhere=True)))
    secret = {one.name for one in CASES if "secret.png" in str(one.value) and one.must == "outside-image"}
    too_long = "a path that is too long"
    assert {name for name in secret if result[name] != USED} <= {too_long} and len(secret) > 8
    assert result["a FIFO"] == result["a device"] == "unreadable-image"


def test_another_image_folder_is_the_border(tmp_path: Path) -> None:
    """Absolute paths are usual in the lists of large collections: --image-folder names their folder."""
    make_data(tmp_path)
    (tmp_path / "lists").mkdir()
    rows = [{"image": str(tmp_path / "data/0.png"), "text": "a"}, {"image": str(tmp_path / "secret.png"), "text": "b"}]
    (tmp_path / "lists/x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for folder, texts in ((tmp_path / "data", ["a"]), (tmp_path, ["a", "b"])):
        assert [row.text for row in read(tmp_path / "lists/x.jsonl", Columns(folder=folder)).rows] == texts


def test_the_folder_itself_may_be_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_data(tmp_path / "store")
    (tmp_path / "link").symlink_to(tmp_path / "store/data")
    assert kinds(read(tmp_path / "link"))["inside below"] == USED
    monkeypatch.chdir(tmp_path / "link")
    result = kinds(read("."))
    assert result[".."] == "outside-image" and result["inside"] == USED


def test_a_snapshot_of_the_hub_is_links_into_its_own_blobs(tmp_path: Path) -> None:
    repo = tmp_path / "hub/datasets--owner--name"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots/abc/train").mkdir(parents=True)
    for name, blob in (("train/0.png", "1f"), ("train/secret.png", "../../secret.png")):
        tiny.picture(1).save(repo / "blobs" / blob if blob == "1f" else tmp_path / "secret.png", "PNG")
        (repo / "snapshots/abc" / name).symlink_to(Path("../../../blobs") / blob)
    rows = [{"file_name": "0.png", "text": "a"}, {"file_name": "secret.png", "text": "b"}]
    (repo / "blobs/2f").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (repo / "snapshots/abc/train/metadata.jsonl").symlink_to("../../../blobs/2f")
    data = read(repo / "snapshots/abc/train")
    assert [row.text for row in data.rows] == ["a"]
    whole = ImageRoot(repo)  # as a data set of the hub is read: what it downloads lies below
    train = repo / "snapshots/abc/train"
    assert whole.file(str(train / "0.png")) and not whole.holds(train / "secret.png")
    shutil.move(repo / "blobs", tmp_path / "elsewhere")
    (repo / "blobs").symlink_to(tmp_path / "elsewhere")
    assert read(repo / "snapshots/abc/train", Columns(anywhere=True)).rows
    with pytest.raises(Exception, match="--allow-outside"):
        read(repo / "snapshots/abc/train")


def test_paths_in_a_table_are_held_too(tmp_path: Path) -> None:
    make_data(tmp_path)
    outside, inside = str(tmp_path / "secret.png"), str(tmp_path / "data/0.png")
    for name, images in (
        ("struct", pa.array([{"bytes": None, "path": one} for one in (outside, inside)])),
        ("text", pa.array([outside, inside])),
        ("list", pa.array([[outside], [inside]])),
    ):
        path = tmp_path / "data" / f"{name}.parquet"
        pq.write_table(pa.table({"image": images, "text": ["out", "in"]}), path)
        data = read(path)
        assert [row.text for row in data.rows] == ["in"]
        assert [kind_of(bad.reason) for bad in data.rejected_rows] == ["outside-image"]


def test_texts_beside_images_are_of_the_folder_too(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    for i in range(4):
        tiny.picture(i).save(folder / f"{i}.png")
    (folder / "0.txt").write_text("a red dog")
    (folder / "1.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(folder / "2.txt")
    (folder / "3.png").unlink()
    tiny.picture(3).save(tmp_path / "3.png")
    (folder / "3.png").symlink_to(tmp_path / "3.png")
    (folder / "3.txt").write_text("another's image")
    data = read(folder)
    assert [row.text for row in data.rows] == ["a red dog"]
    assert [kind_of(bad.reason) for bad in data.rejected_rows] == ["no-text", "no-text", "outside-image"]
    assert [row.text for row in read(folder, Columns(anywhere=True)).rows] == ["a red dog", "secret", "another's image"]
