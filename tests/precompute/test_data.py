from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from precompute.data import BadRow, open_picture, read
from precompute.errors import SaevxError
from tests import tiny


def folder_of(folder: Path, *lines: Any) -> Path:
    """An imagefolder with pictures a.png … and these lines; a str or bytes stands as it is."""
    folder.mkdir(exist_ok=True)
    for name in "abc":
        tiny.picture(ord(name)).save(folder / f"{name}.png")
    raw = [
        line
        if isinstance(line, bytes)
        else line.encode()
        if isinstance(line, str)
        else json.dumps(line).encode()
        for line in lines
    ]
    (folder / "metadata.jsonl").write_bytes(b"\n".join(raw) + b"\n")
    return folder


def test_imagefolder_keeps_ids_and_other_fields(tmp_path: Path) -> None:
    data = read(
        folder_of(
            tmp_path / "d",
            {"file_name": "a.png", "text": "one", "id": "first", "colour": "red"},
            {"file_name": "b.png", "text": ""},
            "",
            {"file_name": "c.png", "text": "three", "id": 7},
        )
    )
    assert [(row.index, row.sample_id, row.text) for row in data.rows] == [
        (0, "first", "one"),
        (1, "1", ""),
        (2, "7", "three"),
    ]
    assert data.rows[0].extra == {"file_name": "a.png", "colour": "red"}
    assert data.rows[2].source == "metadata.jsonl:4"
    assert not data.set_aside and not data.text_only and data.n_rows == 3


def test_jsonl_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    folder_of(tmp_path / "pictures")
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"image": ["pictures/a.png", "pictures/b.png"], "text": "two"}) + "\n")
    assert read(path).rows[0].images == (tmp_path / "pictures/a.png", tmp_path / "pictures/b.png")


def test_jsonl_without_any_image_is_text_only(tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two", "image": null}\n')
    data = read(path)
    assert data.text_only and [row.images for row in data.rows] == [(), ()]


GOOD = {"file_name": "a.png", "text": "good", "id": "good"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        (b'{"file_name": "a.png", "text": "\xff"}', "not valid Unicode"),
        ('{"file_name": "a.png", "text": "\\ud800"}', "not valid Unicode"),
        ({"file_name": "a.png"}, "no field 'text'"),
        ({"file_name": "a.png", "text": None}, "no field 'text'"),
        ({"file_name": "a.png", "text": 5}, "not a string"),
        ({"text": "x"}, "no field 'file_name'"),
        ({"file_name": 3, "text": "x"}, "not a path"),
        ({"file_name": "gone.png", "text": "x"}, "no image gone.png"),
        ({"file_name": "a\0.png", "text": "x"}, "no image"),
        ({"file_name": "b.png", "text": "x", "id": "good"}, "stands in an earlier row"),
        ({"file_name": "b.png", "text": "x", "id": [1]}, "neither a string nor"),
        ({"file_name": "b.png", "text": "x", "id": True}, "neither a string nor"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_rows_are_set_aside_with_their_reason(tmp_path: Path, line: Any, reason: str) -> None:
    data = read(folder_of(tmp_path / "d", GOOD, line, {"file_name": "c.png", "text": "after"}))
    assert [row.sample_id for row in data.rows] == ["good", "2"]
    assert [bad.index for bad in data.set_aside] == [1]
    assert reason in data.set_aside[0].reason


@pytest.mark.parametrize("make", [lambda p: p / "nothing", lambda p: p, lambda p: folder_of(p / "d", "{")])
def test_no_data_says_what_to_give(tmp_path: Path, make: Any) -> None:
    with pytest.raises(SaevxError):
        read(make(tmp_path))


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises much and whose data hold nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (png(60_000, 60_000), "million"),
        (png(20_000, 4), "strip"),
        (png(10, 10), "cannot be read"),
    ],
)
def test_what_is_no_picture_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        open_picture(raw)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(encoded(tiny.picture(0, (200, 200)))[:-400])
    with pytest.raises(BadRow) as caught:
        open_picture(path)
    assert str(tmp_path) not in str(caught.value)


def test_pictures_become_rgb() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert open_picture(encoded(clear)).image.getpixel((0, 0)) == (255, 255, 255)
    grey = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert open_picture(encoded(grey)).image.getpixel((0, 0)) == (128, 128, 128)
    turned = Image.new("RGB", (6, 4))
    exif = turned.getexif()
    exif[0x0112] = 6
    assert open_picture(encoded(turned, "JPEG", exif=exif)).image.size == (4, 6)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(raw: bytes) -> None:
    for start in (
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"II*\0",
    ):
        with pytest.raises(BadRow):
            open_picture(start + raw)
