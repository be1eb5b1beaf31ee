"""Which of a caption's tokens the image does not support: how much of their features' weight it lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from precompute.store.making.unfinished import Collected
from precompute.store.schema import TEXT
from precompute.utils.ragged import expand, run_starts
from precompute.utils.text import has_letters
from precompute.utils.types import Array

N_NAMED = 4  # features and tokens a reason names
LITTLE_WEIGHT = 0.5
"""Added to a token's weight before its share is taken, so that a token with hardly any (an article) has none to lack.
A token that names something weighs several times as much."""


class Excess(NamedTuple):
    """Per text token of a block: what share of its features' weight the image does not support."""

    row_t: Array
    position_t: Array
    share_t: Array
    feature_t: Array  # the feature that contributes most, −1 where none


def text_excess(
    row_e: Array,
    position_e: Array,
    feature_e: Array,
    ratio_e: Array,
    image_ratio: csr_matrix,
    support_f: Array,
) -> Excess:
    """Token-level support: share_t = Σ_k w_k · max(0, r_tk − r_image,k) / (LITTLE_WEIGHT + Σ_k w_k · r_tk) with
    r = z / p99.9 capped at 1.

    A share and not the sum: a word with strong features lacks more of them beside its own picture than a word with
    weak ones beside a wrong one.

    Args:
        row_e, position_e: sample (row of `image_ratio`) and token of each text event, ascending.
        image_ratio: CSR [n, F] of the image's largest z over p99.9.
        support_f: w_k of `supported-share`.
    """
    image_e = _lookup(image_ratio, row_e, feature_e)
    ratio_e = np.minimum(ratio_e, 1)
    lack_e = support_f[feature_e] * np.maximum(ratio_e - np.minimum(image_e, 1), 0)
    if not len(row_e):
        return Excess(*(np.zeros(0, np.int64),) * 2, np.zeros(0), np.zeros(0, np.int64))
    first = run_starts(row_e, position_e)
    token_e = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(row_e)]))
    best = np.lexsort((feature_e, -lack_e, token_e))[first]  # sorted by token: the first entry of each is its largest
    whole_t = LITTLE_WEIGHT + np.add.reduceat(support_f[feature_e] * ratio_e, first)
    share_t = np.add.reduceat(lack_e, first) / whole_t
    return Excess(row_e[first], position_e[first], share_t, np.where(lack_e[best] > 0, feature_e[best], -1))


def _lookup(matrix: csr_matrix, row: Array, column: Array) -> Array:
    """Entries of a CSR matrix with ascending columns; 0 where there is none."""
    width = matrix.shape[1]
    keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * width + matrix.indices
    asked = row * width + column
    at = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
    if not len(keys):
        return np.zeros(len(asked))
    return np.where(keys[at] == asked, matrix.data[at], 0.0)


def text_events(data: Collected, rows: Array, p999: Array) -> tuple[Array, Array, Array, Array]:
    """(index into rows, position, feature, z / p99.9) of every text event of the rows given, in token
    order.
    """
    events = data.events
    start, stop = np.asarray(events.sample_token[rows]), np.asarray(events.sample_token[rows + 1])
    token = expand(start, stop - start)
    row_t = np.repeat(np.arange(len(rows)), stop - start)
    position_t = token - start[row_t]
    is_text = np.asarray(events.token_modality[token]) == TEXT
    token, row_t, position_t = token[is_text], row_t[is_text], position_t[is_text]
    low, high = np.asarray(events.token_event[token]), np.asarray(events.token_event[token + 1])
    repeat = high - low
    event = expand(low, repeat)
    feature = events.event_feature[event].astype(np.int64)
    ratio = events.event_value[event].astype(np.float64) * data.unit / np.maximum(p999[feature], 1e-30)
    return np.repeat(row_t, repeat), np.repeat(position_t, repeat), feature, ratio


def worst(excess: Excess, some: Array, text_of: Callable[[int], str]) -> Array:
    """Of a sample's tokens those that lack most: at most N_NAMED, the worst first, each at least half as bad as it.

    Args:
        some: the sample's entries of `excess`.
        text_of: of a position; tokens without a letter or digit are named only where there are no others.
    """
    some = some[excess.feature_t[some] >= 0]
    spelled = np.array([has_letters(text_of(int(p))) for p in excess.position_t[some]], dtype=bool)
    some = some[spelled] if spelled.any() else some
    some = some[np.argsort(-excess.share_t[some], kind="stable")]
    return some[excess.share_t[some] >= 0.5 * excess.share_t[some].max(initial=0.0)][:N_NAMED]


def over_p999(matrix: csr_matrix, p999: Array) -> csr_matrix:
    """Largest z [n, F] in units of each feature's p99.9."""
    ratio = matrix.data / np.maximum(p999[matrix.indices], 1e-30)
    return csr_matrix((ratio, matrix.indices, matrix.indptr), shape=matrix.shape)


def unsupported(data: Collected, rows: Array, image: csr_matrix, p999: Array, support_f: Array) -> Array:
    """Largest unsupported share of a token of each row; NaN without text."""
    found = text_excess(*text_events(data, rows, p999), over_p999(image, p999), support_f)
    score = np.full(len(rows), np.nan)
    np.fmax.at(score, found.row_t, found.share_t)
    return score
