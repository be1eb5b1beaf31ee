"""The user's pairs: an `imagefolder` with `metadata.jsonl`, or a JSONL file.

A row that cannot be used is set aside with its reason, never a crash and never silent. Pixels are read in the
pass; here only the rows are.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from precompute.errors import SaevxError

METADATA = "metadata.jsonl"
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000
"""More is taken for a decompression bomb."""
MAX_ASPECT = 200
"""Longer strips would be blown up to gigabytes by processors that scale the shortest edge."""


@dataclass(frozen=True)
class Row:
    """One pair as the data gives it."""

    index: int
    """Its number in the data, counted over all rows."""
    sample_id: str
    text: str
    images: tuple[Path, ...]
    extra: dict[str, Any]
    """The row's own fields but `id` and `text`, the image's name among them, kept as they are."""
    source: str
    """Where it stands: file and line."""


@dataclass(frozen=True, order=True)
class SetAside:
    """A row that cannot be used."""

    index: int
    sample_id: str | None
    reason: str


class Data(NamedTuple):
    """All rows of a source, in its order."""

    name: str
    rows: list[Row]
    set_aside: list[SetAside]
    text_only: bool
    """No row names an image."""

    @property
    def n_rows(self) -> int:
        return len(self.rows) + len(self.set_aside)


class BadRow(Exception):  # noqa: N818 (it is a verdict on data, not an error)
    """Why a row is set aside."""


def read(source: str | Path) -> Data:
    """All rows of DATA.

    Raises:
        SaevxError: there is no such data, or no usable row in it.
    """
    listing, image_field = _listing(source)
    records = list(_records(listing))
    text_only = not _any_image(records, image_field)
    seen: set[str] = set()

    def is_new(sample_id: str) -> bool:
        new = sample_id not in seen
        seen.add(sample_id)
        return new

    rows: list[Row] = []
    set_aside: list[SetAside] = []
    for one in _rows(records, listing, image_field, text_only, is_new):
        if isinstance(one, Row):
            rows.append(one)
        else:
            set_aside.append(one)
    if not rows:
        reason = f"; the first: {set_aside[0].reason}" if set_aside else ""
        raise SaevxError(f"{source} holds no usable row ({len(set_aside)} set aside{reason}).")
    return Data(Path(source).resolve().name, rows, set_aside, text_only)


def stream(source: str | Path, is_new: Callable[[str], bool]) -> Iterator[Row | SetAside]:
    """The rows of DATA one by one, for data of any length.

    Args:
        is_new: notes an id and says whether it is the first of its kind.

    Raises:
        SaevxError: there is no such data.
    """
    listing, image_field = _listing(source)
    text_only = not _any_image(_records(listing), image_field)  # reads on only to the first image
    return _rows(_records(listing), listing, image_field, text_only, is_new)


def _listing(source: str | Path) -> tuple[Path, str]:
    """The JSONL file of DATA, and its field that names the image."""
    path = Path(source)
    if path.is_dir():
        if not (path / METADATA).is_file():
            raise SaevxError(f"{path} holds no {METADATA}: give an imagefolder with one, or a JSONL file.")
        return path / METADATA, "file_name"
    if path.is_file() and path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return path, "image"
    if path.exists():
        raise SaevxError(f"{path} is neither a folder nor a JSONL file: give an imagefolder or a JSONL file.")
    raise SaevxError(f"There is no data at {path}: give an imagefolder or a JSONL file.")


def _any_image(records: Iterable[tuple[int, Any]], image_field: str) -> bool:
    return any(isinstance(record, dict) and record.get(image_field) for _, record in records)


def _rows(
    records: Iterable[tuple[int, Any]],
    listing: Path,
    image_field: str,
    text_only: bool,
    is_new: Callable[[str], bool],
) -> Iterator[Row | SetAside]:
    for index, (line, record) in enumerate(records):
        sample_id: str | None = None
        try:
            if isinstance(record, BadRow):
                raise record
            sample_id = _id(record, index)
            if not is_new(sample_id):
                raise BadRow(f"its id {sample_id!r} stands in an earlier row")
            images = () if text_only else _images(record, image_field, listing.parent)
            extra = {k: v for k, v in record.items() if k not in ("id", "text")}
            yield Row(index, sample_id, _text(record), images, extra, f"{listing.name}:{line}")
        except BadRow as bad:
            yield SetAside(index, sample_id, str(bad))


def _records(listing: Path) -> Iterator[tuple[int, Any]]:
    """Line number and JSON object of every line that is not blank; a BadRow where it is none."""
    with listing.open("rb") as file:
        for line, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                record = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
                if not isinstance(record, dict):
                    raise BadRow("it is not a JSON object")
                json.dumps(record, ensure_ascii=False).encode()
            except BadRow as bad:
                yield line, bad
            except UnicodeError:
                yield line, BadRow("it is not valid Unicode")
            except (ValueError, RecursionError):
                yield line, BadRow("it is not valid JSON")
            else:
                yield line, record


def _id(record: dict[str, Any], index: int) -> str:
    value = record.get("id")
    if value is None:
        return str(index)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise BadRow("its id is neither a string nor a whole number")
    return str(value)


def _text(record: dict[str, Any]) -> str:
    if "text" not in record or record["text"] is None:
        raise BadRow("it has no field 'text'")
    if not isinstance(record["text"], str):
        raise BadRow("its field 'text' is not a string")
    return record["text"]


def _images(record: dict[str, Any], field: str, folder: Path) -> tuple[Path, ...]:
    value = record.get(field)
    names = value if isinstance(value, list) else [value]
    if value is None or not names:
        raise BadRow(f"it has no field {field!r}")
    paths = []
    for name in names:
        if not isinstance(name, str) or not name:
            raise BadRow(f"its field {field!r} is not a path")
        paths.append(folder / name)
        if "\0" in name or not paths[-1].is_file():
            raise BadRow(f"there is no image {name}")
    return tuple(paths)


class Picture(NamedTuple):
    """A decoded image."""

    image: Image.Image
    """RGB, upright."""
    sha256: str
    """Of the file."""


def open_picture(source: Path | bytes) -> Picture:
    """Decode an image file whole: RGB, upright by its EXIF, transparency on white, the first frame.

    Raises:
        BadRow: unreadable, cut short, not an image of a known format, or too large.
    """
    try:
        raw = source if isinstance(source, bytes) else source.read_bytes()
        # Pillow's own bomb check would only warn, and the size stands in the header, before any pixel.
        with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise BadRow(
                    f"its image has {width} × {height} pixels, more than {MAX_PIXELS // 1_000_000} million"
                )
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise BadRow(f"its image is a strip of {width} × {height} pixels")
            opened.load()
            image = to_rgb(ImageOps.exif_transpose(opened))
    except BadRow:
        raise
    except MemoryError as error:
        raise BadRow("its image does not fit into memory") from error
    except Exception as error:  # decoders raise whatever their format's library raises
        reason = str(error).replace(str(source), "") if isinstance(source, Path) else str(error)
        if "cannot identify" in reason:
            reason = "not an image of a known format"
        elif isinstance(error, Image.DecompressionBombError):
            reason = f"more than {MAX_PIXELS // 1_000_000} million pixels"
        raise BadRow(f"its image cannot be read ({reason[:120] or type(error).__name__})") from error
    return Picture(image, hashlib.sha256(raw).hexdigest())


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparency shown on white and 16-bit grey scaled down rather than clipped."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray(
            (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        ).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def header_size(path: Path) -> tuple[int, int]:
    """Width and height as the header tells, for planning; (0, 0) where it tells nothing."""
    try:
        with Image.open(path, formats=FORMATS) as opened:
            return opened.size
    except Exception:
        return (0, 0)  # set aside with its reason when the pass opens it
