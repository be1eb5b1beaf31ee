"""Pictures that visitors send: refused with one sentence where they are too large, broken or no picture."""

from __future__ import annotations

import base64
import binascii
import io

from fastapi import HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool
from PIL import Image, UnidentifiedImageError

from backend.settings import Settings

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def read_image(data: bytes, settings: Settings) -> Image.Image:
    """The first frame of the picture in `data`, loaded, RGB.

    Raises HTTP 413 where it unpacks to more pixels than the limit (read from its header, before anything is
    unpacked) and HTTP 422 where it cannot be read."""
    kinds = ", ".join(FORMATS)
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise HTTPException(413, too_large(settings)) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise HTTPException(422, f"That is not a picture this server can read: send {kinds}.") from error
    if picture.width * picture.height > settings.max_megapixels * 1e6:
        raise HTTPException(413, too_large(settings))
    try:
        return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise HTTPException(422, "The picture is damaged or cut off: send it again.") from error


def too_large(settings: Settings) -> str:
    return f"The picture is larger than {settings.max_megapixels:g} megapixels: send a smaller one."


def decode_image(text: str, settings: Settings) -> Image.Image:
    """The picture in base64 or a data: URL. Raises HTTP 413 or 422 as `read_image`."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, "`image` is not base64 or a data: URL.") from error
    return read_image(data, settings)


async def read_upload(upload: UploadFile, settings: Settings) -> Image.Image:
    """The picture of a form's file. Raises HTTP 413 or 422 as `read_image`."""
    return await run_in_threadpool(read_image, await upload.read(), settings)
