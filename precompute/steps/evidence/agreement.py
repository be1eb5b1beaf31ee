"""Whether a feature's two sides say the same: do the captions of the images on which it is strongest have the words on
which it is strongest? (METHOD *Pair evidence*)
"""

from functools import lru_cache

import numpy as np
from scipy.sparse import csr_matrix

from precompute.steps.label_words import Words
from precompute.steps.omega import K_PAIRED
from precompute.store.making.unfinished import Collected
from precompute.store.schema import IMAGE
from precompute.utils.stats import wilson
from precompute.utils.types import Array

TOP_WORD_SHARE = 0.5
"""A word is one of a feature's top words if it has at least this share of the tokens that the first one has."""


def agreements(data: Collected, words: Words, tokens_fw: csr_matrix) -> dict[str, Array]:
    """`agreement` and its 95 % interval, each float64 [F], by the names of the store's columns.

    Agreement is (s − b) / (1 − b): s is the share of the feature's first K images whose caption has one of its top
    words, b the share of all captions. Its interval is Wilson's of s, put into the same formula. NaN where a feature
    has fewer than K images in its list, or no word.

    Args:
        words: those of all captions. tokens_fw: int [F, W], how many of a feature's listed text tokens are part of each
            word.
    """
    row_fk = data.examples["top_row"][:, IMAGE, :K_PAIRED]
    by_word, n_captions = words.in_caption.tocsc(), words.in_caption.shape[0]

    @lru_cache(maxsize=10_000)
    def captions(words: tuple[int, ...]) -> Array:
        """Rows of the captions that have any of the words, rising."""
        return np.unique(np.concatenate([by_word.indices[slice(*by_word.indptr[w : w + 2])] for w in words]))

    result = np.full((3, len(row_fk)), np.nan)
    for k in np.flatnonzero((row_fk >= 0).sum(1) == K_PAIRED).tolist():
        if top_words := top_words_of(tokens_fw, k):
            rows = captions(top_words)
            n, base = int(np.isin(row_fk[k], rows).sum()), len(rows) / n_captions
            if base < 1:
                result[:, k] = (np.array([n / K_PAIRED, *wilson(n, K_PAIRED)]) - base) / (1 - base)
    return dict(zip(("agreement", "agreement_low", "agreement_high"), result, strict=True))


def top_words_of(tokens_fw: csr_matrix, feature: int) -> tuple[int, ...]:
    """The word that most of the feature's tokens are part of, and those that at least half as many are."""
    row = slice(*tokens_fw.indptr[feature : feature + 2])
    word, n = tokens_fw.indices[row], tokens_fw.data[row]
    return tuple(np.sort(word[n >= TOP_WORD_SHARE * n.max(initial=0)]).tolist())
