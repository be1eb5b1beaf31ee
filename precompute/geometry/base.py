"""What the geometry of each model family is made of: views, and which of the image's tokens are marks. The families
themselves are listed in `__init__.py`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from precompute.errors import SaevxError

Size = tuple[int, int]
"""Width and height in pixels."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the original image."""


class View(NamedTuple):
    """A grid of patches that the model looks at; its image tokens run row by row."""

    rows: int
    cols: int
    box: Box
    """Where the whole grid lies. It may reach over the image's edge by a part of a patch: see `patch_box`."""
    image: int
    """Which image of the sample."""


class Layout(NamedTuple):
    """The image tokens of a sample, in order."""

    views: list[View]
    mark_n: NDArray[np.bool_]
    """[n] for every token with the model's image token id: whether it stands for no patch (image newline,
    padding), and so is SPECIAL. The others walk the views."""


Geometry = Callable[[Any, Any, Sequence[Size], int], Layout]
"""Processor, model config, the sample's image sizes and number of image tokens → its layout."""


def plain_layout(views: Sequence[View]) -> Layout:
    """Views without any mark between them."""
    return Layout(list(views), np.zeros(sum(view.rows * view.cols for view in views), dtype=bool))


def join(layouts: Iterable[Layout]) -> Layout:
    """One after the other."""
    parts = list(layouts)
    marks = [np.zeros(0, dtype=bool), *(part.mark_n for part in parts)]
    return Layout([view for part in parts for view in part.views], np.concatenate(marks))


def full_image(size: Size) -> Box:
    return 0.0, 0.0, float(size[0]), float(size[1])


def patch_box(view: View, row: int, col: int, size: Size) -> Box:
    """Box of one patch, cut off at the edges of its image of `size`."""
    x0, y0, x1, y1 = view.box
    w, h = (x1 - x0) / view.cols, (y1 - y0) / view.rows
    return (
        max(x0 + col * w, 0.0),
        max(y0 + row * h, 0.0),
        min(x0 + (col + 1) * w, float(size[0])),
        min(y0 + (row + 1) * h, float(size[1])),
    )


def setting(processor: Any, name: str) -> Any:
    """An image setting as it is when the processor is called: its own defaults go before the image processor's."""
    settings: dict[str, Any] = getattr(processor, "images_kwargs", None) or {}
    return settings[name] if name in settings else getattr(processor.image_processor, name)


def resized_size(images: Any, size: Size) -> tuple[Size, Box]:
    """Size of what the image processor hands to the tower, and the part of the original that it shows.

    Raises:
        SaevxError: the processor's settings are of a kind that is not understood.
    """
    width, height = size
    out_w, out_h = width, height
    if images.do_resize:
        target = images.size
        if "shortest_edge" in target and "longest_edge" not in target:
            short_edge, long_edge = sorted(size)
            edge = int(target["shortest_edge"])
            other_edge = int(edge * long_edge / short_edge)
            out_w, out_h = (edge, other_edge) if width <= height else (other_edge, edge)
        elif "height" in target and "width" in target:
            out_w, out_h = int(target["width"]), int(target["height"])
        else:
            raise SaevxError(
                f"The image processor resizes by {dict(target)}, which the geometry of this model does not know: "
                "run with --geometry square."
            )
    box = full_image(size)
    if getattr(images, "do_center_crop", False):
        crop_w, crop_h = int(images.crop_size["width"]), int(images.crop_size["height"])
        left, top = (out_w - crop_w) // 2, (out_h - crop_h) // 2
        scale_x, scale_y = width / out_w, height / out_h
        box = (left * scale_x, top * scale_y, (left + crop_w) * scale_x, (top + crop_h) * scale_y)
        out_w, out_h = crop_w, crop_h
    return (out_w, out_h), box


def text_only(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """A causal language model: no views."""
    if sizes:
        raise SaevxError("This model reads text only: give data without images, or a multimodal model.")
    return plain_layout([])


def square(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> Layout:
    """For an unknown family, on the user's word: each image one square grid over the full image.

    Raises:
        SaevxError: the number of image tokens is not that of equal squares.
    """
    if not sizes:
        return plain_layout([])
    side = math.isqrt(n_tokens // len(sizes))
    if side * side * len(sizes) != n_tokens or not side:
        raise SaevxError(
            f"{n_tokens} image tokens for {len(sizes)} image(s) are no square grid, so --geometry square does "
            "not fit this model: add its geometry to precompute/geometry."
        )
    return plain_layout([View(side, side, full_image(size), i) for i, size in enumerate(sizes)])
