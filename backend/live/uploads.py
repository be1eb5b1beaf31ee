"""Images in requests: read exactly as the pass reads the images of the data, or refused with one sentence; and those
that the server holds in memory, so that an address can name them."""

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass

from fastapi import HTTPException, UploadFile
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from backend.live.lru import Lru
from backend.settings import Settings
from precompute.data.images import BadRow, TooManyPixels, open_image

PREVIEW_EDGE = 1024
"""Longer edge of the copy that pages show, in pixels."""
GONE = (
    "The image of this address is no longer on this server, which keeps uploaded images in memory until it stops or "
    "newer ones need the room: choose the image again."
)


@dataclass(frozen=True)
class UploadedImage:
    """An image that the server holds."""

    hash: str
    """First 32 digits of the SHA-256 of the file."""
    data: bytes
    """The file as it was sent, so that each use reads it as the pass does."""
    preview: bytes
    """WebP of the upright image, without the file's other data, such as the place where a photo was taken."""
    size: tuple[int, int]
    """Width and height of the upright image, in pixels."""


class UploadedImages:
    """Images by their hash, the most recently used ones. They are in memory only.

    Args:
        max_bytes: of files and previews together; the newest image is held in any case.
    """

    def __init__(self, max_bytes: int) -> None:
        self.images: Lru[str, UploadedImage] = Lru(max_bytes, lambda image: len(image.data) + len(image.preview))

    def add(self, data: bytes, settings: Settings) -> UploadedImage:
        """Hold the image in `data`. Raises HTTPException as `read_image`."""
        image = read_image(data, settings)
        size = image.size
        image.thumbnail((PREVIEW_EDGE, PREVIEW_EDGE))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=90)
        upload = UploadedImage(hashlib.sha256(data).hexdigest()[:32], data, buffer.getvalue(), size)
        self.images.put(upload.hash, upload)
        return upload

    def get(self, hash: str) -> UploadedImage:
        """Raises HTTPException: 404 if the server does not hold it."""
        if (image := self.images.get(hash)) is None:
            raise HTTPException(404, GONE)
        return image

    def holds(self, hash: str) -> bool:
        """Whether the server holds it."""
        return self.images.get(hash) is not None

    def remove(self, hash: str) -> None:
        """Hold it no longer. Raises HTTPException: 404 if the server does not hold it."""
        self.get(hash)
        self.images.drop(lambda key: key == hash)


def read_image(data: bytes, settings: Settings) -> Image.Image:
    """The image in `data`, upright, RGB.

    Raises:
        HTTPException: 413 if it unpacks to more pixels than the limit (from its header, before it is unpacked), 422 if
            it cannot be read or its aspect ratio is too large.
    """
    try:
        return open_image(data, max_pixels=int(settings.max_megapixels * 1e6)).image
    except TooManyPixels as error:
        raise HTTPException(413, f"{sentence(error)}: send a smaller image.") from error
    except BadRow as error:
        raise HTTPException(422, f"{sentence(error)}: send another image.") from error


def sentence(error: BadRow) -> str:
    """The reason, which begins with "its image", as the beginning of a sentence: "The image …"."""
    return f"The{str(error).removeprefix('its')}"


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


async def add_upload(upload: UploadFile, uploads: UploadedImages, settings: Settings) -> UploadedImage:
    """The image of a form's file, which the server then holds. Raises HTTPException as `read_image`."""
    return await run_in_threadpool(uploads.add, await upload.read(), settings)


def uploaded_pixels(uploads: UploadedImages, hash: str, settings: Settings) -> Image.Image:
    """The image that the server holds under `hash`. Raises HTTPException: 404 if it holds none."""
    return read_image(uploads.get(hash).data, settings)
