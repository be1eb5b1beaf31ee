"""Activations over images and tokens, as levels and SVG paths; `frontend/static/js/heatmap.js` has the same rule."""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, NamedTuple, TypeVar

from backend.drawing.text import display_token, running_text
from backend.schemas.common import View
from backend.schemas.features import Example, FeatureDetail, TokenActivation
from backend.schemas.samples import FeatureScale

LEVELS = 8
"""Steps of the colour scale, `--t1 … --t8` and `--p1 … --p8` in tokens.css."""
COLOURS = ("#44059b", "#78189c", "#ab278e", "#d73c75", "#f95c52", "#ff9047", "#ffbd57", "#ffe64b")
"""`--p1 … --p8`, for drawings outside of pages."""
GridT = TypeVar("GridT", bound=View)
"""A view with `values`: of one feature, or of several."""


def level(value: float | None, top: float) -> int:
    """0 if inactive, otherwise 1 … LEVELS in proportion to `top`, the value of the last step."""
    if value is None or not value > 0 or not top > 0:
        return 0
    return min(LEVELS, max(1, math.ceil(value / top * LEVELS)))


def finest(grids: Sequence[GridT]) -> GridT | None:
    """Of one image's views with the values of one feature, the view with the smallest patches in which it fires. If it
    fires in none, the view with the smallest patches; views without patches, which processors of some model families
    make of a long thin image, are left out."""
    nonempty = [grid for grid in grids if grid.rows and grid.cols]
    with_values = [grid for grid in nonempty if any(value for row in first_values(grid) for value in row)]
    return min(with_values or nonempty, key=lambda grid: (grid.box[2] - grid.box[0]) / grid.cols, default=None)


def first_values(grid: GridT) -> Sequence[Sequence[float | None]]:
    """Rows of a grid's values; of the first feature, if the grid has several."""
    values: Any = grid.values  # type: ignore[attr-defined]
    return values[0] if values and values[0] and isinstance(values[0][0], list) else values


@dataclass(frozen=True, slots=True)
class Heat:
    """Activations over one image: one path per level, in the pixels of the image."""

    width: float
    height: float
    paths: list[tuple[int, str]]
    peak: str | None = None
    edge: str = ""
    """Outline of the patches above half of the scale."""


def rect(x0: float, y0: float, width: float, height: float) -> str:
    """SVG path of a rectangle."""
    return f"M{x0:.5g} {y0:.5g}h{width:.5g}v{height:.5g}h{-width:.5g}z"


def patch_path(view: View, row: int, col: int) -> str:
    """Outline of one patch of a view."""
    x0, y0, x1, y1 = view.box
    width, height = (x1 - x0) / view.cols, (y1 - y0) / view.rows
    return rect(x0 + col * width, y0 + row * height, width, height)


def outline(view: View, cells: AbstractSet[tuple[int, int]]) -> str:
    """SVG path around patches (row, column) of a view."""
    x0, y0, x1, y1 = view.box
    width, height = (x1 - x0) / view.cols, (y1 - y0) / view.rows
    d = ""
    for row, col in sorted(cells):
        x, y = x0 + col * width, y0 + row * height
        d += "" if (row - 1, col) in cells else f"M{x:.5g} {y:.5g}h{width:.5g}"
        d += "" if (row + 1, col) in cells else f"M{x:.5g} {y + height:.5g}h{width:.5g}"
        d += "" if (row, col - 1) in cells else f"M{x:.5g} {y:.5g}v{height:.5g}"
        d += "" if (row, col + 1) in cells else f"M{x + width:.5g} {y:.5g}v{height:.5g}"
    return d


def heat(
    view: View,
    values: Sequence[Sequence[float | None]],
    *,
    top: float,
    size: tuple[float, float],
    peak: Sequence[float] | None = None,
) -> Heat:
    """Heat of one view over its image of `size` (width, height) pixels.

    One path per level keeps an image at twelve elements, however many patches it has.

    Args:
        values: rows of columns, activations in the SAE's units.
        peak: box x0, y0, x1, y1 of the patch to outline.
    """
    paths, strong_cells = [""] * (LEVELS + 1), set()
    for row, columns in enumerate(values):
        for col, value in enumerate(columns):
            if value and (step := level(value, top)):  # most patches are inactive
                paths[step] += patch_path(view, row, col)
                if step > LEVELS // 2:
                    strong_cells.add((row, col))
    frame = rect(peak[0], peak[1], peak[2] - peak[0], peak[3] - peak[1]) if peak else None
    return Heat(size[0], size[1], [(k, d) for k, d in enumerate(paths) if d], frame, outline(view, strong_cells))


SideScale = Literal["side"]
"""Scale of its own for each modality; otherwise one scale for both, in the address."""


def tops(feature: FeatureScale | FeatureDetail, scale: SideScale | None) -> tuple[float, float]:
    """Activations of the last step of the colour scales of text and of images: the feature's 99.9th percentile over
    both, so that a side on which it hardly fires stays pale."""
    return (feature.max_text, feature.max_image) if scale else (feature.p999, feature.p999)


class TokenRun(NamedTuple):
    """Text as the macro `tokens` draws it: one active token, or all inactive tokens between two active ones."""

    spaced: bool
    """Whether it begins with a space, which is then drawn before it and is not in `text`."""
    text: str
    position: int
    """Of its first token."""
    value: float | None
    level: int


def token_runs(tokens: Sequence[TokenActivation], top: float) -> list[TokenRun]:
    """The tokens of a window with their levels, relative to `top`; inactive neighbours become one run."""
    runs: list[TokenRun] = []
    for step, group in groupby(tokens, key=lambda t: level(t.activation, top) if t.activation else 0):
        if step:
            runs += [TokenRun(*display_token(t.text), t.position, t.activation, step) for t in group]
        else:
            first, *other_tokens = group
            has_space = first.text[:1] == " "
            text = running_text(first.text[has_space:]) + "".join([running_text(t.text) for t in other_tokens])
            runs.append(TokenRun(has_space, text, first.position, None, 0))
    return runs


class HeatImage(NamedTuple):
    """An image's address and the activations over it."""

    url: str
    heat: Heat | None
    number: int = 0
    """Of the image within its sample."""


def example_image(example: Example, top: float, query: str = "") -> HeatImage | None:
    """The image of an example with its grid over it; None for a text without images. `query` ends its address: a small
    image has no outline."""
    if not example.images:
        return None
    grid, patch = example.grid, example.patch
    number = grid.image if grid else patch.image if patch else 0
    image = example.images[number]
    box = patch.box if patch else None
    image_heat = None
    if grid:
        image_heat = heat(grid, grid.values, top=top, size=(image.width, image.height), peak=box)
        image_heat = replace(image_heat, edge="") if query else image_heat
    elif box:  # a store without activations still knows the place
        image_heat = Heat(image.width, image.height, [], rect(box[0], box[1], box[2] - box[0], box[3] - box[1]))
    return HeatImage(image.url + query, image_heat, number)
