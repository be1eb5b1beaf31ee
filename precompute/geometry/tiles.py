"""Families that cut the image into tiles, each a view of its own, and show the full image last."""

import math
from collections.abc import Sequence
from typing import Any

from precompute.geometry.base import Layout, Size, View, full_image, plain_layout, setting


def tile_views(size: Size, image: int, rows: int, cols: int, side: int) -> list[View]:
    """`rows` × `cols` equal tiles of side × side tokens, row by row, then the full image; that alone if
    there is nothing to cut."""
    width, height = size
    tiles = [
        View(side, side, (width * c / cols, height * r / rows, width * (c + 1) / cols, height * (r + 1) / rows), image)
        for r in range(rows)
        for c in range(cols)
    ]
    return [*(tiles if rows * cols > 1 else []), View(side, side, full_image(size), image)]


def idefics3(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """Idefics3 and SmolVLM: scaled to a longest edge, then stretched to whole tiles.

    Patches are merged by pixel shuffle to `image_seq_len` tokens a tile, in row order."""
    images = processor.image_processor
    side, tile = math.isqrt(processor.image_seq_len), int(images.max_image_size["longest_edge"])
    views: list[View] = []
    for i, size in enumerate(sizes):
        rows = cols = 1
        if images.do_image_splitting:
            width, height = scaled_size(images, size) if images.do_resize else size
            ratio = width / height
            if width >= height:
                cols = math.ceil(width / tile)
                rows = math.ceil(int(cols * tile / ratio) / tile)
            else:
                rows = math.ceil(height / tile)
                cols = math.ceil(int(rows * tile * ratio) / tile)
        views += tile_views(size, i, rows, cols, side)
    return plain_layout(views)


MAX_EDGE = 4096
"""Pixels: Idefics3's own limit."""


def scaled_size(images: Any, size: Size) -> Size:
    """Idefics3's first resize: the longest edge to its target (at most MAX_EDGE), the other even."""
    width, height = size
    if "longest_edge" not in images.size:
        return int(images.size["width"]), int(images.size["height"])
    edge, ratio = int(images.size["longest_edge"]), width / height
    if width >= height:
        other_edge = int(edge / ratio)
        width, height = edge, max(other_edge + other_edge % 2, 1)
    else:
        other_edge = int(edge * ratio)
        width, height = max(other_edge + other_edge % 2, 1), edge
    if max(width, height) > MAX_EDGE:
        ratio = width / height
        width, height = (MAX_EDGE, int(MAX_EDGE / ratio)) if width >= height else (int(MAX_EDGE * ratio), MAX_EDGE)
    return max(width, 1), max(height, 1)


def internvl(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """InternVL: stretched to the grid of tiles nearest to its shape; pixel shuffle to `image_seq_length` tokens a
    tile, in row order."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    images = processor.image_processor
    side, max_patches = math.isqrt(processor.image_seq_length), int(setting(processor, "max_patches"))
    tile = int(images.size["height"]), int(images.size["width"])
    views: list[View] = []
    for i, size in enumerate(sizes):
        cols = rows = 1
        if setting(processor, "crop_to_patches") and max_patches > 1:
            min_tiles = int(setting(processor, "min_patches"))
            cols, rows = get_optimal_tiled_canvas((size[1], size[0]), tile, min_tiles, max_patches)
        views += tile_views(size, i, rows, cols, side)
    return plain_layout(views)
