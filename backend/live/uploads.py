"""Images in requests: read exactly as the pass reads the images of the data, or refused with one sentence."""

from __future__ import annotations

import base64
import binascii

from fastapi import HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from backend.settings import Settings
from precompute.data.images import BadRow, TooManyPixels, open_image


def read_image(data: bytes, settings: Settings) -> Image.Image:
    """The image in `data`, upright, RGB.

    Raises:
        HTTPException: 413 if it unpacks to more pixels than the limit (from its header, before it is unpacked), 422 if
            it cannot be read or its aspect ratio is too large.
    """
    try:
        return open_image(data, max_pixels=int(settings.max_megapixels * 1e6)).image
    except TooManyPixels as bad:
        raise HTTPException(413, f"{sentence(bad)}: send a smaller image.") from bad
    except BadRow as bad:
        raise HTTPException(422, f"{sentence(bad)}: send another image.") from bad


def sentence(bad: BadRow) -> str:
    """The reason, which begins with "its image", as the beginning of a sentence: "The image …"."""
    return f"The{str(bad).removeprefix('its')}"


def decode_image(text: str, settings: Settings) -> Image.Image:
    """The image in base64 or a data: URL. Raises HTTPException as `read_image`."""
    payload = text.partition(",")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, "`image` is neither base64 nor a data: URL: send one of the two.") from error
    return read_image(data, settings)


async def read_upload(upload: UploadFile, settings: Settings) -> Image.Image:
    """The image of a form's file. Raises HTTPException as `read_image`."""
    return await run_in_threadpool(read_image, await upload.read(), settings)
