"""Scenes and texts as data that `saevx train` and `saevx evaluate` read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from precompute.data import Data, read
from precompute.demo.drawing import draw
from precompute.demo.scenes import Scene
from precompute.utils.files import write_text


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, one a row."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_pairs(folder: Path, scenes: Sequence[Scene]) -> None:
    """An imagefolder of scenes with their captions."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for scene in scenes:
        name = f"images/{scene.index:05d}.png"
        draw(scene).save(folder / name, compress_level=1)
        rows.append({"file_name": name, "id": f"{scene.split}-{scene.index}", "text": scene.caption})
    write_rows(folder / "metadata.jsonl", rows)


def pairs_and_texts(pairs: Path, texts: Path) -> Data:
    """Pairs and texts as one data set. All rows of one source have an image or none has, so these are two sources."""
    data, alone = read(str(pairs)), read(str(texts))
    numbered = [replace(row, index=len(data.rows) + i) for i, row in enumerate(alone.rows)]
    return data._replace(rows=[*data.rows, *numbered])
