"""Data whose images lie inside larger files: tars, Parquet and tables of `datasets`. Real files, read lazily."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from precompute.data import arrow_tables as tables_module
from precompute.data.arrow_tables import Cell
from precompute.data.images import header_size, open_image
from precompute.data.records import Columns, Slice, stamps
from precompute.data.rows import read
from precompute.errors import SaevxError
from precompute.pipeline import Pipeline
from precompute.store.making.unfinished import Collected
from tests.helpers import tiny
from tests.helpers.tinies import Maker, collected


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    tiny.picture(seed, (40 + seed % 3, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(image: Any) -> bytes:
    return open_image(image).image.tobytes()


def shard(path: Path, members: dict[str, bytes | str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, body in members.items():
            raw = body.encode() if isinstance(body, str) else body
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return path


# ---- WebDataset


def test_tars(tmp_path: Path) -> None:
    shard(tmp_path / "a-000.tar", {
        "x/0001.jpg": png(1), "x/0001.txt": "one", "x/0001.json": json.dumps({"colour": "red"}),
        "x/0002.0.png": png(2), "x/0002.1.png": png(3), "x/0002.json": json.dumps({"text": "two", "id": 7}),
        "x/0003.npy": b"ignored", "x/0003.txt": "no picture",
        "x/0004.jpg": png(4), "x/0004.txt": b"\xff\xfe\xff",
        "x/0005.jpg": png(5), "x/0005.json": "{",
    })  # fmt: skip
    shard(tmp_path / "a-001.tar", {"x/0001.jpg": png(6), "x/0001.txt": "again", ".hidden": b"x"})
    data = read(tmp_path)
    assert [(row.sample_id, row.text, row.extra) for row in data.rows] == [
        ("x/0001", "one", {"colour": "red"}),
        ("7", "two", {}),
        ("a-001/x/0001", "again", {}),
    ]
    assert [(bad.index, bad.reason) for bad in data.rejected_rows] == [
        (2, "it has no image"),
        (3, "its member x/0004.txt is not valid Unicode"),
        (4, "of its member x/0005.json: it is not valid JSON"),
    ]
    assert data.rows[0].source == "a-000.tar:x/0001" and data.n_rows == 6
    images = [image for row in data.rows for image in row.images]
    assert all(isinstance(image, Slice) for image in images)
    assert [pixels(image) for image in images] == [pixels(png(seed)) for seed in (1, 2, 3, 6)]
    assert [header_size(image) for image in images] == [(41, 40), (42, 40), (40, 40), (40, 40)]
    assert [row.sample_id for row in read(str(tmp_path / "a-*1.tar")).rows] == ["x/0001"]
    (row,) = read(tmp_path / "a-000.tar", Columns(image="1.png")).rows
    assert len(row.images) == 1 and pixels(row.images[0]) == pixels(png(3))


def test_a_damaged_tar_keeps_what_came_before(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {}
    for i in range(4):
        members |= {f"{i}.png": png(i), f"{i}.txt": f"text {i}"}
    path = shard(tmp_path / "cut.tar", members)
    path.write_bytes(path.read_bytes()[:3000])
    (tmp_path / "no.tar").write_bytes(b"no tar at all" * 100)
    data = read(tmp_path)
    assert [row.sample_id for row in data.rows] == ["0"]
    first, second = (bad.reason for bad in data.rejected_rows)
    assert "cut.tar cannot be read from sample 1 on" in first and "no.tar cannot be read" in second


def test_a_compressed_tar_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    with pytest.raises(SaevxError, match="unpack it"):
        read(tmp_path / "a.tar.gz")


def test_a_store_from_tars_is_that_of_the_folder(options: Maker, tmp_path: Path) -> None:
    """The same pairs, in files or in tars, give the same tokens and events; a changed tar is another run."""
    folder = tiny.make_data(tmp_path / "data", 12)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    members: dict[str, bytes | str] = {}
    for row in rows:
        members[f"{row['id']}.png"] = (folder / row["file_name"]).read_bytes()
        members[f"{row['id']}.json"] = json.dumps({"text": row["text"], "kind": row["kind"]})
    tar = shard(tmp_path / "pairs.tar", members)
    plain = Collected(*collected(options(data=str(folder), out=tmp_path / "a" / "store")))
    made = options(data=str(tar), out=tmp_path / "b" / "store")
    packed = Collected(*collected(made))
    one, other = (
        [(r["sample_id"], r["text"], r["extra"]["kind"], [i["sha256"] for i in r["images"]]) for r in data.samples]
        for data in (plain, packed)
    )
    assert one == other
    for row in range(12):
        assert plain.events.of(row).z_e.tolist() == packed.events.of(row).z_e.tolist()
    report = Pipeline(made).fingerprint()
    os.utime(tar, ns=(1, 1))
    assert Pipeline(made).fingerprint() != report


# ---- tables


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def parquet(path: Path, **columns: Any) -> Path:
    import pyarrow as pa
    from pyarrow import parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_with_structs(tmp_path: Path) -> None:
    """Bytes, a path, neither; more rows than are listed at a time."""
    tiny.picture(9).save(tmp_path / "nine.png")
    n = tables_module.ROWS_AT_ONCE + 5
    cells: list[Any] = [{"bytes": png(i % 50), "path": None} for i in range(n)]
    cells[1:4] = [{"bytes": None, "path": "nine.png"}, {"bytes": None, "path": None}, None]
    path = parquet(tmp_path / "p.parquet", text=[f"text {i}" for i in range(n)], n=list(range(n)), picture=cells)
    data = read(path)
    assert [(bad.index, bad.reason) for bad in data.rejected_rows] == [(i, "it has no field 'picture'") for i in (2, 3)]
    assert [row.text for row in data.rows[:3]] == ["text 0", "text 1", "text 4"]
    assert data.rows[0].extra == {"n": 0} and data.rows[0].source == "p:0" and data.files == [path]
    assert data.rows[1].images == (tmp_path / "nine.png",)
    for row in (data.rows[0], data.rows[2], data.rows[-1]):
        assert isinstance(row.images[0], Cell)
        assert pixels(row.images[0]) == pixels(png(row.index % 50))
        assert header_size(row.images[0]) == (40 + row.index % 50 % 3, 40)
    assert stamps(data.rows[-1].images) == [[n - 1, 0]]


def test_parquet_with_lists_bytes_and_paths(tmp_path: Path) -> None:
    lists = [[png(1), png(2)], [], None, [None], [png(3)]]
    path = parquet(tmp_path / "lists.parquet", caption=list("abcde"), images=lists, id=list("vwxyz"))
    data = read(path)
    assert [(row.sample_id, len(row.images)) for row in data.rows] == [("v", 2), ("z", 1)]
    assert [pixels(image) for row in data.rows for image in row.images] == [pixels(png(i)) for i in (1, 2, 3)]
    reasons = [bad.reason for bad in data.rejected_rows]
    assert reasons == ["it has no field 'images'"] * 2 + ["one of its images is missing"]
    folder = tmp_path / "folder"
    folder.mkdir()
    tiny.picture(1).save(folder / "a.png")
    parquet(folder / "1.parquet", text=["one", None], image=["a.png", "a.png"], note=[1.5, float("nan")])
    parquet(folder / "2.parquet", text=["three", "four"], image=["gone.png", None], note=[2.5, None])
    data = read(folder)
    remaining = {"image": ["a.png"], "note": 1.5}
    assert [(row.text, row.images, row.extra) for row in data.rows] == [("one", (folder / "a.png",), remaining)]
    assert [bad.reason for bad in data.rejected_rows] == [
        "it has no field 'text'",
        "there is no image gone.png",
        "it has no field 'image'",
    ]
    with pytest.raises(SaevxError, match="not 'photo'"):
        read(folder, Columns("photo"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(SaevxError, match=r"bad\.parquet that can be read"):
        read(tmp_path / "bad.parquet")


def answer(number: int) -> dict[str, str]:
    return {"from": "gpt", "value": f"Number {number}."}


def test_what_datasets_has_saved(tmp_path: Path) -> None:
    """Conversations, pictures and a split, written and read by `datasets` itself."""
    import datasets

    made = datasets.Dataset.from_dict(
        {
            "conversations": [[{"from": "human", "value": "<image>\nWhat?"}, answer(i)] for i in range(4)],
            "image": [{"bytes": png(i), "path": f"{i}.png"} for i in range(4)],
        }
    ).cast_column("image", datasets.Image())
    made.select([3, 1]).save_to_disk(tmp_path / "one")
    data = read(tmp_path / "one")
    assert [row.text for row in data.rows] == ["What?\nNumber 3.", "What?\nNumber 1."]
    assert [pixels(row.images[0]) for row in data.rows] == [pixels(png(3)), pixels(png(1))]
    assert data.rows[0].extra["conversations"][1] == answer(3)
    datasets.DatasetDict({"train": made.select([0]), "test": made.select([1, 2])}).save_to_disk(tmp_path / "two")
    assert read(tmp_path / "two", Columns(split="test")).rows[0].text == "What?\nNumber 1."
    with pytest.raises(SaevxError, match="splits test, train, not dev"):
        read(tmp_path / "two", Columns(split="dev"))


def test_a_folder_that_datasets_knows_and_a_name_that_nobody_has(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in "ab":
        tiny.picture(ord(name)).save(folder / f"{name}.png")
    (folder / "metadata.csv").write_text("file_name,text\na.png,one\nb.png,two\n")
    data = read(folder)
    result = {row.text: Path(str(row.images[0])).name for row in data.rows}
    assert result == {"one": "a.png", "two": "b.png"}
    with pytest.raises(SaevxError, match="no data at nobody/has-this"):
        read("nobody/has-this")
