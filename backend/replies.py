"""Bodies of replies that are made in a thread, because FastAPI checks and writes what a coroutine returns on the event
loop: JSON, images as WebP, and pages, of which the last ones are held."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Self

from fastapi import Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from PIL import Image
from pydantic import BaseModel


def as_json(model: BaseModel, headers: Response | None = None) -> Response:
    """`model` as FastAPI would write it, with the headers that dependencies have set."""
    headers_out = None if headers is None else dict(headers.headers)
    return Response(model.model_dump_json(by_alias=True), media_type="application/json", headers=headers_out)


async def json_reply(make: Callable[[], BaseModel], headers: Response | None = None) -> Response:
    """The model that `make` returns, computed and written in a thread."""
    return await run_in_threadpool(lambda: as_json(make(), headers))


def render_webp(
    path: Path,
    original: tuple[int, int],
    size: int | None,
    crop: tuple[float, float, float, float] | None,
) -> bytes:
    """The stored image at `path`, a thumbnail of an image of `original` (width, height) pixels, as WebP.

    Args:
        size: longer edge of the reply in pixels. A small crop is enlarged to it without smoothing, so that single
            patches can be seen.
        crop: x0, y0, x1, y1 in pixels of the original, clipped to the image.
    """
    with Image.open(path) as image_file:
        image = image_file.convert("RGB")
    if crop is not None:
        sx, sy = image.width / original[0], image.height / original[1]
        x0, y0, x1, y1 = crop
        left = min(max(int(x0 * sx), 0), image.width - 1)
        top = min(max(int(y0 * sy), 0), image.height - 1)
        right = min(max(round(x1 * sx), left + 1), image.width)
        bottom = min(max(round(y1 * sy), top + 1), image.height)
        image = image.crop((left, top, right, bottom))
    if size is not None:
        scale = size / max(image.size)
        new_size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        if crop is not None or scale < 1:
            image = image.resize(new_size, resampling)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90, method=4)
    return buffer.getvalue()


MAX_PAGE_BYTES = 32_000_000
"""Of the pages that are held for one store, compressed: some thousand."""
GZIP_LEVEL = 3
"""Half the time of level 5, for an eighth more bytes."""


class RenderedPage(NamedTuple):
    """A page as it is sent."""

    body: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, html: bytes, tag: str, *, compressed: bool) -> Self:
        """The page `html` with its validator `tag`."""
        headers = page_headers(tag)
        if compressed:
            html, headers["Content-Encoding"] = gzip.compress(html, GZIP_LEVEL, mtime=0), "gzip"
        return cls(html, headers)

    @property
    def size(self) -> int:
        """Bytes, with what Python adds."""
        return len(self.body) + 500

    def reply(self) -> HTMLResponse:
        return HTMLResponse(self.body, headers=self.headers)


def page_headers(tag: str) -> dict[str, str]:
    """The validators of a page. `private`, because it has the visitor's name and what a team wrote."""
    return {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding, Cookie"}
