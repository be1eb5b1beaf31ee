"""Images of samples with where a feature fires, as PNG."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from backend.drawing.heat import COLOURS, LEVELS, level

EDGE, GAP, COLUMNS, LINE = 256, 8, 3, 18
"""Longer edge of an image, space between two, images in a row, and height of the line below each; in pixels."""
OPACITY = 150
"""Of the heat over the image, of 255."""


class Tile(NamedTuple):
    """An image, what fires on it, and the line below it."""

    image: bytes
    size: tuple[int, int]
    """Width and height of the original, to which boxes refer."""
    grid: dict[str, Any] | None
    """One view with `box`, `rows`, `cols` and `values`, rows of columns, as the API gives it."""
    peak: Sequence[float] | None
    """Box x0, y0, x1, y1 of the patch to outline."""
    line: str


def with_heat(tile: Tile, top: float) -> Image.Image:
    """The image with its heat over it; `top` is the activation of the last step of the scale."""
    with Image.open(io.BytesIO(tile.image)) as image_file:
        image = image_file.convert("RGB")
    image.thumbnail((EDGE, EDGE))
    sx, sy = image.width / tile.size[0], image.height / tile.size[1]
    layer = Image.new("RGBA", image.size)
    pen = ImageDraw.Draw(layer)
    if tile.grid:
        x0, y0, x1, y1 = tile.grid["box"]
        width, height = (x1 - x0) / tile.grid["cols"], (y1 - y0) / tile.grid["rows"]
        for row, columns in enumerate(tile.grid["values"]):
            for col, value in enumerate(columns):
                if step := min(level(value, top), LEVELS):
                    x, y = x0 + col * width, y0 + row * height
                    box = (x * sx, y * sy, (x + width) * sx - 1, (y + height) * sy - 1)
                    pen.rectangle(box, fill=(*bytes.fromhex(COLOURS[step - 1][1:]), OPACITY))
    if tile.peak:
        box = (tile.peak[0] * sx, tile.peak[1] * sy, tile.peak[2] * sx - 1, tile.peak[3] * sy - 1)
        pen.rectangle(box, outline="black", width=4)
        pen.rectangle(box, outline="white", width=2)
    image.paste(layer, mask=layer)
    return image


def panel(tiles: Sequence[Tile], top: float) -> bytes:
    """The images in rows of three, each with its line below, as PNG."""
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // COLUMNS)
    cell = EDGE + GAP, EDGE + LINE + GAP
    sheet = Image.new("RGB", (columns * cell[0] + GAP, rows * cell[1] + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for i, tile in enumerate(tiles):
        x, y = GAP + i % COLUMNS * cell[0], GAP + i // COLUMNS * cell[1]
        sheet.paste(with_heat(tile, top), (x, y))
        pen.text((x, y + EDGE + 2), tile.line, fill="black")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
