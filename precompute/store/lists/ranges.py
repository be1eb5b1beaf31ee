"""How the figures of a store's features are distributed: what a list can be limited to a range of."""

from typing import NamedTuple

import numpy as np
from sqlalchemy import Engine

from precompute.store.core import feature_columns
from precompute.store.lists.filters import RANGED
from precompute.utils.types import Array

BINS = 28
TAIL = 0.005
"""Share of the features beyond either end of a linear axis: the first and the last bin hold them too."""
ON_LOG_AXIS = ("pair_lift", "density_text", "density_image", "n_samples")
"""Figures over several orders of magnitude; features with 0 are in no bin of theirs."""


class Distribution(NamedTuple):
    """A histogram of one figure over the features that have it."""

    name: str
    edges: list[float]
    """`BINS` + 1, or none where no feature has the figure."""
    counts: list[int]
    """The first and the last bin hold what lies beyond them too."""
    log: bool
    """Whether the bins are equally wide on a logarithmic axis."""
    n_missing: int
    """Features without the figure, or on a logarithmic axis with 0."""


Distributions = list[Distribution]


def distributions(engine: Engine) -> Distributions:
    """Of every figure in `RANGED`, over all features of the store."""
    columns = zip(RANGED, feature_columns(engine, *RANGED).T, strict=True)
    return [_distribution(name, value_f, name in ON_LOG_AXIS) for name, value_f in columns]


def _distribution(name: str, value_f: Array, log: bool) -> Distribution:
    """Of values float64 [F], NaN for null."""
    value_n = value_f[value_f > 0] if log else value_f[np.isfinite(value_f)]
    if not len(value_n):
        return Distribution(name, [], [], log, len(value_f))
    low, high = (value_n.min(), value_n.max()) if log else np.quantile(value_n, [TAIL, 1 - TAIL])
    if low == high:  # one bin of some width
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    edges = np.geomspace(low, high, BINS + 1) if log else np.linspace(low, high, BINS + 1)
    counts = np.bincount(np.clip(np.searchsorted(edges, value_n, "right") - 1, 0, BINS - 1), minlength=BINS)
    return Distribution(name, edges.tolist(), counts.tolist(), log, len(value_f) - len(value_n))
