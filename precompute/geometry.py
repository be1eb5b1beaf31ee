"""Geometry of a model family: the patch of a view that an image token stands for, and its box in the picture.

One function per family, `(processor, config, sizes, n_tokens) -> views`; `FAMILIES` is the registry, keyed by
`config.model_type`. To add a family, write such a function and register it: nothing else knows of families.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from precompute.errors import SaevxError

Size = tuple[int, int]
"""Width and height in pixels."""


class View(NamedTuple):
    """A grid of patches that the model looks at; its image tokens run row by row."""

    rows: int
    cols: int
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the original image."""
    image: int
    """Which image of the sample."""


Geometry = Callable[[Any, Any, Sequence[Size], int], list[View]]
"""Processor, model config, the sample's image sizes and number of image tokens → its views in token order."""


def llava(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> list[View]:
    """LLaVA 1.5: one view an image, as the image processor resizes and crops it (CLIP: shortest edge, centre)."""
    images = processor.image_processor
    views = []
    for i, size in enumerate(sizes):
        (width, height), box = resized(images, size)
        rows, cols = height // processor.patch_size, width // processor.patch_size
        # What does not fill a patch at the right or lower edge is not seen.
        seen_x, seen_y = cols * processor.patch_size / width, rows * processor.patch_size / height
        x0, y0, x1, y1 = box
        views.append(View(rows, cols, (x0, y0, x0 + (x1 - x0) * seen_x, y0 + (y1 - y0) * seen_y), i))
    return views


def resized(images: Any, size: Size) -> tuple[Size, tuple[float, float, float, float]]:
    """Size of what the image processor hands to the tower, and the part of the original that it shows.

    Raises:
        SaevxError: the processor's settings are of a kind that is not understood.
    """
    width, height = size
    out_w, out_h = width, height
    if images.do_resize:
        target = images.size
        if "shortest_edge" in target and "longest_edge" not in target:
            short, long = sorted(size)
            edge = int(target["shortest_edge"])
            other = int(edge * long / short)
            out_w, out_h = (edge, other) if width <= height else (other, edge)
        elif "height" in target and "width" in target:
            out_w, out_h = int(target["width"]), int(target["height"])
        else:
            raise SaevxError(
                f"The image processor resizes by {dict(target)}, which the geometry of LLaVA does not know: "
                "run with --geometry square."
            )
    box = (0.0, 0.0, float(width), float(height))
    if getattr(images, "do_center_crop", False):
        crop_w, crop_h = int(images.crop_size["width"]), int(images.crop_size["height"])
        left, top = (out_w - crop_w) // 2, (out_h - crop_h) // 2
        scale_x, scale_y = width / out_w, height / out_h
        box = (left * scale_x, top * scale_y, (left + crop_w) * scale_x, (top + crop_h) * scale_y)
        out_w, out_h = crop_w, crop_h
    return (out_w, out_h), box


def text_only(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> list[View]:
    """A causal language model: no views."""
    if sizes:
        raise SaevxError("This model reads text only: give data without images, or a multimodal model.")
    return []


def square(processor: Any, config: Any, sizes: Sequence[Size], n_tokens: int) -> list[View]:
    """For an unknown family, on the user's word: each image one square grid over the whole picture.

    Raises:
        SaevxError: the number of image tokens is not that of equal squares.
    """
    if not sizes:
        return []
    side = math.isqrt(n_tokens // len(sizes))
    if side * side * len(sizes) != n_tokens or not side:
        raise SaevxError(
            f"{n_tokens} image tokens for {len(sizes)} image(s) are no square grid, so --geometry square does "
            "not fit this model: add its geometry to precompute/geometry.py."
        )
    return [View(side, side, (0.0, 0.0, float(w), float(h)), i) for i, (w, h) in enumerate(sizes)]


FAMILIES: dict[str, Geometry] = {"llava": llava}


def find(model_type: str, *, multimodal: bool, asked: str | None = None) -> tuple[str, Geometry]:
    """Name and function of the family's geometry.

    Args:
        asked: `--geometry`: "square", or the name of a family to treat this model as.

    Raises:
        SaevxError: an unknown family, with how to add one.
    """
    if asked is not None and asked != "square" and asked not in FAMILIES:
        raise SaevxError(
            f"No geometry is called {asked!r}: choose from square, {', '.join(sorted(FAMILIES))}."
        )
    if not multimodal:
        return "text-only", text_only
    if asked == "square":
        return "square", square
    name = asked or model_type
    if name not in FAMILIES:
        raise SaevxError(
            f"The geometry of model family {name!r} is not known (known: {', '.join(sorted(FAMILIES))}): if its "
            "image tokens are one square grid run with --geometry square, else add a function to "
            "precompute/geometry.py."
        )
    return name, FAMILIES[name]
