"""Decoder directions without what all of them share (METHOD, *Directions*): the mean direction is taken off before
directions are compared."""

from typing import NamedTuple

import numpy as np
import torch

from precompute.products.search import largest_products
from precompute.products.setting import Products
from precompute.sae.logit_lens import logit_lens
from precompute.utils.stats import unit
from precompute.utils.types import Array

NEAR_COPY = 0.95
"""Centred cosine from which `direction_figures` counts two features as near-copies."""
OWN_SHARE = 1e-4
"""A direction that lies nearer to the mean has nothing of its own; what is left would be rounding."""


class CentredDirections(NamedTuple):
    """Directions of F features after the mean unit direction of those that are alive is taken off."""

    mean_d: Array
    """float32 [d]: the mean unit direction; zero where no feature is alive."""
    unit_fd: Array
    """float32 [F, d]: unit(unit(d_k) − mean); zero where d_k is zero or the mean itself."""
    length_f: Array
    """float32 [F]: ‖d_k‖."""
    distance_f: Array
    """float32 [F]: ‖unit(d_k) − mean‖; with it unit(d_k) = mean + distance · centred."""
    mean_cosine_f: Array
    """float32 [F]: cosine of d_k with the mean; NaN where either is zero."""


def centre(directions_fd: Array, alive_f: Array) -> CentredDirections:
    """Takes the mean off.

    Args:
        directions_fd: decoder directions d_k, float [F, d]. alive_f: bool [F], active on a token.
    """
    unit_fd = unit(np.asarray(directions_fd, dtype=np.float32))
    length_f = np.linalg.norm(directions_fd, axis=1).astype(np.float32)
    has_direction_f = length_f > 0
    counted_f = alive_f & has_direction_f
    mean_d = unit_fd[counted_f].mean(0, dtype=np.float64) if counted_f.any() else np.zeros(unit_fd.shape[1])
    mean_d = mean_d.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine_f = np.where(has_direction_f, unit_fd @ mean_d / np.linalg.norm(mean_d), np.nan)
    own_fd = unit_fd - mean_d
    distance_f = np.linalg.norm(own_fd, axis=1).astype(np.float32)
    own_fd[~has_direction_f | (distance_f < OWN_SHARE)] = 0
    return CentredDirections(mean_d, unit(own_fd), length_f, distance_f, np.clip(cosine_f, -1, 1).astype(np.float32))


def mean_pairwise_cosine(directions_nd: Array) -> float:
    """Mean cosine of all pairs of n ≥ 2 directions [n, d], none of them zero."""
    n = len(directions_nd)
    square = float((unit(directions_nd.astype(np.float64)).sum(0) ** 2).sum())
    return (square - n) / (n * (n - 1))


def largest_cosines(vectors_nd: Array) -> Array:
    """float32 [n]: of each of n ≥ 2 unit vectors the cosine with the nearest other one."""
    cosine_n1, _ = largest_products(torch.from_numpy(vectors_nd), 1, Products(), "neighbours", itself=False)
    return cosine_n1[:, 0]


def direction_figures(
    directions_fd: Array, alive_f: Array, norm_weight_d: Array | None, unembed_vd: Array
) -> dict[str, float | None]:
    """What the directions of an SAE share, over the features that are alive and have a direction: for `saevx evaluate`.

    Args: as of `centre` and `logit_lens`.

    Returns:
        `mean_pairwise_cosine`; `near_copies`, the share with a centred cosine of at least NEAR_COPY to another;
        `own_tokens`, the share whose promoted tokens (centred) are their own: fewer than half of them are among the ten
        tokens that most features promote; `informative_lens`, the share of which the lens says anything. None where
        fewer than two features are alive.
    """
    own_f = alive_f & (np.linalg.norm(directions_fd, axis=1) > 0)
    names = ("mean_pairwise_cosine", "near_copies", "own_tokens", "informative_lens")
    if own_f.sum() < 2:
        return dict.fromkeys(names)
    alive_nd = directions_fd[own_f]
    all_n = np.ones(len(alive_nd), bool)
    lens = logit_lens(alive_nd, all_n, norm_weight_d, unembed_vd)
    copies = largest_cosines(centre(alive_nd, all_n).unit_fd) >= NEAR_COPY
    figures = (mean_pairwise_cosine(alive_nd), copies.mean(), own_tokens(lens["promoted"]), lens["informative"].mean())
    return {name: float(value) for name, value in zip(names, figures, strict=True)}


def own_tokens(promoted_nk: Array) -> float:
    """Share of features whose promoted tokens are their own: of the k tokens of a row [n, k], fewer than half are among
    the k tokens that most features promote."""
    tokens, count = np.unique(promoted_nk, return_counts=True)
    commonest = tokens[np.argsort(-count, kind="stable")[: promoted_nk.shape[1]]]
    return float((np.isin(promoted_nk, commonest).sum(1) < promoted_nk.shape[1] / 2).mean())
