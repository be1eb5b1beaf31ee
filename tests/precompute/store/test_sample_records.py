"""The columns of an unfinished store's samples are those of its JSON lines, which are parsed once."""

import json
from pathlib import Path

import numpy as np
import pytest

from precompute.store.making import sample_records
from precompute.store.making.sample_records import SampleRecords

TEXTS = ["a dog", "", '日本 🙂 \u2028 "quoted"\n', "é" * 5000, "\ufeff x"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Twelve samples with none, one or two images."""
    path = tmp_path / "samples.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for row in range(12):
            images = [{"sha256": f"{row}-{i}", "thumb": f"images/0/{row}_{i}.webp", "width": 2} for i in range(row % 3)]
            views = [[2, 3, [0, 0, 9.5, 9], i] for i in range(row % 3)]
            line = {"row": row, "sample_id": f"s/{row}", "text": TEXTS[row % 5], "images": images, "views": views}
            file.write(json.dumps(line, ensure_ascii=row % 2 == 0) + "\n")
    return path


@pytest.mark.parametrize("at_once", [1, 5, 100])
def test_columns_are_the_lines(path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_records, "_ROWS", at_once)
    samples = SampleRecords(path)
    lines = list(samples)
    assert [line["row"] for line in lines] == list(range(12)) and lines[-1] == samples[-1]
    assert list(samples.column("sample_id")) == [line["sample_id"] for line in lines]
    assert list(samples.column("text")) == [line["text"] for line in lines]
    assert [json.loads(views) for views in samples.column("views")] == [line["views"] for line in lines]
    for name in ("sha256", "thumb"):
        assert list(samples.column(name)) == [[image[name] for image in line["images"]] for line in lines]
    rows = np.array([7, 0, 7, 11])
    assert list(samples.column("text", rows)) == [lines[row]["text"] for row in rows]


def test_lines_are_parsed_once(path: Path) -> None:
    texts = list(SampleRecords(path).column("text"))
    path.unlink()
    assert list(SampleRecords(path).column("text")) == texts
    assert not [other for other in path.parent.iterdir() if other.suffix != ".arrow"]


def test_no_samples(tmp_path: Path) -> None:
    samples = SampleRecords(tmp_path / "samples.jsonl")
    assert len(samples) == 0 and list(samples.column("text")) == []
