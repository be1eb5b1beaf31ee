"""A sample's stored picture as WebP, whole, smaller or a crop."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def render_webp(
    path: Path,
    original: tuple[int, int],
    size: int | None,
    crop: tuple[float, float, float, float] | None,
) -> bytes:
    """The picture at `path` (a thumbnail of an image of `original` pixels) as WebP.

    `crop` is in the original's pixels and is cut to the picture; `size` is the longer edge of the reply, and
    a crop of a few pixels is enlarged to it, without smoothing, so that single patches can be looked at."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if crop is not None:
        sx, sy = picture.width / original[0], picture.height / original[1]
        x0, y0, x1, y1 = crop
        left = min(max(int(x0 * sx), 0), picture.width - 1)
        top = min(max(int(y0 * sy), 0), picture.height - 1)
        right = min(max(round(x1 * sx), left + 1), picture.width)
        bottom = min(max(round(y1 * sy), top + 1), picture.height)
        picture = picture.crop((left, top, right, bottom))
    if size is not None:
        scale = size / max(picture.size)
        wanted = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
        if crop is not None or scale < 1:
            picture = picture.resize(wanted, smooth)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=90, method=4)
    return buffer.getvalue()
