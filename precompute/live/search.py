"""Search with a picture, words or both (METHOD, *Search*).

score_k = s_k · log(N / n_k), s_k = max_t z_tk / p99.9_k over the query's non-special tokens of the asked
modality, n_k = samples with an active token of that modality; with both, the smaller of the two products.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from precompute.utils.types import Array

MOST_DENSE = 0.10
"""Features denser than this in either modality answer every query: set apart."""


class Ranked(NamedTuple):
    """Features of the query, best first; arrays of equal length but for the [.., 2] ones (text, image)."""

    feature: Array
    score: Array
    strength: Array
    """[n, 2]; NaN where the modality was not asked."""
    score_by: Array
    """[n, 2]."""
    dense: Array
    """Bool: denser than MOST_DENSE in either modality."""


def maxima(modality_t: Array, offset_t: Array, feature_e: Array, z_e: Array, n_features: int) -> Array:
    """Largest z of each feature in each modality, [F, 2] (0 text, 1 image), from one sample's events."""
    largest = np.zeros((n_features, 2))
    token_e = np.repeat(np.arange(len(modality_t)), np.diff(offset_t))
    kind_e = modality_t[token_e]
    for modality in (0, 1):
        hit = kind_e == modality
        np.maximum.at(largest[:, modality], feature_e[hit], z_e[hit])
    return largest


def rank(largest: Array, table: dict[str, Array], n_samples: int, asked: tuple[int, ...]) -> Ranked:
    """Rank the features of a query.

    Args:
        largest: [F, 2] max z of the query, from `maxima`.
        table: `Store.features.table`.
        asked: modalities of the query: (0,), (1,) or (0, 1).
    """
    p999 = np.nan_to_num(table["p999"])
    n = np.stack([table["samples_text"], table["samples_image"]], axis=1)
    known = (n > 0) & (p999 > 0)[:, None]
    strength = np.divide(largest, p999[:, None], out=np.zeros_like(largest), where=known)
    # Every sample has it: log 1 = 0, no news. n_k = 0 is left out.
    specificity = np.log(n_samples / np.maximum(n, 1)) * (n > 0)
    by = strength * specificity
    modalities = list(asked)
    score = by[:, modalities].min(axis=1)
    found = np.flatnonzero(score > 0)
    order = found[np.lexsort((found, -score[found]))]
    dense = np.maximum(table["density_text"], table["density_image"])[order] > MOST_DENSE
    shown_strength, shown_by = strength[order].copy(), by[order].copy()
    for modality in (0, 1):
        if modality not in asked:
            shown_strength[:, modality] = shown_by[:, modality] = np.nan
    return Ranked(order, score[order], shown_strength, shown_by, dense)
