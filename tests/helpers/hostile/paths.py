"""Names of images as a hostile row may write them, in a folder with links, a FIFO and a device, beside a secret."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from tests.helpers import tiny

USED = "used"


class PathCase(NamedTuple):
    """One value of a row's field `file_name`."""

    name: str
    value: Any
    """`{root}` in a text stands for the folder above the data."""
    must: str
    """Kind of the reason for which the row is rejected, or USED."""


CASES = [
    PathCase("inside", "0.png", USED),
    PathCase("inside below", "sub/1.png", USED),
    PathCase("inside by ..", "sub/../0.png", USED),
    PathCase("inside by its own name", "../data/0.png", USED),
    PathCase("inside, absolute", "{root}/data/0.png", USED),
    PathCase("inside, as Windows writes it", "sub\\1.png", USED),
    PathCase("inside, a link", "link-inside.png", USED),
    PathCase("inside, a file: URL", "file://{root}/data/0.png", USED),
    PathCase("..", "../secret.png", "outside-image"),
    PathCase(".. in the middle", "sub/../../secret.png", "outside-image"),
    PathCase(".. of Windows", "..\\secret.png", "outside-image"),
    PathCase("mixed slashes", "sub\\..\\../secret.png", "outside-image"),
    PathCase("absolute", "{root}/secret.png", "outside-image"),
    PathCase("absolute with //", "//{root}//secret.png", "outside-image"),
    PathCase("a neighbour whose name begins alike", "../data-private/0.png", "outside-image"),
    PathCase("a link to a file", "link.png", "outside-image"),
    PathCase("a link to a link", "chain.png", "outside-image"),
    PathCase("a link to a folder", "linked/secret.png", "outside-image"),
    PathCase("back through a link", "linked/data/../secret.png", "outside-image"),
    PathCase("a link to itself", "loop.png", "missing-image"),
    PathCase("a home folder", "~/secret.png", "outside-image"),
    PathCase("a file: URL", "file://{root}/secret.png", "outside-image"),
    PathCase("a file: URL in percent signs", "file://{root}/%73ecret.png", "outside-image"),
    PathCase("the process's own files", "/proc/self/environ", "outside-image"),
    PathCase("standard input", "/dev/stdin", "outside-image"),
    PathCase("a device", "/dev/zero", "outside-image"),
    PathCase("a link to a device", "device.png", "outside-image"),
    PathCase("the folder itself", ".", "unreadable-image"),
    PathCase("the folder above", "..", "outside-image"),
    PathCase("the root", "/", "outside-image"),
    PathCase("a folder", "sub", "unreadable-image"),
    PathCase("a FIFO", "fifo.png", "unreadable-image"),
    PathCase("a NUL", "0.png\0", "missing-image"),
    PathCase("a NUL before the suffix", "../secret\0.png", "missing-image"),
    PathCase("a name that is too long", "a" * 5000, "missing-image"),
    PathCase("a path that is too long", "a/" * 5000 + "../" * 5001 + "secret.png", "outside-image"),
    PathCase("an address on the web", "https://127.0.0.1:9/a.png", "web-image"),
    PathCase("an address with a password", "ftp://user:secret@127.0.0.1/a.png", "web-image"),
    PathCase("a share of Windows", "\\\\127.0.0.1\\share\\a.png", "outside-image"),
    PathCase("a data: URL", "data:image/png;base64,iVBORw0KGgo=", "missing-image"),
    PathCase("a chain of datasets", "zip://0.png::https://127.0.0.1:9/a.zip", "web-image"),
    PathCase("a glob", "*.png", "missing-image"),
    PathCase("a shell's", "$(cat 0.png)", "missing-image"),
    PathCase("bytes of a terminal", "\x1b[2J\x1b]0;owned\x07.png", "missing-image"),
    PathCase("an object", {"path": "../secret.png", "bytes": None}, "outside-image"),
    PathCase("a list with one outside", ["0.png", "../secret.png"], "outside-image"),
    PathCase("a list in a list", [["0.png"]], "no-image"),
    PathCase("a number", 5, "no-image"),
]


def make_data(root: Path, cases: list[PathCase] = CASES) -> Path:
    """The data, with a row a case whose id is the case's name; the secret lies beside it."""
    folder = root / "data"
    (folder / "sub").mkdir(parents=True)
    (root / "data-private").mkdir()
    for i, path in enumerate(("data/0.png", "data/sub/1.png", "secret.png", "data-private/0.png")):
        tiny.picture(i).save(root / path)
    links: dict[str, str | Path] = {
        "link-inside.png": "sub/1.png", "link.png": "../secret.png", "chain.png": "link.png", "linked": root,
        "loop.png": "loop.png", "device.png": "/dev/zero",
    }  # fmt: skip
    for link, target in links.items():
        (folder / link).symlink_to(target)
    os.mkfifo(folder / "fifo.png")
    rows = [
        {"file_name": _in(root, case.value), "text": f"a red dog {i}", "id": case.name} for i, case in enumerate(cases)
    ]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _in(root: Path, value: Any) -> Any:
    return value.replace("{root}", str(root)) if isinstance(value, str) else value
