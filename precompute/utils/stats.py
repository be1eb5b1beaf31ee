"""Statistics that several rooms need: unit vectors, ratios, shuffles, the bootstrap, AUROC, histograms, quantiles."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import gammaincinv

from precompute.utils.types import Array

N_BINS = 40
CHUNK_RESAMPLES = 256


def unit(vectors: Array) -> Array:
    """Rows scaled to length 1; zero rows stay zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def ratio(numerator: Array | float, denominator: Array | float, empty: float = 0.0) -> Array:
    """float64: the quotients, of the shape to which both are broadcast; `empty` where a denominator is not above 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, empty), where=denominator > 0)


def derangement(n: int, rng: np.random.Generator) -> Array:
    """A permutation without a fixed point: one random cycle."""
    order = rng.permutation(n)
    result = np.empty(n, dtype=np.int64)
    result[order] = np.roll(order, 1)
    return result


def bootstrap_rows(n: int, resamples: int, seed: int, chunk: int = CHUNK_RESAMPLES) -> Iterator[Array]:
    """Seeded draws of n of n items with replacement, int64 [w, n] at a time, in all `resamples` of them. The same
    arguments give the same draws, so figures of the same items can be compared draw by draw."""
    rng = np.random.default_rng(seed)
    for begin in range(0, resamples, chunk):
        yield rng.integers(0, n, (min(chunk, resamples - begin), n))


def bootstrap_weights(n: int, resamples: int, seed: int, chunk: int = CHUNK_RESAMPLES) -> Iterator[Array]:
    """The draws of `bootstrap_rows` as how often each item counts in each: float64 [w, n]."""
    for rows_wn in bootstrap_rows(n, resamples, seed, chunk):
        yield np.stack([np.bincount(rows, minlength=n) for rows in rows_wn]).astype(np.float64)


def interval(value: float, draws: Array) -> dict[str, float] | None:
    """A figure with the 95 % percentile interval of its draws, of which NaN is left out; None where it is not
    finite."""
    if not np.isfinite(value):
        return None
    low, high = np.nanpercentile(draws, [2.5, 97.5]).tolist()
    return {"value": float(value), "low": low, "high": high}


def wilson(n_hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.959964
    share, slack = n_hits / n, z * z / n
    centre, half_width = share + slack / 2, z * (share * (1 - share) / n + slack / (4 * n)) ** 0.5
    return (centre - half_width) / (1 + slack), (centre + half_width) / (1 + slack)


def share_interval(n_hits: int, n: int) -> dict[str, float] | None:
    """A share with Wilson's 95 % interval, and the two numbers that it is of; None of nothing."""
    if not n:
        return None
    low, high = wilson(n_hits, n)
    return {"value": n_hits / n, "low": low, "high": high, "hits": n_hits, "n": n}


def hit_share(hits: Sequence[bool]) -> dict[str, float] | None:
    """`share_interval` of what was hit or not, one after the other."""
    return share_interval(sum(map(bool, hits)), len(hits))


def poisson_interval(count: Array) -> tuple[Array, Array]:
    """(low, high), float64 of the same shape: the exact 95 % interval of the mean of a Poisson count (Garwood).

    Args:
        count: int, events that were counted.
    """
    distinct, of_each = np.unique(count, return_inverse=True)
    # Half the quantiles of χ² with 2n and 2n + 2 degrees of freedom.
    low = np.where(distinct > 0, gammaincinv(distinct, 0.025), 0.0)
    high = gammaincinv(distinct + 1.0, 0.975)
    of_each = of_each.reshape(np.shape(count))
    return low[of_each], high[of_each]


def auroc(positive: Array, negative: Array, seed: int = 0, resamples: int = 500) -> dict[str, float] | None:
    """P(positive > negative), ties counted half, with a 95 % percentile interval of a seeded bootstrap."""
    positive, negative = positive[~np.isnan(positive)], negative[~np.isnan(negative)]
    if not len(positive) or not len(negative):
        return None
    # win[i] = share of the negatives below positive i, so that a resample is only a weighted mean.
    sorted_values = np.sort(negative)
    left, right = np.searchsorted(sorted_values, positive, "left"), np.searchsorted(sorted_values, positive, "right")
    value = float(((left + right) / 2 / len(negative)).mean())
    rng = np.random.Generator(np.random.PCG64(seed))
    draws = []
    for _ in range(resamples):
        p = positive[rng.integers(0, len(positive), len(positive))]
        n = np.sort(negative[rng.integers(0, len(negative), len(negative))])
        draws.append(((np.searchsorted(n, p, "left") + np.searchsorted(n, p, "right")) / 2 / len(n)).mean())
    return interval(value, np.array(draws))


def histogram(values: Array, bins: int = N_BINS) -> dict[str, list[Any]]:
    """Counts between edges over the finite values."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"edges": [], "counts": []}
    low, high = float(values.min()), float(values.max())
    max_abs = max(abs(low), abs(high))
    if high - low < 4 * bins * np.spacing(max_abs):  # all but one value: there is nothing to cut between
        around = max(0.5, 1e-6 * max_abs)
        low, high = low - around, high + around
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def robust_limit(values: Array) -> float:
    """Six robust deviations above the middle: median + 6 · 1.4826 · MAD of the finite values; 0 without any."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0
    median = float(np.median(values))
    return median + 6 * 1.4826 * float(np.median(np.abs(values - median)))


def quantiles(values: Array) -> list[float]:
    """The values themselves at shares 0, 1/1000, …, 1, so that any score's rank is known to a thousandth."""
    if not len(values):
        return []
    return np.quantile(values, np.arange(1001) / 1000, method="inverted_cdf").tolist()


def discoveries(p_n: Array, rate: float) -> Array:
    """bool [n]: the tests that pass at this false-discovery rate (Benjamini and Hochberg). NaN is no test, and passes
    none."""
    from scipy.stats import false_discovery_control  # as in `spearman`

    is_discovery, is_tested = np.zeros(len(p_n), bool), ~np.isnan(p_n)
    if is_tested.any():
        is_discovery[is_tested] = false_discovery_control(p_n[is_tested]) <= rate
    return is_discovery


def spearman(values: Array, other_values: Array) -> float | None:
    """Spearman correlation of two figures of the same items, float [n] each, over those of which `values` is finite;
    None where either does not vary."""
    finite = np.isfinite(values)
    varies = finite.sum() > 2 and np.ptp(values[finite]) > 0 and np.ptp(other_values[finite]) > 0
    if not varies:
        return None
    from scipy.stats import spearmanr  # it takes as long to import as the rest of a server

    return float(spearmanr(values[finite], other_values[finite]).statistic)
