"""What a row may name: files of its own folder, and nothing else that the user may read."""

import builtins
import json
import os
import shutil
import socket
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from precompute.data.images import open_image
from precompute.data.paths import ImageRoot
from precompute.data.records import Columns, Data
from precompute.data.rejections import kind_of
from precompute.data.rows import read
from precompute.errors import SaevxError
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


def row_files(tmp_path: Path) -> dict[str, Path]:
    """Files with rows, one of each format, outside the data."""
    outside = tmp_path / "outside"
    outside.mkdir()
    line = json.dumps({"text": "another's secret"}) + "\n"
    (outside / "metadata.jsonl").write_text(line)
    pq.write_table(pa.table({"text": ["another's secret"]}), outside / "a.parquet")
    (outside / "a.csv").write_text("text\nanother's secret\n")
    with tarfile.open(outside / "a.tar", "w") as tar:
        tar.add(outside / "metadata.jsonl", "0.json")
    Dataset.from_dict({"text": ["another's secret"]}).save_to_disk(outside / "saved")
    return {one.name: one for one in outside.iterdir()}


@pytest.mark.parametrize("name", ["metadata.jsonl", "a.parquet", "a.csv", "a.tar"])
def test_a_file_with_rows_leads_out_of_the_folder_only_where_the_data_is_trusted(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / name).symlink_to(row_files(tmp_path)[name])
    for source in (data, *([data / "*"] if name != "metadata.jsonl" else [])):
        with pytest.raises(SaevxError, match=r"leads out of the folder of the data: copy .* --allow-outside"):
            read(source, Columns(text_only=True))
        rows = read(source, Columns(text_only=True, anywhere=True)).rows
        assert [row.text for row in rows] == ["another's secret"]
    assert read(data / name, Columns(text_only=True)).rows, "a file that the user gives by its own name"


@pytest.mark.parametrize("name", ["metadata.jsonl", "a.parquet", "a.csv", "a.tar"])
@pytest.mark.parametrize("anywhere", [False, True])
def test_a_fifo_or_device_in_place_of_a_file_with_rows_is_not_opened(tmp_path: Path, name: str, anywhere: bool) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        data = tmp_path / getattr(make, "__name__", "device").strip("<>")
        data.mkdir()
        make(data / name)
        with pytest.raises(SaevxError, match=r"leads out of the folder|is a FIFO, a socket or a device"):
            read(data, Columns(text_only=True, anywhere=anywhere))


def test_what_a_saved_data_set_lists_is_of_its_folder_too(tmp_path: Path) -> None:
    """`datasets` opens any path that state.json or dataset_dict.json names."""
    outside = row_files(tmp_path)["saved"]
    own = tmp_path / "own"
    Dataset.from_dict({"text": ["own"]}).save_to_disk(own)
    state = json.loads((own / "state.json").read_text())
    (own / "state.json").write_text(
        json.dumps({**state, "_data_files": [{"filename": f"../outside/saved/{next(outside.glob('*.arrow')).name}"}]})
    )
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "dataset_dict.json").write_text(json.dumps({"splits": ["../outside/saved"]}))
    for data in (own, splits):
        with pytest.raises(SaevxError, match="leads out of the folder of the data"):
            read(data)
        assert [row.text for row in read(data, Columns(anywhere=True)).rows] == ["another's secret"]
