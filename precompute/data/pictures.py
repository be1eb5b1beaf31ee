"""Images: opened whole, or only so far that their size is known."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from precompute.data.base import BadRow, Source

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000
"""More is taken for a decompression bomb."""
MAX_ASPECT = 200
"""Longer strips would be blown up to gigabytes by processors that scale the shortest edge."""


class Picture(NamedTuple):
    """A decoded image."""

    image: Image.Image
    """RGB, upright."""
    sha256: str
    """Of the file."""


def open_picture(source: Source | bytes) -> Picture:
    """Decode an image file whole: RGB, upright by its EXIF, transparency on white, the first frame.

    Raises:
        BadRow: unreadable, cut short, not an image of a known format, or too large.
    """
    try:
        if isinstance(source, bytes):
            raw = source
        else:
            with source.open("rb") as file:
                raw = file.read()
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


def header_size(source: Source) -> tuple[int, int]:
    """Width and height as the header tells, for planning; (0, 0) where it tells nothing."""
    try:
        with source.open("rb") as file, Image.open(file, formats=FORMATS) as opened:
            return opened.size
    except Exception:
        return (0, 0)  # set aside with its reason when the pass opens it
