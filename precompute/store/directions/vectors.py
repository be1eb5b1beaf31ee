"""The decoder directions of a store, raw and centred, from its index of centred ones."""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from precompute.store.core import Core
from precompute.store.events import map_array
from precompute.store.search import Search
from precompute.utils.types import Array

MEAN, SCALES = "mean_direction.npy", "direction_scales.npy"
SCALE = np.dtype([("length", "<f4"), ("distance", "<f4")])
"""A feature's entry in SCALES: ‖d_k‖, and the distance of d_k / ‖d_k‖ from the mean direction."""


class Direction(NamedTuple):
    """One feature's decoder direction. The store rounds the centred one to float16, and both carry that rounding."""

    raw_d: Array
    """float32 [d]: d_k, in the units of the residual stream."""
    centred_d: Array
    """float32 [d]: unit(d_k / ‖d_k‖ − mean direction); zero where nothing is left."""


class Directions:
    """`store.directions`: decoder directions, and their mean, which is taken off before they are compared."""

    def __init__(self, core: Core, search: Search) -> None:
        self._core, self._search = core, search

    @cached_property
    def mean(self) -> Array:
        """float32 [d]: the mean unit direction of the features that are not dead."""
        return map_array(self._core.file(f"index/{MEAN}"))

    @cached_property
    def scales(self) -> Array:
        """`SCALE` [F]."""
        return map_array(self._core.file(f"index/{SCALES}"))

    def get(self, feature: int) -> Direction:
        """The direction of a feature. Raises SaevxError: no such feature."""
        self._core.check_feature(feature)
        centred_d: Array = self._search.index("decoder").reconstruct(int(feature))
        length, distance = self.scales[feature]
        return Direction(length * (self.mean + distance * centred_d), centred_d)
