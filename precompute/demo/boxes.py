"""Writes the boxes of the demo's pairs as `saevx evaluate --boxes` reads them.

    python -m precompute.demo.boxes demo/data/metadata.jsonl boxes.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from precompute.utils.files import write_text


def boxes(metadata: str) -> str:
    """JSON lines {id, boxes: [{word, box}]} of the pairs in a metadata.jsonl, boxes in pixels."""
    rows = [json.loads(line) for line in metadata.splitlines()]
    return "".join(
        json.dumps({"id": row["id"], "boxes": [{"word": e["noun"], "box": e["box"]} for e in row["entities"]]}) + "\n"
        for row in rows
    )


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("Name the demo's metadata.jsonl and the file to write.")
    write_text(Path(sys.argv[2]), boxes(Path(sys.argv[1]).read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
