"""Search with an image, words or both (METHOD, *Search*).

score_k = min(s_k, 1) · log(N / max(n_k, 16)), s_k = max_t z_tk / p99.9_k over the query's non-special tokens of the
asked modality, n_k = samples with an active token of that modality; with both, the smaller of the two products.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from precompute.store.events import SampleEvents
from precompute.store.features import Features
from precompute.store.places import event_maxima
from precompute.store.schema import SPECIAL, TEXT
from precompute.utils.types import Array

MOST_DENSE = 0.10
"""Features denser than this in either modality answer every query: set apart."""
OUTSIDE = 1.5
"""A strength above this many p99.9 is hardly ever seen in the data: the query lies outside it."""
NEUTRAL_EDGE = 224


class Ranked(NamedTuple):
    """Features of the query, best first; arrays of equal length but for the [.., 2] ones (text, image)."""

    feature: Array
    """int64 [n]: features, best first."""
    score: Array
    """float64 [n]."""
    strength: Array
    """float64 [n, 2], in units of p99.9, not capped; NaN where the query has not this modality."""
    score_by: Array
    """float64 [n, 2]."""
    dense: Array
    """bool [n]: denser than MOST_DENSE in either modality."""


def maxima(events: SampleEvents, n_features: int) -> Array:
    """Largest z of each feature in each modality, [F, 2] (0 text, 1 image), from one sample's events."""
    max_f2 = np.zeros((n_features, 2))
    for modality, (feature_k, z_k) in enumerate(event_maxima(events)):
        max_f2[feature_k, modality] = z_k
    return max_f2


def is_dense(table: dict[str, Array]) -> Array:
    """bool [F]: denser than MOST_DENSE in either modality."""
    return np.maximum(table["density_text"], table["density_image"]) > MOST_DENSE


def rank(max_f2: Array, features: Features, modalities: tuple[int, ...]) -> Ranked:
    """Rank the features of a query.

    Args:
        max_f2: [F, 2] max z of the query, from `maxima`.
        features: of the store.
        modalities: modalities of the query: (0,), (1,) or (0, 1).
    """
    p999, specificity = np.nan_to_num(features.table["p999"]), features.specificity
    has_weight = (specificity > 0) & (p999 > 0)[:, None]
    strength = np.divide(max_f2, p999[:, None], out=np.zeros_like(max_f2), where=has_weight)
    by = np.minimum(strength, 1) * specificity
    score = by[:, list(modalities)].min(axis=1)
    candidates = np.flatnonzero(score > 0)
    order = candidates[np.lexsort((candidates, -score[candidates]))]
    shown_strength, shown_by = strength[order].copy(), by[order].copy()
    for modality in (0, 1):
        if modality not in modalities:
            shown_strength[:, modality] = shown_by[:, modality] = np.nan
    return Ranked(order, score[order], shown_strength, shown_by, is_dense(features.table)[order])


def readable(
    text: str, images: Sequence[Image.Image], multimodal: bool, neutral: tuple[int, int, int]
) -> tuple[str, list[Image.Image]]:
    """The query as the model reads it. Words without an image stand behind a neutral one, as the data's captions stand
    behind theirs; a single word gets the space that words within a sentence have.

    Args:
        neutral: colour of that image, `mean_colour`.
    """
    if images or not text or not multimodal:
        return text, list(images)
    return text if has_words(text) else f" {text}", [Image.new("RGB", (NEUTRAL_EDGE, NEUTRAL_EDGE), neutral)]


def has_words(text: str) -> bool:
    """Whether it is more than one word."""
    return len(text.split()) > 1


def queried_tokens(modality_t: Array, text: str, has_image: bool) -> Array:
    """uint8 [t]: the query's tokens, with SPECIAL for those that are not ranked: all patches of a neutral image, and
    the first token of several words, which stands in a state unlike any stored one.

    Args:
        modality_t: as the model read `readable`. has_image: the query has an image of its own.
    """
    if has_image:
        return modality_t
    queried_t = np.where(modality_t == TEXT, TEXT, SPECIAL).astype(modality_t.dtype)
    if has_words(text):
        queried_t[np.flatnonzero(queried_t == TEXT)[:1]] = SPECIAL
    return queried_t
