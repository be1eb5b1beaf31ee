"""Image files of a hostile data set: other formats under an image's name, bombs, and broken parts."""

import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.helpers import tiny
from tests.helpers.odd_images import FILES, encoded, ramp

USED = ""
UNKNOWN = "not an image of a known format"
UNREADABLE = "cannot be read"
TOO_LARGE = "more than 64 million"
STRIP = "is a strip"


class ImageCase(NamedTuple):
    """A file, and words of the reason for which its row is rejected; USED where it is read."""

    name: str
    make: Callable[[], bytes]
    must: str


def png(width: int, height: int, *chunks: tuple[bytes, bytes], pixels: bytes = b"\0\0") -> bytes:
    """A PNG of grey pixels whose header may say anything."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def rows(width: int, height: int) -> bytes:
    return (b"\0" + bytes(range(256)) * (width // 256 + 1))[: width + 1] * height


def frames(kind: str, n: int) -> bytes:
    """An animation of n frames, each of the size of the image."""
    images = [Image.new("P", (64, 64), i % 256) for i in range(n)]
    return encoded(images[0], kind, save_all=True, append_images=images[1:], duration=1)


def gif_bomb() -> bytes:
    """A GIF of 40 × 40 whose frame says 65,535 × 65,535."""
    frame = bytearray(encoded(tiny.picture(3).quantize(4), "GIF"))
    at = frame.index(b",\0\0\0\0")
    frame[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    return bytes(frame)


def tiff_loop() -> bytes:
    """A TIFF whose directory is followed by itself."""
    file = bytearray(encoded(tiny.picture(3), "TIFF"))
    at = struct.unpack_from("<I", file, 4)[0]
    n = struct.unpack_from("<H", file, at)[0]
    struct.pack_into("<I", file, at + 2 + 12 * n, at)
    return bytes(file)


def exif(data: bytes) -> bytes:
    return encoded(tiny.picture(5), "JPEG", exif=b"Exif\0\0" + data)


def directory(tag: int, kind: int, value: int) -> bytes:
    """Of EXIF, with one entry, and followed by itself."""
    return b"II*\0" + struct.pack("<IHHHIII", 8, 1, tag, kind, 1, value, 8)


def fits() -> bytes:
    cards = ["SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   =                    2",
             "NAXIS1  =                   40", "NAXIS2  =                   40", "END"]  # fmt: skip
    return "".join(card.ljust(80) for card in cards).ljust(2880).encode() + bytes(2880)


def as_format(kind: str, mode: str = "RGB", **options: Any) -> Callable[[], bytes]:
    return lambda: encoded(tiny.picture(7).convert(mode), kind, **options)


PSD = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 40, 40, 8, 3) + bytes(4 * 3) + b"\0\0" + bytes(40 * 40 * 3)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n(x) (w) file\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"
POLYGLOT = b"GIF89a/*" + HTML

CASES = [
    ImageCase("psd.png", lambda: PSD, UNKNOWN),
    ImageCase("eps.png", lambda: EPS, UNKNOWN),
    ImageCase("fits.png", fits, UNKNOWN),
    ImageCase("svg.png", lambda: SVG, UNKNOWN),
    ImageCase("html.png", lambda: HTML, UNKNOWN),
    ImageCase("html-as-gif.png", lambda: POLYGLOT, "its image"),
    ImageCase("ico.png", as_format("ICO"), UNKNOWN),
    ImageCase("ppm.png", as_format("PPM"), UNKNOWN),
    ImageCase("tga.png", as_format("TGA"), UNKNOWN),
    ImageCase("pdf.png", as_format("PDF"), UNKNOWN),
    ImageCase("jpeg2000.png", as_format("JPEG2000"), UNKNOWN),
    ImageCase("pickle.png", lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.", UNKNOWN),
    ImageCase("zip.png", lambda: b"PK\x03\x04" + bytes(60), UNKNOWN),
    ImageCase("gif-as-jpg.jpg", as_format("GIF", "P"), USED),
    ImageCase("bomb-of-pixels.png", lambda: png(60_000, 60_000), TOO_LARGE),
    ImageCase("bomb-of-the-header.png", lambda: png(2**31 - 1, 2**31 - 1), "its image"),
    ImageCase("bomb-packed.png", lambda: png(8_001, 8_000, pixels=bytes(8_002 * 8_000)), TOO_LARGE),
    ImageCase("just-allowed.png", lambda: png(8_000, 8_000, pixels=rows(8_000, 8_000)), USED),
    ImageCase("bomb-of-text.png", lambda: png(40, 40, (b"zTXt", b"a\0\0" + zlib.compress(bytes(99_000_000))),
                                              pixels=rows(40, 40)), UNREADABLE),
    ImageCase("bomb-of-a-profile.png", lambda: png(40, 40, (b"iCCP", b"a\0\0" + zlib.compress(bytes(99_000_000))),
                                                   pixels=rows(40, 40)), UNREADABLE),
    ImageCase("bomb-in-a-frame.gif", gif_bomb, "its image"),
    ImageCase("bomb-of-frames.gif", partial(frames, "GIF", 1_000), USED),
    ImageCase("bomb-of-frames.webp", partial(frames, "WEBP", 100), USED),
    ImageCase("bomb-of-frames.png", partial(frames, "PNG", 300), USED),
    ImageCase("bomb-of-frames.tiff", partial(frames, "TIFF", 300), USED),
    ImageCase("directory-in-a-circle.tiff", tiff_loop, USED),
    ImageCase("one-pixel.png", FILES["one-pixel.png"], USED),
    ImageCase("no-pixel.png", lambda: png(0, 0), "its image"),
    ImageCase("1-by-10000.png", lambda: png(1, 10_000, pixels=rows(1, 10_000)), STRIP),
    ImageCase("10000-by-1.png", lambda: png(10_000, 1, pixels=rows(10_000, 1)), STRIP),
    *(ImageCase(name, FILES[name], USED) for name in (
        "cmyk.jpg", "cmyk.tiff", "16-bit.png", "16-bit.tiff", "float.tiff", "palette.png", "palette-transparent.png",
        "animation.gif", "animation.webp", "bilevel.png", "la.png")),
    *(ImageCase(name, FILES[name], "its image") for name in (
        "float-255.tiff", "float-nan.tiff", "cut.jpg", "empty.png")),
    ImageCase("float-inf.tiff", lambda: encoded(ramp(np.float32, np.inf), "TIFF"), "floating-point"),
    ImageCase("exif-of-rubbish.jpg", lambda: exif(bytes(range(256)) * 8), USED),
    ImageCase("exif-cut.jpg", lambda: exif(b"MM\0*\0\0\0\x08\0\xff"), USED),
    ImageCase("exif-in-a-circle.jpg", lambda: exif(directory(0x8769, 4, 8)), USED),
    ImageCase("exif-turned-by-99.jpg", lambda: exif(directory(0x0112, 3, 99)), USED),
]  # fmt: skip
"""Names end as people's files do; what the name says is not believed."""
