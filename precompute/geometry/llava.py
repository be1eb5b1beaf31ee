"""The LLaVA line: 1.5 shows the tower one image; NeXT and OneVision also a grid of tiles, put together again."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from precompute.geometry.base import Box, Layout, Size, View, full_image, join, plain_layout, resized_size


def llava(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """LLaVA 1.5: one view an image, as the image processor resizes and crops it (CLIP: shortest edge, centre)."""
    images = processor.image_processor
    views = []
    for i, size in enumerate(sizes):
        (width, height), box = resized_size(images, size)
        rows, cols = height // processor.patch_size, width // processor.patch_size
        # What does not fill a patch at the right or lower edge is not seen.
        seen_x, seen_y = cols * processor.patch_size / width, rows * processor.patch_size / height
        x0, y0, x1, y1 = box
        views.append(View(rows, cols, (x0, y0, x0 + (x1 - x0) * seen_x, y0 + (y1 - y0) * seen_y), i))
    return plain_layout(views)


def llava_next(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """LLaVA-NeXT: the image squeezed into a square, then the tiles as one unpadded grid; a newline ends its rows."""
    tile = tile_size(processor.image_processor)
    side = tile // processor.patch_size
    return join(
        part
        for i, size in enumerate(sizes)
        for part in (
            plain_layout([View(side, side, full_image(size), i)]),
            with_newlines(*cells_without_padding(processor.image_processor, size, tile, side, processor.patch_size), i),
        )
    )


def tile_size(images: Any) -> int:
    """Pixels along an edge of what the tower sees at once."""
    if images.crop_size and "height" in images.crop_size:
        return int(images.crop_size["height"])
    return int(images.size["height"] if "height" in images.size else images.size["shortest_edge"])


def cells_without_padding(images: Any, size: Size, tile: int, side: int, patch: int) -> tuple[int, int, Box]:
    """Rows, columns and box of the tiles' common grid, `side` patches to a tile, after its padding is cut away.

    The image is fitted into the best of the processor's resolutions, black bars beside it. The model cuts whole
    rows or columns of patches, so the outermost that are left may show a strip of the bars.
    """
    # Imported late, here and in the other families: who only reads a store needs no transformers.
    from transformers.image_processing_utils import select_best_resolution

    width, height = size
    fit_h, fit_w = select_best_resolution((height, width), images.image_grid_pinpoints)
    rows, cols = fit_h // tile * side, fit_w // tile * side
    if fit_w / width < fit_h / height:
        new_w, new_h = fit_w, min(math.ceil(height * (fit_w / width)), fit_h)
    else:
        new_w, new_h = min(math.ceil(width * (fit_h / height)), fit_w), fit_h
    cut_rows = cut_cols = 0
    # Rounded as the models do, so that the counts agree with theirs at the last place.
    if width / height > cols / rows:
        cut_rows = (rows - int(round(height * (cols / width), 7))) // 2
    else:
        cut_cols = (cols - int(round(width * (rows / height), 7))) // 2
    # The strip at a tile's end that no patch sees is shared out between both its ends.
    margin, pitch = (tile - side * patch) / 2, tile / side
    left, top = (fit_w - new_w) // 2 + margin, (fit_h - new_h) // 2 + margin
    scale_x, scale_y = width / new_w, height / new_h
    return rows - 2 * cut_rows, cols - 2 * cut_cols, (
        (cut_cols * pitch - left) * scale_x,
        (cut_rows * pitch - top) * scale_y,
        ((cols - cut_cols) * pitch - left) * scale_x,
        ((rows - cut_rows) * pitch - top) * scale_y,
    )  # fmt: skip


def with_newlines(rows: int, cols: int, box: Box, image: int) -> Layout:
    """A view whose every row is followed by an image newline."""
    mark_rc = np.zeros((rows, cols + 1), dtype=bool)
    mark_rc[:, cols] = True
    return Layout([View(rows, cols, box, image)], mark_rc.ravel())


def llava_onevision(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """LLaVA-OneVision: as NeXT, a grid of too many patches thinned; several images of a pair are each shown once,
    padded to a square.

    Where the tile is no whole number of patches (384 pixels, patches of 14), its last pixels are not seen. The
    tiles' common grid is even all the same, set so that no patch is off by more than a quarter.
    """
    images = processor.image_processor
    tile, side = tile_size(images), math.isqrt(processor.num_image_tokens)
    patch = config.vision_config.patch_size
    share_seen = side * patch / tile
    if len(sizes) > 1:
        return join(padded_layout(size, side, share_seen, i) for i, size in enumerate(sizes))
    max_patches = int(processor.vision_aspect_ratio.removeprefix("anyres_max_"))
    parts = []
    for i, size in enumerate(sizes):
        parts.append(plain_layout([View(side, side, (0.0, 0.0, size[0] * share_seen, size[1] * share_seen), i)]))
        rows, cols, box = cells_without_padding(images, size, tile, side, patch)
        thinning = math.sqrt(rows * cols / (max_patches * side**2))
        if thinning > 1.1:
            rows, cols = int(rows // thinning), int(cols // thinning)
        parts.append(with_newlines(rows, cols, box, i))
    return join(parts)


def padded_layout(size: Size, side: int, share_seen: float, image: int) -> Layout:
    """An image in the middle of a square, followed by a newline. Patches whose middle lies beside the image are
    marks."""
    width, height = size
    edge = max(size)
    left, top = (edge - width) // 2, (edge - height) // 2
    pitch = edge * share_seen / side
    middle_n = (np.arange(side) + 0.5) * pitch
    in_rows = np.flatnonzero((middle_n > top) & (middle_n < top + height))
    in_cols = np.flatnonzero((middle_n > left) & (middle_n < left + width))
    mark_rc = np.ones((side, side), dtype=bool)
    mark_rc[np.ix_(in_rows, in_cols)] = False
    first_row, first_col, rows, cols = in_rows[0], in_cols[0], len(in_rows), len(in_cols)
    x0, y0 = float(first_col * pitch - left), float(first_row * pitch - top)
    view = View(rows, cols, (x0, y0, x0 + cols * pitch, y0 + rows * pitch), image)
    return Layout([view], np.append(mark_rc.ravel(), True))
