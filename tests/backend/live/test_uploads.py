"""Pictures that visitors send."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import pytest
from fastapi import HTTPException
from PIL import Image

from backend.live.uploads import decode_image, read_image
from backend.settings import Settings

SETTINGS = Settings(max_megapixels=1)


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (30, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 200 if mode == "L" else None).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind,mode", [("PNG", "RGBA"), ("PNG", "L"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("GIF", "P")])
def test_common_kinds_become_rgb(kind: str, mode: str) -> None:
    picture = read_image(encoded(kind, mode), SETTINGS)
    assert (picture.mode, picture.size) == ("RGB", (30, 20))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge picture."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("edge", [1_500, 50_000])
def test_a_decompression_bomb_is_refused_by_its_header(edge: int) -> None:
    with pytest.raises(HTTPException) as refused:
        read_image(png_claiming(edge, edge), SETTINGS)
    assert refused.value.status_code == 413
    assert "more than 1 million" in refused.value.detail


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        encoded("PNG")[:44],
        encoded("JPEG")[:-300],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
)
def test_what_is_no_picture_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(HTTPException) as refused:
        read_image(data, SETTINGS)
    assert refused.value.status_code == 422
    assert refused.value.detail.endswith(".")


def test_base64_with_and_without_the_data_prefix() -> None:
    text = base64.b64encode(encoded("PNG")).decode()
    assert decode_image(text, SETTINGS).size == (30, 20)
    assert decode_image(f"data:image/png;base64,{text}", SETTINGS).size == (30, 20)
    with pytest.raises(HTTPException) as refused:
        decode_image("data:image/png;base64,%%%", SETTINGS)
    assert refused.value.status_code == 422
