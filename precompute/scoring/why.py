"""Which features make a pair's score what it is: the parts that add up to it, and what it is without each feature.

Every score that rests on features is Σ_k n_k / D over the features of the pair: a plain sum where D is fixed (1, or the
number of tokens), a mean or a ratio where D depends on the features too. The parts n_k / D add up to the score. What
one feature does to it is the score minus the score without that feature: for a sum that is its part; for a ratio a
feature without a part can still lower the score through D.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np

from precompute.errors import SaevxError
from precompute.scoring.scores import TOP_WEIGHTED, Weights
from precompute.store.core import feature_ref
from precompute.store.events import SampleEvents
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, MODALITIES, SCORES, TEXT
from precompute.utils.stats import ratio
from precompute.utils.types import Array

SUMS = ("cosine", "cosine-cooccurring", "cooccurring-l0", "l0")
"""Scores whose denominator is the same with and without a feature."""


class Active(NamedTuple):
    """The k features that are active in one pair, rising."""

    feature_k: Array
    """int64 [k]."""
    z_k2: Array
    """float64 [k, 2]: largest activation on its text and on its image, 0 where it is not active."""
    n_k: Array
    """int64 [k]: tokens and patches on which it is active."""
    n_tokens: int
    """Text and image tokens of the pair, without special tokens and sinks."""

    @classmethod
    def from_events(cls, events: SampleEvents) -> Self:
        modality_e = events.by_event(events.modality_t)
        counts = (modality_e == TEXT) | (modality_e == IMAGE)
        feature_k, of_e = np.unique(events.feature_e[counts], return_inverse=True)
        z_k2 = np.zeros((len(feature_k), 2))
        np.maximum.at(z_k2, (of_e, modality_e[counts]), events.z_e[counts])
        n_tokens = int(np.isin(events.modality_t, (TEXT, IMAGE)).sum())
        return cls(feature_k, z_k2, np.bincount(of_e, minlength=len(feature_k)), n_tokens)


class Parts(NamedTuple):
    """Of a pair's score what each of its k active features does."""

    part_k: Array
    """float64 [k]: they add up to the score."""
    effect_k: Array
    """float64 [k]: the score minus the score without the feature."""


def explain(name: str, maxima: Active, weights: Weights) -> Parts:
    """Raises SaevxError for a score that is not made of features."""
    if name not in _SCORES:
        problem = "is no score" if name not in SCORES else "is not made of features"
        raise SaevxError(f"{name!r} {problem}: choose one of {', '.join(_SCORES)}.")
    return _SCORES[name](maxima, weights)


def _omega(maxima: Active, weights: Weights) -> tuple[Array, Array]:
    """ω of the active features, 0 where one has none, and whether it has one."""
    omega_k = weights.omega_f[maxima.feature_k]
    return np.nan_to_num(omega_k, nan=0.0), ~np.isnan(omega_k)


def _on_both(maxima: Active) -> Array:
    return np.asarray((maxima.z_k2 > 0).all(axis=1))


def _share(over_k: Array, under_k: Array, default: float = 0.0) -> Parts:
    """Parts of Σ over / Σ under."""
    numerator, denominator = over_k.sum(), under_k.sum()
    without_k = ratio(numerator - over_k, np.maximum(denominator - under_k, 0), default)
    return Parts(ratio(over_k, denominator, default), ratio(numerator, denominator, default) - without_k)


def _sum(part_k: Array) -> Parts:
    return Parts(part_k, part_k)


def _weighted_parts(maxima: Active, weights: Weights) -> Parts:
    """Mean ω of the strongest features, weighted by their activation. Without one of them the next takes its place."""
    x_k = maxima.z_k2.max(axis=1)
    omega_k, has_k = _omega(maxima, weights)
    order = np.lexsort((maxima.feature_k, -x_k))  # ties go to the smaller feature
    top, next_one = order[:TOP_WEIGHTED], order[TOP_WEIGHTED : TOP_WEIGHTED + 1]
    sum_k, base_k = (x_k * omega_k)[top], (x_k * has_k)[top]
    more_over, more_under = (x_k * omega_k)[next_one].sum(), (x_k * has_k)[next_one].sum()
    score = ratio(sum_k.sum(), base_k.sum(), np.nan)
    part_k, effect_k = np.zeros(len(x_k)), np.zeros(len(x_k))
    part_k[top] = ratio(sum_k, base_k.sum(), np.nan)
    without_k = ratio(sum_k.sum() - sum_k + more_over, np.maximum(base_k.sum() - base_k + more_under, 0), np.nan)
    effect_k[top] = score - without_k
    return Parts(part_k, effect_k)


