"""An area of a map: a polygon, as an address names it, and what lies inside."""

import numpy as np

from precompute.errors import SaevxError
from precompute.store.mapfile import LAST, NOWHERE, FeatureMap, SampleMap
from precompute.utils.types import Array

MAX_CORNERS = 200


def layout_of(area: str) -> str:
    """The layout of the map on which an area lies: `profile` where its text begins so."""
    return "profile" if area.startswith("profile_") else "decoder"


def parse_area(text: str) -> Array:
    """int64 [c, 2]: the corners of a polygon, written `x-y_x-y_x-y` in the units of `map.bin`, after `profile_` where
    it lies on that map.

    Raises:
        SaevxError: it is no such list of at least three corners.
    """
    corners = [corner.split("-") for corner in text.removeprefix("profile_").split("_")]
    is_valid = all(len(xy) == 2 and all(v.isascii() and v.isdigit() and len(v) < 6 for v in xy) for xy in corners)
    if not is_valid or not 3 <= len(corners) <= MAX_CORNERS:
        corner = f"{MAX_CORNERS} corners x-y from 0 to {LAST}"
        raise SaevxError(f"`area` is no polygon of the map: give 3 to {corner}, joined by _.")
    return np.array(corners, np.int64)


def points_inside(columns: FeatureMap | SampleMap, corner_c2: Array) -> Array:
    """int64 [n], rising: the features, or rows of samples, inside a polygon of their map, by the even-odd rule.

    Args:
        corner_c2: int64 [c, 2], x and y of its corners in the units of `map.bin`.
    """
    low, high = corner_c2.min(axis=0), corner_c2.max(axis=0)
    x, y = columns.x, columns.y
    in_box = np.flatnonzero((x != NOWHERE) & (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    x, y = x[in_box].astype(np.float64), y[in_box].astype(np.float64)
    is_inside = np.zeros(len(in_box), bool)
    for (x0, y0), (x1, y1) in zip(corner_c2.tolist(), np.roll(corner_c2, -1, axis=0).tolist(), strict=True):
        if y0 != y1:
            is_inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return in_box[is_inside]
