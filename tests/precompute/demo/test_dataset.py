"""The demo set: planted bad pairs in their numbers, what they claim to be, and the same bytes each time."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from precompute.data.rows import read
from precompute.demo import dataset as D
from precompute.demo.boxes import boxes, truth
from precompute.demo.drawing import draw
from precompute.demo.scenes import SIZE, make_scene
from precompute.training.scorecard_store import read_boxes

N = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    D.build_dataset(folder, N, lambda _: None)
    return folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def of(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [r for r in rows if r["planted"].split(":")[0] == kind]


def test_planted_counts_of_the_whole_set() -> None:
    counts = Counter(D.planted_kinds(1500))
    assert {k: n for k, n in counts.items() if k} == D.PLANTED
    assert counts["swapped"] == counts["one-word"] == 60
    assert min(n for k, n in counts.items() if k) >= 10


def test_same_bytes_each_time(folder: Path, tmp_path: Path) -> None:
    D.build_dataset(tmp_path, N, lambda _: None)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        other = tmp_path / path.relative_to(folder)
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()


def test_whole_pairs_are_whole(rows: list[dict[str, Any]]) -> None:
    assert [r["id"] for r in rows] == [f"scene-{i:05d}" for i in range(N)]
    for row in of(rows, ""):
        scene = make_scene("demo", int(row["id"][-5:]))
        assert row["text"] == scene.caption
        assert row["background"] == scene.background


def test_swapped_captions_are_other_samples_and_share_no_word(rows: list[dict[str, Any]]) -> None:
    captions = {make_scene("demo", i).caption for i in range(N)}
    for row in of(rows, "swapped"):
        assert row["text"] in captions
        shown = {e["noun"] for e in row["entities"]}
        assert not shown & set(row["text"].replace(",", "").split())


def test_one_word_swaps_change_one_word(rows: list[dict[str, Any]]) -> None:
    changed = [r for r in of(rows, "one-word") if ":" in r["planted"]]
    assert changed
    for row in changed:
        old, new = (t.split() for t in (make_scene("demo", int(row["id"][-5:])).caption, row["text"]))
        assert len(old) == len(new)
        different = [a for a, b in zip(old, new, strict=True) if a != b and a not in ("a", "an")]
        assert len(different) == 1


def test_spoilt_pictures_and_texts(folder: Path, rows: list[dict[str, Any]]) -> None:
    def pixels(row: dict[str, Any]) -> np.ndarray:
        return np.asarray(Image.open(folder / row["file_name"]).convert("RGB"), int)

    for row in of(rows, "blank"):
        assert pixels(row).std(axis=(0, 1)).max() == 0
    for row in of(rows, "tiny"):
        assert max(pixels(row).shape[:2]) < SIZE / 4
    for row in of(rows, "blurred"):
        sharp = np.asarray(draw(make_scene("demo", int(row["id"][-5:]))), int)
        assert np.abs(np.diff(pixels(row), axis=1)).max() < np.abs(np.diff(sharp, axis=1)).max()
    assert all(r["text"] == "" for r in of(rows, "empty-text"))
    for row in of(rows, "repeated-text"):
        caption = make_scene("demo", int(row["id"][-5:])).caption
        assert row["text"].count(caption) >= 4
    for row in of(rows, "near-duplicate"):
        twins = [r for r in of(rows, "") if r["entities"] == row["entities"]]
        assert twins and np.abs(pixels(twins[0]) - pixels(row)).mean() < 20


def test_the_pass_reads_it(folder: Path) -> None:
    data = read(folder)
    assert len(data.rows) == N and not data.rejected_rows
    assert data.rows[3].extra["planted"] is not None


def test_evaluate_reads_the_boxes_of_its_things(folder: Path, tmp_path: Path) -> None:
    metadata = (folder / "metadata.jsonl").read_text()
    (tmp_path / "boxes.jsonl").write_text(boxes(metadata))
    boxes_of = read_boxes(tmp_path / "boxes.jsonl")
    rows = [json.loads(line) for line in metadata.splitlines()]
    assert list(boxes_of) == [row["id"] for row in rows]
    for row in rows:
        assert [(e["noun"], list(e["box"])) for e in row["entities"]] == [
            (one["word"], list(one["box"])) for one in boxes_of[row["id"]]
        ]
    embedding = truth(metadata)
    for row, held in zip(rows, embedding, strict=True):
        words = {word for e in row["entities"] for word in (e["noun"], e["colour"]) if word}
        assert held.sum() == len(words) + 1 and set(np.unique(held)) == {0, 1}
