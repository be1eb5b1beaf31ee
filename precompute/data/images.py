"""Images: the one way by which a file becomes pixels, and how large it is before it does."""

import hashlib
import io
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from precompute.data.records import BadRow as BadRow
from precompute.data.records import Source
from precompute.utils.reading import POINTER

# An image of damaged EXIF is taken as it lies. For the process, as Python's `catch_warnings` is not safe with threads.
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning, r"PIL\.")

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000
"""More is taken for a decompression bomb."""
MAX_ASPECT = 200
"""Longer strips would be blown up to gigabytes by processors that scale the shortest edge."""
THUMBNAIL_EDGE = 256
"""Longest edge of a thumbnail in pixels."""
LEAST_OF_16_BITS = 1 << 12
"""A 16-bit image whose brightest value is below this uses fewer bits than its cells have: it would be seen black."""
TURNED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


class DecodedImage(NamedTuple):
    image: Image.Image
    """RGB, upright."""
    sha256: str
    """Of the file."""


class TooManyPixels(BadRow):
    """An image that would take too much memory."""


def open_image(source: Source | bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image file: RGB, upright by its EXIF, transparency on white, the first frame.

    The one way by which an image is read, whether it is a row of the data or is sent to a running server.

    Raises:
        BadRow: unreadable, cut short, not an image of a known format, too large, too long a strip, or with
            values that do not say how bright they are.
    """
    data = b""
    try:
        if isinstance(source, bytes):
            data = source
        else:
            with source.open("rb") as file:
                data = file.read()
        # Pillow's own bomb check would only warn, and the size stands in the header, before any pixel.
        with Image.open(io.BytesIO(data), formats=FORMATS) as image_file:
            check_size(image_file.size, max_pixels)
            image_file.load()
            image = to_rgb(upright(image_file))
    except BadRow:
        raise
    except MemoryError as error:
        raise BadRow("its image does not fit into memory") from error
    except Exception as error:  # decoders raise whatever their format's library raises
        reason = str(error).replace(str(source), "") if isinstance(source, Path) else str(error)
        if data.startswith(POINTER):
            reason = "a git-lfs pointer in place of the file: run `git lfs pull`"
        elif "cannot identify" in reason:
            reason = f"not an image of a known format: {', '.join(FORMATS)}"
        elif isinstance(error, Image.DecompressionBombError):
            raise TooManyPixels(f"its image has more than {max_pixels / 1e6:g} million pixels") from error
        raise BadRow(f"its image cannot be read ({reason[:120] or type(error).__name__})") from error
    return DecodedImage(image, hashlib.sha256(data).hexdigest())


def upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF says that it is to be turned; as it lies where its EXIF cannot be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # whatever its parser raises: the pixels are whole
        return image


def check_size(size: tuple[int, int], max_pixels: int = MAX_PIXELS) -> None:
    """Raises BadRow for an image of too many pixels, or one that is longer than MAX_ASPECT to 1."""
    width, height = size
    if width * height > max_pixels:
        raise TooManyPixels(f"its image has {width} × {height} pixels, more than {max_pixels / 1e6:g} million")
    if max(size) > MAX_ASPECT * min(size):
        raise BadRow(f"its image is a strip of {width} × {height} pixels, longer than {MAX_ASPECT} : 1")


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparency shown on white, 16-bit grey scaled down rather than clipped, floats taken as 0 to 1.

    Raises:
        BadRow: the values do not say which of them is white, so the image might be seen black.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(grey_8_bit(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def grey_8_bit(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [height, width] of a grey image with cells of 16 or 32 bits, or of floats.

    Raises:
        BadRow: as `to_rgb`.
    """
    values = np.asarray(image)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if image.mode == "F":
        if not (low >= 0 and high <= 1):  # also where one of them is not a number
            raise BadRow(f"its image has floating-point values from {low:.4g} to {high:.4g}, not from 0 to 1")
        return np.rint(values * 255).astype(np.uint8)
    if image.mode == "I":
        raise BadRow("its image has cells of 32 bits, which do not say what is white: save it with 8 or 16")
    if 0 < high < LEAST_OF_16_BITS:
        raise BadRow(
            f"its image has cells of 16 bits with values up to {high:.0f}, which would be seen black: save it with 8"
        )
    return (values.astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)


def write_thumbnail(image: Image.Image, path: Path) -> None:
    """The small copy that a store keeps, on which its pixel flags rest."""
    thumbnail = image.copy()
    thumbnail.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE))
    thumbnail.save(path, "WEBP", quality=90, method=2)  # of 0…6: half the time of 4 for 3 % more


def header_size(source: Source) -> tuple[int, int]:
    """Width and height of the upright image as the header tells, for planning; (0, 0) where it tells nothing."""
    try:
        with source.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            # A PNG would be decoded whole to look for its EXIF, which hardly any has.
            is_turned = False
            with suppress(Exception):  # of a broken EXIF, as in `upright`
                is_turned = image.format != "PNG" and image.getexif().get(ExifTags.Base.Orientation) in TURNED
            return (height, width) if is_turned else (width, height)
    except Exception:
        return (0, 0)  # rejected, with its reason, when the pass opens it
