"""Scenes and texts as data that `saevx train` and `saevx evaluate` read."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from precompute.data.records import Data
from precompute.data.rows import read
from precompute.demo.drawing import draw
from precompute.demo.scenes import Scene
from precompute.utils.files import write_text


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, one a row."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_imagefolder(folder: Path, pairs: Iterable[tuple[Scene, dict[str, Any]]]) -> None:
    """Scenes as images, and metadata.jsonl.

    Args:
        pairs: of each row its scene and its fields, among them `file_name`, such as images/1.png; rows with the same
            file have the same scene.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {}
    for scene, row in pairs:
        of_file = rows.setdefault(row["file_name"], [])
        if not of_file:
            draw(scene).save(folder / row["file_name"], compress_level=1)
        of_file.append(row)
    write_rows(folder / "metadata.jsonl", chain.from_iterable(rows.values()))


def write_pairs(folder: Path, scenes: Iterable[Scene]) -> None:
    """An imagefolder of scenes with their captions."""
    write_imagefolder(
        folder,
        (
            (s, {"file_name": f"images/{s.index:05d}.png", "id": f"{s.split}-{s.index}", "text": s.caption})
            for s in scenes
        ),
    )


def pairs_and_texts(pairs: Path, texts: Path) -> Data:
    """Pairs and texts as one data set. All rows of one source have an image or none has, so these are two sources."""
    data, texts_alone = read(str(pairs)), read(str(texts))
    text_rows = [replace(row, index=len(data.rows) + i) for i, row in enumerate(texts_alone.rows)]
    return data._replace(rows=[*data.rows, *text_rows])
