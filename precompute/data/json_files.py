"""Records of JSON files, and of images with a text file beside each."""

import json
import os
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from precompute.data.paths import ImageRoot, unicode_name
from precompute.data.records import BadRow, Records
from precompute.data.signatures import foreign_format
from precompute.errors import SaevxError

MAX_TEXT = 1 << 24
"""Bytes of one text file, or of one text in a tar."""
TEXT_SUFFIXES = (".txt", ".text", ".caption")
TEXT_FIELDS = ("text", "conversations", "messages", "prompt", "question", "caption")
"""Where the text of a row is looked for."""
LINES_TRIED = 1000
BOM = b"\xef\xbb\xbf"


# ---- JSON


class JsonFile:
    """A file of JSON: the object of every line that is not blank, or every item where the file is one list."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> Records:
        """
        Raises:
            SaevxError: it cannot be opened, or is no text.
        """
        if self.items is not None:
            for number, item in enumerate(self.items):
                yield f"{self.path.name}:{number}", item if isinstance(item, BadRow) else check_record(item)
            return
        with self.path.open("rb") as file:
            for line, line_bytes in enumerate(file, 1):
                if line_bytes.strip():
                    yield f"{self.path.name}:{line}", parse_record(line_bytes)

    @cached_property
    def items(self) -> list[Any] | None:
        """Of a file that is one list, or one object over several lines; it is parsed once and held."""
        try:
            if (file_format := foreign_format(self.path)) is not None and not self._has_row():
                raise SaevxError(f"{self.path} is {file_format}.")
            return self._read_array()
        except OSError as error:
            raise SaevxError(
                f"{self.path} cannot be read ({error.strerror or error}): check its path and your rights."
            ) from error

    def _has_row(self) -> bool:
        """Whether one of its first lines is a row: then a strange first line is a row that is rejected."""
        with self.path.open("rb") as file:
            return any(not isinstance(parse_record(line), BadRow) for line in islice(file, LINES_TRIED))

    def _read_array(self) -> list[Any] | None:
        with self.path.open("rb") as file:
            lines = (line.strip() for line in file if line.strip())
            first_line, second_line = next(lines, b"").removeprefix(BOM).strip(), next(lines, b"")
        if not first_line and not second_line:
            return []
        if first_line[:1] not in (b"[", b"{"):
            return None
        # Of objects one a line, a broken first line must not make the whole file be read at once.
        if second_line and (_is_json(first_line) or (first_line[:1] == b"{" and _is_json(second_line))):
            return None
        try:
            content = json.loads(self.path.read_text("utf-8-sig") if second_line else first_line)
        except (ValueError, RecursionError):
            return None
        if isinstance(content, dict):
            return [_one_row(content)]
        return content if not content or any(isinstance(item, dict) for item in content) else None


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _one_row(content: dict[str, Any]) -> dict[str, Any] | BadRow:
    """The one object of a file, unless its rows stand inside of it, in a list as COCO's or by their names."""
    if any(name in TEXT_FIELDS for name in content):
        return content
    lists = [
        name
        for name, value in content.items()
        if isinstance(value, list) and any(isinstance(item, dict) for item in value)
    ]
    if all(isinstance(value, dict) for value in content.values()) and content:
        return BadRow(f"it is one JSON object of objects ({', '.join(content)[:120]}): give a list of them")
    if not lists:
        return content
    return BadRow(f"it is one JSON object with lists in it ({', '.join(lists)[:120]}): give the list of rows alone")


def parse_record(line: bytes) -> dict[str, Any] | BadRow:
    try:
        return check_record(json.loads(line.decode("utf-8-sig")))
    except UnicodeError:
        return BadRow("it is not valid Unicode (UTF-8)")
    except (ValueError, RecursionError):
        return BadRow("it is not valid JSON")


def check_record(record: Any) -> dict[str, Any] | BadRow:
    """A record that can be written again: an object, of Unicode, with finite numbers."""
    if not isinstance(record, dict):
        return BadRow("it is not a JSON object")
    try:
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeError:
        return BadRow("it is not valid Unicode (UTF-8)")
    except (ValueError, RecursionError):
        return BadRow("it is not valid JSON")
    return record


# ---- images with a text beside each


def images_with_texts(folder: Path, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, Path | None]]:
    """Every image below a folder, directory by directory in the order of their names, with the text file of the same
    name beside it, if there is one.

    Args:
        suffixes: of images, without the dot.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        texts = {name.lower(): name for name in names if name.lower().endswith(TEXT_SUFFIXES)}
        for name in sorted(names):
            stem, _, suffix = name.rpartition(".")
            if not stem or name.startswith(".") or suffix.lower() not in suffixes:
                continue
            text = next((texts[key] for end in TEXT_SUFFIXES if (key := (stem + end).lower()) in texts), None)
            yield Path(place, name), None if text is None else Path(place, text)


def captioned_records(folder: Path, suffixes: tuple[str, ...], anywhere: bool) -> Records:
    """A record an image; its id is its path in the folder.

    Args:
        anywhere: whether links may lead out of the folder.
    """
    root = ImageRoot(folder, anywhere)
    for image, text in images_with_texts(folder, suffixes):
        name = image.relative_to(folder).as_posix()
        if name != unicode_name(name):
            reason = f"its image's name {unicode_name(name)[:120]} is not valid Unicode (UTF-8)"
            yield unicode_name(name), BadRow(reason)
            continue
        caption = _caption(image, text, root)
        yield name, caption if isinstance(caption, BadRow) else {"file_name": name, "text": caption, "id": name}


def _caption(image: Path, file: Path | None, root: ImageRoot) -> str | BadRow:
    """The text of an image, in a file beside it."""
    if file is None:
        return BadRow(f"it has no text (no file {image.stem[:120]}.txt beside {image.name[:120]})")
    try:
        if not (root.anywhere or root.holds(file)):
            return BadRow(f"it has no text (its file {file.name[:120]} lies outside its folder)")
        if not file.is_file():
            return BadRow(f"it has no text (its file {file.name[:120]} is no regular file)")
        if file.stat().st_size > MAX_TEXT:
            return BadRow(f"its text file {file.name[:120]} has more than {MAX_TEXT >> 20} MB of text")
        return file.read_text("utf-8-sig").rstrip("\r\n")
    except UnicodeError:
        return BadRow(f"its text file {file.name[:120]} is not valid Unicode (UTF-8)")
    except OSError as error:
        return BadRow(f"it has no text (its file {file.name[:120]}: {error.strerror or error})")
