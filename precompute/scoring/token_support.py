"""Which of a caption's tokens the image does not support: how much of their features' weight it lacks."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from precompute.scoring.pairs import TextEvents
from precompute.utils.ragged import find, run_starts
from precompute.utils.text import ENGLISH_FUNCTION_WORDS, has_letters
from precompute.utils.types import Array

N_NAMED = 4  # features and tokens a reason names
LITTLE_WEIGHT = 0.5
"""Added to a token's weight before its share is taken, so that a token with hardly any (an article) has none to lack.
A token that names something weighs several times as much."""


class UnsupportedTokens(NamedTuple):
    """What of each text token the image does not support; t tokens on which a feature is active."""

    row_t: Array
    """int64: which of the n pairs."""
    position_t: Array
    """int64: which token of the pair."""
    share_t: Array
    """float64: share of the token's feature weight that no patch supports."""
    feature_t: Array
    """int64: the feature that contributes most to it, −1 where none does."""


def unsupported_tokens(events: TextEvents, image: csr_matrix, p999_f: Array, support_f: Array) -> UnsupportedTokens:
    """Token-level support: share_t = Σ_k w_k · max(0, r_tk − r_image,k) / (LITTLE_WEIGHT + Σ_k w_k · r_tk) with
    r = z / p99.9 capped at 1.

    A share and not the sum: a word with strong features lacks more of them beside its own image than a word with weak
    ones beside a wrong one.

    Args:
        events: of n pairs. image: CSR [n, F] of the images' largest z.
        support_f: w_k of `supported-share`.
    """
    row_e, position_e, feature_e, z_e = events
    if not len(row_e):
        return UnsupportedTokens(*(np.zeros(0, np.int64),) * 2, np.zeros(0), np.zeros(0, np.int64))
    ratio_e = np.minimum(z_e / np.maximum(p999_f[feature_e], 1e-30), 1)
    image_e = _lookup(over_p999(image, p999_f), row_e, feature_e)
    lack_e = support_f[feature_e] * np.maximum(ratio_e - np.minimum(image_e, 1), 0)
    first = run_starts(row_e, position_e)
    token_e = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(row_e)]))
    e = np.lexsort((feature_e, -lack_e, token_e))[first]  # sorted by token: the first entry of each is its largest
    weight_t = LITTLE_WEIGHT + np.add.reduceat(support_f[feature_e] * ratio_e, first)
    share_t = np.add.reduceat(lack_e, first) / weight_t
    return UnsupportedTokens(row_e[first], position_e[first], share_t, np.where(lack_e[e] > 0, feature_e[e], -1))


def _lookup(matrix: csr_matrix, row: Array, column: Array) -> Array:
    """Entries of a CSR matrix with rising columns; 0 where there is none."""
    width = matrix.shape[1]
    # One number for (row, column) rises along the stored entries, so a binary search finds all at once.
    keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * width + matrix.indices
    at, is_there = find(keys, row * width + column)
    value = np.zeros(len(row))
    value[is_there] = matrix.data[at[is_there]]
    return value


def over_p999(matrix: csr_matrix, p999_f: Array) -> csr_matrix:
    """Largest z [n, F] in units of each feature's p99.9."""
    ratio = matrix.data / np.maximum(p999_f[matrix.indices], 1e-30)
    return csr_matrix((ratio, matrix.indices, matrix.indptr), shape=matrix.shape)


def unsupported_score(events: TextEvents, image: csr_matrix, p999_f: Array, support_f: Array) -> Array:
    """Score of the flag, float64 [n]: the largest unsupported share of a pair's tokens; NaN without text.

    Args: as of `unsupported_tokens`.
    """
    tokens = unsupported_tokens(events, image, p999_f, support_f)
    score = np.full(image.shape[0], np.nan)
    np.fmax.at(score, tokens.row_t, tokens.share_t)
    return score


def most_unsupported(tokens: UnsupportedTokens, candidates: Array, text_of: Callable[[int], str]) -> Array:
    """Of a pair's tokens those that lack most: at most N_NAMED, the worst first, each at least half as bad as it.

    Args:
        candidates: int64: the pair's entries of `tokens`.
        text_of: text at a position; tokens without a letter or digit are named only where there are no others, and so
            are function words and words for the image itself ("photo"), of which nobody expects to see anything.

    Returns:
        int64: entries of `tokens`.
    """
    entries = candidates[tokens.feature_t[candidates] >= 0]
    entries = _prefer(entries, [has_letters(text_of(int(p))) for p in tokens.position_t[entries]])
    entries = entries[np.argsort(-tokens.share_t[entries], kind="stable")]
    entries = entries[tokens.share_t[entries] >= 0.5 * tokens.share_t[entries].max(initial=0.0)]
    words = [text_of(int(p)).strip().lower() for p in tokens.position_t[entries]]
    return _prefer(entries, [word not in ENGLISH_FUNCTION_WORDS for word in words])[:N_NAMED]


def _prefer(entries: Array, is_preferred: list[bool]) -> Array:
    """Those entries, or all where none is."""
    mask = np.array(is_preferred, dtype=bool)
    return entries[mask] if mask.any() else entries
