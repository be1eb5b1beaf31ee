"""How well words tell the samples that have a feature from those that do not: what chooses a name, and its score.

The samples are divided in two by their ids. The evidence for names and their choice come from one half, their scores
from the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, vstack
from scipy.stats import hypergeom

from precompute.store.making.unfinished import Collected
from precompute.store.schema import HAS_FEATURE, LACKS_FEATURE
from precompute.utils.ragged import offsets
from precompute.utils.types import Array

ALPHA = 0.001
"""p below which a feature responds to a word: eleven second words are tried of each feature."""
MIN_SAMPLES = 3
"""Samples that have the feature, and as many that lack it, below which nothing is tested."""
_ROWS_AT_ONCE, _NAMES_AT_ONCE = 1 << 10, 1 << 13


class NameTest(NamedTuple):
    """Which samples of one half have each feature, and what their captions say."""

    on_fn: csr_matrix
    """bool [F, n]: samples that have the feature."""
    counted_fn: csr_matrix
    """bool [F, n]: samples that do not lack it, or do not count; all others lack it."""
    caption_nw: csr_matrix
    """int32 [n, W] of ones: words of the captions."""

    def accuracy(self, feature_c: Array, words_c: Sequence[Sequence[int]]) -> Array:
        """Balanced accuracy of "the caption has one of these words" for "the sample has the feature".

        Args:
            feature_c: int [c], the feature of each test. words_c: the words of each.

        Returns:
            float64 [c]; NaN where there are no words, or too few samples of either kind.
        """
        parts = [np.zeros(0)]
        for low in range(0, len(feature_c), _NAMES_AT_ONCE):
            at = slice(low, low + _NAMES_AT_ONCE)
            parts.append(self._accuracy(np.asarray(feature_c[at], np.int64), words_c[at]))
        return np.concatenate(parts)

    def _accuracy(self, feature_c: Array, words_c: Sequence[Sequence[int]]) -> Array:
        length = np.array([len(words) for words in words_c], np.int64)
        flat = np.array([word for words in words_c for word in words], np.int64)
        shape = (len(words_c), self.caption_nw.shape[1])
        name_cw = csr_matrix((np.ones(len(flat), np.int32), flat, offsets(length)), shape=shape)
        word_cn = (name_cw @ self.caption_nw.T).astype(bool).tocsr()

        def total(matrix: csr_matrix) -> Array:
            return np.asarray(matrix.sum(1)).ravel().astype(np.float64)

        on_cn, counts_cn = self.on_fn[feature_c], self.counted_fn[feature_c]
        n_on, n_off = total(on_cn), self.caption_nw.shape[0] - total(counts_cn)
        n_hit, n_wrong = total(on_cn.multiply(word_cn)), total(word_cn) - total(counts_cn.multiply(word_cn))
        with np.errstate(divide="ignore", invalid="ignore"):
            score = (n_hit / n_on + 1 - n_wrong / n_off) / 2
        return np.where((length > 0) & (n_on >= MIN_SAMPLES) & (n_off >= MIN_SAMPLES), score, np.nan)


class Responses:
    """Which words a feature responds to, on the samples of a test."""

    def __init__(self, name_test: NameTest) -> None:
        self._test = name_test
        self._caption_wn = name_test.caption_nw.T.tocsr()

    def to_both(self, feature: int, first_word: int, second_word: int) -> bool:
        """Whether the feature responds to either word alone: of the samples whose caption has this word and not the
        other, more have the feature than of those with neither, by Fisher's exact test, one-sided, below `ALPHA`.
        Samples that neither have nor lack the feature do not count."""
        on_n = self._test.on_fn[feature].toarray().ravel()
        counts_n = on_n | ~self._test.counted_fn[feature].toarray().ravel()
        first_n, second_n = self._caption_wn[[first_word, second_word]].toarray() > 0
        neither_n = ~(first_n | second_n)
        n_neither, on_neither = int((neither_n & counts_n).sum()), int((neither_n & on_n).sum())
        for has_n in (first_n & ~second_n, second_n & ~first_n):
            n, n_on = int((has_n & counts_n).sum()), int((has_n & on_n).sum())
            if not n or hypergeom.sf(n_on - 1, n + n_neither, n_on + on_neither, n) >= ALPHA:
                return False
        return True


def make_name_test(
    data: Collected, in_caption: csr_matrix, p999: Array, rows: Array, evidence_fn: csr_matrix | None = None
) -> NameTest:
    """The test on these samples.

    Args:
        in_caption: int32 [N, W] of ones. p999: float64 [F] (z).
        rows: int64 [n].
        evidence_fn: int32 [F, N], samples that gave a feature evidence: they do not count for it.
    """
    starts = range(0, len(rows) or 1, _ROWS_AT_ONCE)
    blocks = [relative_maxima(data, rows[low : low + _ROWS_AT_ONCE], p999) for low in starts]
    on_fn, counted_fn = (vstack(parts, format="csr").T.tocsr() for parts in zip(*blocks, strict=True))
    if evidence_fn is not None:
        evidence = evidence_fn[:, rows].astype(bool).tocsr()
        on_fn, counted_fn = (on_fn > on_fn.multiply(evidence)).tocsr(), (counted_fn + evidence).astype(bool).tocsr()
    return NameTest(on_fn, counted_fn, in_caption[rows].tocsr())


def relative_maxima(data: Collected, rows: Array, p999: Array) -> tuple[csr_matrix, csr_matrix]:
    """bool [n, F]: where a feature's largest activation in a sample is above `HAS_FEATURE` of p99.9, and where above
    `LACKS_FEATURE` of it.

    Args:
        rows: int64 [n]. p999: float64 [F] (z).
    """
    text, image = data.maxima_of(rows)
    maxima = text.maximum(image).tocoo()
    blocks_above = []
    for share in (HAS_FEATURE, LACKS_FEATURE):
        is_above = maxima.data > share * p999[maxima.col]
        at = (maxima.row[is_above], maxima.col[is_above])
        blocks_above.append(csr_matrix((np.ones(len(at[0]), bool), at), shape=maxima.shape))
    return blocks_above[0], blocks_above[1]
