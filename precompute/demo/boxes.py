"""Writes the boxes of the demo's pairs as `saevx evaluate --boxes` reads them, and an embedding of what scenes hold.

python -m precompute.demo.boxes demo/data/metadata.jsonl boxes.jsonl [truth.npy]
"""

import json
import sys
from pathlib import Path

import numpy as np

from precompute.demo.scenes import COLOURS, OBJECTS, SHAPES
from precompute.utils.files import atomic_write, write_text
from precompute.utils.types import Array


def boxes(metadata: str) -> str:
    """JSON lines {id, boxes: [{word, box}]} of the pairs in a metadata.jsonl, boxes in pixels."""
    rows = [json.loads(line) for line in metadata.splitlines()]
    return "".join(
        json.dumps({"id": row["id"], "boxes": [{"word": e["noun"], "box": e["box"]} for e in row["entities"]]}) + "\n"
        for row in rows
    )


def truth(metadata: str) -> Array:
    """What each scene holds, for `saevx evaluate --embedding`: float32 [n, words], 1 for each of its nouns and colours
    and for its background's colour, which has a column of its own."""
    words = [*OBJECTS, *SHAPES, *COLOURS, *(f"{colour} background" for colour in COLOURS)]
    rows = [json.loads(line) for line in metadata.splitlines()]
    embedding = np.zeros((len(rows), len(words)), np.float32)
    for i, row in enumerate(rows):
        own_words = {word for e in row["entities"] for word in (e["noun"], e["colour"]) if word}
        own_words.add(f"{row['background']} background")
        embedding[i, [words.index(word) for word in own_words]] = 1
    return embedding


def main() -> None:
    if len(sys.argv) not in (3, 4):
        sys.exit("Name the demo's metadata.jsonl and the file to write, and a second one for what the scenes hold.")
    metadata = Path(sys.argv[1]).read_text(encoding="utf-8")
    write_text(Path(sys.argv[2]), boxes(metadata))
    if len(sys.argv) == 4:
        with atomic_write(Path(sys.argv[3])) as file:
            np.save(file, truth(metadata))


if __name__ == "__main__":
    main()
