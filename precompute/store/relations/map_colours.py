"""What the map of features colours by, a byte a feature, and the features inside an area of it."""

from __future__ import annotations

import numpy as np

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.mapfile import LAST, NOWHERE, FeatureMap
from precompute.store.reader import Store
from precompute.store.sql import fetch_plain
from precompute.utils.types import Array

BY = ("family", "agreement", "label_score", "place", "sample")
"""What `colours` knows; verdict, ω and density are in `map.bin`."""
N_FAMILY_COLOURS = 8
MAX_CORNERS = 200


def colours(store: Store, by: str, row: int | None = None) -> Array:
    """uint8 [F]: 0 for none. `family`: one of eight groups, equal within a family; 0 for a feature without one.
    `place`: 1 + the kind's place in `schema.PLACES`. Else 1 … 255 for 0 … 1: agreement, the score of the label, or in
    the sample of `row` the largest activation as a share of the feature's p99.9.

    Raises:
        SaevxError: a colour that does not exist, or `sample` without a row.
    """
    if by not in BY or (by == "sample" and row is None):
        raise SaevxError(f"Cannot colour by {by!r}: use one of {', '.join(BY)}; sample needs a sample's id.")
    if by == "sample":
        return quantise_share(shares(store, int(row or 0)))
    values = [one for (one,) in fetch_plain(store.engine, f"SELECT {by} FROM features ORDER BY id")]
    if by == "family":  # a multiplication scatters numbers that are close, as those of neighbours on the map may be
        return np.array([0 if v is None else 1 + (v * 2654435761 >> 12) % N_FAMILY_COLOURS for v in values], np.uint8)
    if by == "place":
        return np.array([0 if v is None else 1 + s.PLACES.index(v.split(" ")[0]) for v in values], np.uint8)
    return quantise_share(np.array(values, np.float64))


def shares(store: Store, row: int) -> Array:
    """float64 [F]: a sample's largest activation of each feature as a share of its p99.9, at most 1; NaN where off."""
    share_f = np.full(store.n_features, np.nan)
    p999_f = store.features.table["p999"]
    for modality in range(2):
        feature_k, z_k = store.events.maxima(row, modality)
        share_k = np.minimum(z_k / np.maximum(p999_f[feature_k], 1e-9), 1)
        share_f[feature_k] = np.fmax(share_f[feature_k], share_k)
    return share_f


def quantise_share(share: Array) -> Array:
    """uint8 [F] of float64 [F]: 0 for NaN, else 0 … 1 in 255 steps."""
    known = ~np.isnan(share)
    return np.where(known, 1 + np.rint(254 * np.clip(np.where(known, share, 0), 0, 1)), 0).astype(np.uint8)


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
    good = all(len(one) == 2 and all(v.isascii() and v.isdigit() and len(v) < 6 for v in one) for one in corners)
    if not good or not 3 <= len(corners) <= MAX_CORNERS:
        corner = f"{MAX_CORNERS} corners x-y from 0 to {LAST}"
        raise SaevxError(f"`area` is no polygon of the map: give 3 to {corner}, joined by _.")
    return np.array(corners, np.int64)


def inside(columns: FeatureMap, corner_c2: Array) -> Array:
    """int64 [n], rising: the features inside a polygon of the map, by the even-odd rule.

    Args:
        corner_c2: int64 [c, 2], x and y of its corners in the units of `map.bin`.
    """
    low, high = corner_c2.min(axis=0), corner_c2.max(axis=0)
    x, y = columns.x, columns.y
    near = np.flatnonzero((x != NOWHERE) & (x >= low[0]) & (x <= high[0]) & (y >= low[1]) & (y <= high[1]))
    x, y = x[near].astype(np.float64), y[near].astype(np.float64)
    crossed = np.zeros(len(near), bool)
    for (x0, y0), (x1, y1) in zip(corner_c2.tolist(), np.roll(corner_c2, -1, axis=0).tolist(), strict=True):
        if y0 != y1:
            crossed ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    chosen: Array = near[crossed]
    return chosen