def _pooled_parts(maxima: Active, weights: Weights) -> Parts:
    """Cosine of the two sides: a feature of one side alone adds nothing and lengthens its vector."""
    dot_k, square_k2 = maxima.z_k2.prod(axis=1), maxima.z_k2**2
    dot, square_2 = dot_k.sum(), square_k2.sum(axis=0)
    length = np.sqrt(square_2.prod())
    without_k = ratio(dot - dot_k, np.sqrt(np.maximum(square_2 - square_k2, 0).prod(axis=1)), 0.0)
    return Parts(ratio(dot_k, length, 0.0), ratio(dot, length, 0.0) - without_k)


def _supported_parts(maxima: Active, weights: Weights) -> Parts:
    weight_k = weights.support_f[maxima.feature_k] * (maxima.z_k2[:, TEXT] > 0)
    return _share(weight_k * _on_both(maxima), weight_k)


def _mean(maxima: Active, weights: Weights) -> Parts:
    omega_k, has_k = _omega(maxima, weights)
    return _share(omega_k, has_k.astype(np.float64), np.nan)


_SCORES: dict[str, Callable[[Active, Weights], Parts]] = {
    "pooled-cosine": _pooled_parts,
    "supported-share": _supported_parts,
    "cosine": lambda maxima, weights: _sum(_omega(maxima, weights)[0]),
    "cosine-weighted": _weighted_parts,
    "cosine-cooccurring": lambda maxima, weights: _sum(_omega(maxima, weights)[0] * _on_both(maxima)),
    "cosine-mean": _mean,
    "l0": lambda maxima, weights: _sum(maxima.n_k / maxima.n_tokens),
    "cooccurring-l0": lambda maxima, weights: _sum(_on_both(maxima).astype(np.float64)),
}
EXPLAINED = tuple(_SCORES)
"""The scores that are made of features, the most telling ones first."""


def why(store: Store, row: int, name: str, limit: int, events_now: SampleEvents | None = None) -> dict[str, Any]:
    """Why a stored pair has a score (`GET /samples/{id}/why`): the `limit` features that raise it most, and those that
    lower it most.

    Args:
        events_now: the pair's events, where the store does not hold them.

    Raises:
        EventsNotStored: the store does not hold the pair's events, and `events_now` is None.
        SaevxError: a score that is not made of features.
    """
    events = events_now or store.events.of(row)
    value = store.samples.items([row])[row]["scores"][name] if name in SCORES else None
    return {**why_pair(store, events, name, limit), "value": value, "recomputed": events_now is not None}


def why_pair(store: Store, events: SampleEvents, name: str, limit: int) -> dict[str, Any]:
    """As `why`, of any pair, without the score itself. Raises SaevxError for a score that is not made of features."""
    maxima = Active.from_events(events)
    part_k, effect_k = (np.nan_to_num(values, nan=0.0) for values in explain(name, maxima, Weights.from_store(store)))
    order = np.lexsort((maxima.feature_k, -np.abs(effect_k)))
    positive, negative = order[effect_k[order] > 0], order[effect_k[order] < 0]
    shown_k = np.concatenate([positive[:limit], negative[:limit]])
    refs = store.features.refs(maxima.feature_k[shown_k].tolist())

    def item(at: int) -> dict[str, Any]:
        z_2 = maxima.z_k2[at].tolist()
        return {
            **feature_ref(refs[int(maxima.feature_k[at])]),
            "part": float(part_k[at]),
            "effect": float(effect_k[at]),
            **{f"activation_{side}": z or None for side, z in zip(MODALITIES, z_2, strict=True)},
        }

    return {
        "score": name,
        "is_sum": name in SUMS,
        "n_features": len(maxima.feature_k),
        "n_raising": len(positive),
        "n_lowering": len(negative),
        "raising": [item(at) for at in positive[:limit].tolist()],
        "lowering": [item(at) for at in negative[:limit].tolist()],
    }
