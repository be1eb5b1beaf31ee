"""Rows in a table on the disk: what comes back is what went in, in little memory, and in another process too."""

import pickle
import random
import string
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from precompute.data.disk import json_table
from precompute.data.disk.id_set import IdSet
from precompute.data.disk.row_table import RowTable, RowTableWriter, as_table, indices, take
from precompute.data.records import Row, Slice


def rows(n: int) -> list[Row]:
    """With texts of all scripts, a path that is no Unicode, images in a tar, and fields of every type."""
    tar = Path("/data/a.tar")
    texts = ["a dog", "", "犬と猫", "line\nline", '"quoted" \\ \u2028', "\U0001f600", "\udcff"]
    images: list[tuple[Path | Slice, ...]] = [
        (Path("/data/1.png"),),
        (),
        (Slice(tar, 512, 70), Slice(tar, 1 << 40, 3)),
        (Path("/data/\udcff.png"),),
    ]
    return [
        Row(3 * i, f"id-{i}", texts[i % len(texts)], images[i % len(images)], {"z": i / 3, "a": [None, {"b": True}]},
            f"metadata.jsonl:{i}")
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("in_memory", [0, 1 << 22])
def test_rows_come_back_as_they_were(in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_table, "IN_MEMORY", in_memory)
    monkeypatch.setattr(json_table, "READS", 7)
    before, writer = rows(50), RowTableWriter(tmp_path)
    for row in before:
        writer.append(row)
    table = writer.rows()
    assert list(tmp_path.iterdir()) == [], "the file has no name, so nothing is left of it"
    assert list(table) == before and table == before and table[-1] == before[-1] and table[3:5] == before[3:5]
    assert list(table[0].extra) == ["z", "a"], "fields keep their order"
    assert table.records.holders == [Path("/data/a.tar")]
    with pytest.raises(IndexError):
        table[50]
    moved = pickle.loads(pickle.dumps(table))
    assert isinstance(moved, RowTable) and list(moved) == before


def test_views_change_images_and_texts_alone() -> None:
    before = rows(9)
    table = as_table(before)
    assert as_table(table) is table
    chosen = take(table, np.array([7, 2, 2]))
    assert list(chosen) == [before[7], before[2], before[2]] == take(before, np.array([7, 2, 2]))
    assert indices(chosen).tolist() == [21, 6, 6] == indices(list(chosen)).tolist()
    bare = table.with_images(np.full(9, -1))
    assert not any(row.images for row in bare) and [row.text for row in bare] == [row.text for row in before]
    turned = table.with_images(np.arange(9)[::-1])
    assert [row.images for row in turned] == [row.images for row in before][::-1]
    assert [row.images for row in turned.with_images(np.arange(9)[::-1])] == [row.images for row in before]
    cut = turned.cut({0: 3, 2: 1})
    assert [row.text for row in cut] == ["a d", "", "犬", *(row.text for row in before[3:])]
    last = cut.take(np.array([2]))[0]
    assert (last.text, last.images) == ("犬", before[6].images)


def traced_bytes(folder: Path, n: int) -> tuple[int, int]:
    """Python's memory after `n` rows were written and read, and the most meanwhile."""
    first = RowTableWriter(folder)
    first.append(Row(0, "id", "text", (Path("/data/0.png"),), {"field": 0}, "f:0"))
    assert first.rows()[0].text == "text"  # whatever Python loads for it is in memory now
    tracemalloc.start()
    writer = RowTableWriter(folder)
    for i in range(n):
        text = f"{i} " + "word " * 60
        writer.append(Row(i, f"id-{i}", text, (Path(f"/data/{i}.png"),), {"field": i}, f"f:{i}"))
    table = writer.rows()
    assert sum(len(row.text) for row in table) > 300 * n
    return tracemalloc.get_traced_memory()


def test_many_rows_take_little_memory(tmp_path: Path) -> None:
    """As objects they would take a kilobyte each; Python's own table of interned parts of paths takes a dozen bytes. In
    a process of its own, where nothing else allocates."""
    n = 30_000
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        current, most = process.submit(traced_bytes, tmp_path, n).result()
    assert current < 200 * n and most < 200 * n + 3 * json_table.IN_MEMORY


def test_a_set_of_ids_is_that_of_python() -> None:
    rng = random.Random(0)
    names = ["".join(rng.choices(string.ascii_letters, k=2)) for _ in range(9000)] + ["", "é", "\udcff", "", "é"]
    own, other = IdSet(), set[str]()
    for name in names:
        assert own.add(name) is (name not in other)
        other.add(name)
        assert len(own) == len(other)
    assert len(own) > 1500, "so it has grown"
