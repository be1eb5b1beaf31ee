"""Image files as people have them, and as nobody should: what the pass and a running server must read alike."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers import tiny


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """An image that says by EXIF how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(tiny.picture(orientation, (60, 40)), kind, exif=exif, **options)


def logo(mode: str) -> Image.Image:
    """A square on a transparent ground whose hidden colour is black."""
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((20, 20, 200, 255), (10, 10, 30, 30))
    return image.convert(mode)


def ramp(kind: type[np.generic], high: float) -> Image.Image:
    with np.errstate(invalid="ignore"):  # 0 · ∞, of a ramp to infinity
        return Image.fromarray(np.linspace(0, high, 1600).astype(kind).reshape(40, 40))


def palette(*, transparent: bool) -> bytes:
    image = tiny.picture(9).quantize(16)
    return encoded(image, "PNG", **({"transparency": 3} if transparent else {}))


def animation(kind: str) -> bytes:
    frames = [tiny.picture(seed) for seed in (20, 21, 22)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def colour(size: tuple[int, int], mode: str = "RGB") -> bytes:
    return encoded(tiny.picture(5, size).convert(mode), "PNG")


FILES: dict[str, Callable[[], bytes]] = {
    **{f"turned-{n}.jpg": (lambda n=n: turned(n)) for n in range(1, 9)},  # type: ignore[misc]
    "turned.png": lambda: turned(6, "PNG"),
    "turned.webp": lambda: turned(8, "WEBP", lossless=True),
    "rgba.png": lambda: encoded(logo("RGBA"), "PNG"),
    "rgba.webp": lambda: encoded(logo("RGBA"), "WEBP", lossless=True),
    "rgba.tiff": lambda: encoded(logo("RGBA"), "TIFF"),
    "la.png": lambda: encoded(logo("LA"), "PNG"),
    "transparent-colour.png": lambda: encoded(logo("RGB"), "PNG", transparency=(0, 0, 0)),
    "transparent-grey.png": lambda: encoded(logo("L"), "PNG", transparency=0),
    "palette.png": lambda: palette(transparent=False),
    "palette-transparent.png": lambda: palette(transparent=True),
    "16-bit.png": lambda: encoded(ramp(np.uint16, 65535), "PNG"),
    "16-bit.tiff": lambda: encoded(ramp(np.uint16, 65535), "TIFF"),
    "12-bit-in-16.tiff": lambda: encoded(ramp(np.uint16, 4095), "TIFF"),
    "8-bit-in-16.png": lambda: encoded(ramp(np.uint16, 255), "PNG"),
    "32-bit.tiff": lambda: encoded(ramp(np.int32, 2**31 - 1), "TIFF"),
    "8-bit-in-32.tiff": lambda: encoded(ramp(np.int32, 255), "TIFF"),
    "float.tiff": lambda: encoded(ramp(np.float32, 1), "TIFF"),
    "float-255.tiff": lambda: encoded(ramp(np.float32, 255), "TIFF"),
    "float-nan.tiff": lambda: encoded(ramp(np.float32, np.nan), "TIFF"),
    "grey.jpg": lambda: encoded(tiny.picture(2).convert("L"), "JPEG"),
    "cmyk.jpg": lambda: encoded(tiny.picture(2).convert("CMYK"), "JPEG"),
    "cmyk.tiff": lambda: encoded(tiny.picture(2).convert("CMYK"), "TIFF"),
    "lab.tiff": lambda: encoded(Image.new("LAB", (40, 40), (200, 100, 90)), "TIFF"),
    "bilevel.png": lambda: colour((40, 40), "1"),
    "bilevel.bmp": lambda: encoded(tiny.picture(3).convert("1"), "BMP"),
    "colour.bmp": lambda: encoded(tiny.picture(3), "BMP"),
    "animation.gif": lambda: animation("GIF"),
    "animation.webp": lambda: animation("WEBP"),
    "animation.png": lambda: animation("PNG"),
    "one-pixel.png": lambda: colour((1, 1)),
    "wide.png": lambda: colour((130, 10)),
    "tall.png": lambda: colour((10, 130)),
    "wide-100-to-1.png": lambda: colour((200, 2)),
    "tall-199-to-1.png": lambda: colour((1, 199)),
    "strip-201-to-1.png": lambda: colour((201, 1)),
    "strip-210-to-1.png": lambda: colour((2100, 10)),
    "cut.jpg": lambda: encoded(tiny.picture(4, (200, 200)), "JPEG")[:-400],
    "empty.png": lambda: b"",
    "text.jpg": lambda: b"not an image",
}
