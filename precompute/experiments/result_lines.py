"""Result files that grow by a line for each thing measured, so that a killed run goes on."""

import json
from pathlib import Path
from typing import Any

from precompute.errors import SaevxError

Line = dict[str, Any]


def read_lines(path: Path) -> list[Line]:
    """The whole lines of a result file, none where it does not exist. A killed run may have left half a line.

    Raises:
        SaevxError: it holds something else.
    """
    content = path.read_bytes() if path.exists() else b""
    try:
        result = [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
    except (ValueError, RecursionError) as error:
        raise SaevxError(f"{path} is no result file of this experiment: choose another --out.") from error
    if not all(isinstance(line, dict) for line in result) or (content and not result):
        raise SaevxError(f"{path} is no result file of this experiment: choose another --out.")
    return result


def append_line(path: Path, line: Line) -> None:
    """Write one more, in the place of half a line. The file and its folder are made where they do not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())
