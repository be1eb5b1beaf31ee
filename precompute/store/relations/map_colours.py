"""What the maps colour by: a byte a feature, or a sample."""

import numpy as np

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.places import sides_of
from precompute.store.reader import Store
from precompute.store.sql import fetch_plain
from precompute.utils.types import Array

BY = ("family", "agreement", "label_score", "place", "sample")
"""What `colours` knows; verdict, ω and density are in `map.bin`."""
N_FAMILY_COLOURS = 8
OF_SAMPLES = ("flags", *s.FLAGS, *s.SCORES)
"""What `sample_colours` knows."""


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
    values = [value for (value,) in fetch_plain(store.engine, f"SELECT {by} FROM features ORDER BY id")]
    if by == "family":  # a multiplication scatters numbers that are close, as those of neighbours on the map may be
        return np.array([0 if v is None else 1 + (v * 2654435761 >> 12) % N_FAMILY_COLOURS for v in values], np.uint8)
    if by == "place":
        return np.array([0 if v is None else 1 + s.PLACES.index(v.split(" ")[0]) for v in values], np.uint8)
    return quantise_share(np.array(values, np.float64))


def shares(store: Store, row: int) -> Array:
    """float64 [F]: a sample's largest activation of each feature as a share of its p99.9, at most 1; NaN where off."""
    share_f = np.full(store.n_features, np.nan)
    p999_f = store.features.table["p999"]
    for feature_k, z_k in sides_of(store.events, row):
        share_k = np.minimum(z_k / np.maximum(p999_f[feature_k], 1e-9), 1)
        share_f[feature_k] = np.fmax(share_f[feature_k], share_k)
    return share_f


def quantise_share(share: Array) -> Array:
    """uint8 [F] of float64 [F]: 0 for NaN, else 0 … 1 in 255 steps."""
    is_known = ~np.isnan(share)
    return np.where(is_known, 1 + np.rint(254 * np.clip(np.where(is_known, share, 0), 0, 1)), 0).astype(np.uint8)


def sample_colours(store: Store, name: str) -> Array:
    """uint8 [N]. `flags`: how many flags the sample has. A flag: 0 where it was not judged, 1 not above the threshold,
    2 above it. A score: 0 for none, else 1 … 255 between the two of `store.quality.score_ends`, and at these ends for
    all beyond.

    Raises:
        SaevxError: a colour that does not exist.
    """
    if name not in OF_SAMPLES:
        raise SaevxError(f"Cannot colour samples by {name!r}: use one of {', '.join(OF_SAMPLES)}.")
    if name in s.SCORES:
        low, high = store.quality.score_ends(name)
        return quantise_share((store.quality.score_values(name) - low) / max(high - low, 1e-30))
    if name in s.FLAGS:
        value = store.selection.values(name)
        return np.where(np.isnan(value), 0, 1 + (value > store.quality.flag(name)["threshold"])).astype(np.uint8)
    flags = [flag_info["name"] for flag_info in store.quality.flags if flag_info["count"]]
    n_raised = sum((sample_colours(store, flag) == 2 for flag in flags), np.zeros(store.n_samples, dtype=np.int64))
    return np.asarray(n_raised, dtype=np.uint8)
