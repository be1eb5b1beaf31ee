"""Images with some of their patches painted over, in their own pixels: the model sees them the way it sees any."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from precompute.geometry.base import View, patch_box
from precompute.utils.types import Array


class Region(NamedTuple):
    """The pixels that a patch shows: rows top…bottom and columns left…right of one image, ends excluded."""

    image: int
    top: int
    bottom: int
    left: int
    right: int


def regions(views: Sequence[View], sizes: Sequence[tuple[int, int]]) -> list[Region]:
    """Of every patch, in order.

    A pixel belongs to the patch whose box its middle lies in, so that neighbours share none; a patch smaller than a
    pixel gets the one that it lies in, one outside the image gets none.

    Args:
        sizes: width and height of each image.
    """
    result = []
    for view in views:
        width, height = sizes[view.image]
        for row in range(view.rows):
            for col in range(view.cols):
                x0, y0, x1, y1 = patch_box(view, row, col, (width, height))
                result.append(Region(view.image, *span(y0, y1, height), *span(x0, x1, width)))
    return result


def span(low: float, high: float, size: int) -> tuple[int, int]:
    """First pixel between two edges, and the one behind the last."""
    if high <= low:
        return 0, 0
    first, end = math.ceil(low - 0.5), math.ceil(high - 0.5)
    if end <= first:
        first = min(math.floor((low + high) / 2), size - 1)
        end = first + 1
    return max(first, 0), min(end, size)


def visible_pixels(where: Sequence[Region], chosen_p: Array, sizes: Sequence[tuple[int, int]]) -> list[Array]:
    """bool [height, width] of each image: the pixels of the chosen patches. Where all are chosen nothing is
    filtered: then the pixels that no patch shows stay too."""
    if chosen_p.all():
        return [np.ones((height, width), dtype=bool) for width, height in sizes]
    masks = [np.zeros((height, width), dtype=bool) for width, height in sizes]
    for p in np.flatnonzero(chosen_p).tolist():
        image, top, bottom, left, right = where[p]
        masks[image][top:bottom, left:right] = True
    return masks


def paint(
    images: Sequence[Image.Image], masks: Sequence[Array], colour: tuple[int, int, int] = (0, 0, 0)
) -> list[Image.Image]:
    """The RGB images, of one colour outside the masks."""
    return [
        Image.fromarray(np.where(mask[:, :, None], np.asarray(image), np.array(colour, np.uint8)))
        for image, mask in zip(images, masks, strict=True)
    ]
