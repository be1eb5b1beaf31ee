"""Which words name a feature: of those that its evidence speaks for, the ones that best tell its samples from others.

Function words never name a feature that fires on images: they say nothing of an image, yet some of them come with many
objects or with long captions and would pass the test.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from precompute.steps.label_words import Words
from precompute.steps.names.name_test import NameTest, Responses
from precompute.utils.ragged import rank_in_run, run_starts
from precompute.utils.text import ENGLISH_FUNCTION_WORDS
from precompute.utils.types import Array

PRIOR = 20.0  # pseudo-counts spread as the background
CANDIDATES = 12
"""Words of a feature that are tried, those with the most evidence."""
TIE = 0.02
"""Accuracies that differ by less are equal, and the evidence decides."""
SECOND_GAIN = 0.05
"""A second word joins the name where "one of the two" is so much more accurate than the first alone, and the feature
responds to each of the two (name_test.Responses)."""
MAX_CAPTION_SHARE = 0.5
"""A word that more captions have tells nothing of an image."""
MIN_DIFFERENCE = 3.0
"""z of the log-odds from which a word tells a feature from others of the same name."""


class Name(NamedTuple):
    """A feature's name, and the caption words in it by which it is tested."""

    text: str
    words: list[int]


def is_function_word(words: Words) -> Array:
    """bool [W]: words of the English closed classes, and those that more than half of the captions have."""
    is_frequent = words.caption_share > MAX_CAPTION_SHARE
    return is_frequent | np.array([name in ENGLISH_FUNCTION_WORDS for name in words.name], bool)


def log_odds(count: csr_matrix, n_f: Array, background_w: Array, n_background: float) -> csr_matrix:
    """z of the weighted log-odds of each word against the background, CSR [F, W], on the words counted.

    Args:
        count: how often feature f's evidence has word w. n_f: the number of its pieces of evidence.
        background_w: how often the word occurs in n_background pieces of background.
    """
    matrix = count.tocoo()
    share = background_w[matrix.col] / n_background
    a, b = PRIOR * share, PRIOR * (1 - share)
    n_with, n_without = matrix.data + a, np.maximum(n_f[matrix.row] - matrix.data, 0) + b
    elsewhere = background_w[matrix.col] + a
    not_elsewhere = np.maximum(n_background - background_w[matrix.col], 0) + b
    with np.errstate(divide="ignore", invalid="ignore"):
        delta = np.log(n_with / n_without) - np.log(elsewhere / not_elsewhere)
        z = delta / np.sqrt(1 / n_with + 1 / n_without + 1 / elsewhere + 1 / not_elsewhere)
    return csr_matrix((np.nan_to_num(z, nan=0.0, posinf=0.0), (matrix.row, matrix.col)), shape=count.shape)


def candidates(evidence_fw: csr_matrix, allowed_fw: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
    """(feature, word) of the words with the most evidence, at most `CANDIDATES` a feature: features rise, and of each
    the best word comes first, of equal ones the earlier.

    Args:
        evidence_fw: float64 [F, W].
        allowed_fw: of features and words, int [e] each, whether the word may name the feature, bool [e].
    """
    matrix = evidence_fw.tocoo()
    is_allowed = (matrix.data > 0) & allowed_fw(matrix.row, matrix.col)
    feature, word, value = (x[is_allowed] for x in (matrix.row, matrix.col, matrix.data))
    order = np.lexsort((word, -value, feature))
    feature, word = feature[order].astype(np.int64), word[order].astype(np.int64)
    first = rank_in_run(feature) < CANDIDATES
    return feature[first], word[first]


def choose(feature_c: Array, word_c: Array, name_test: NameTest, words: Words | None = None) -> dict[int, list[int]]:
    """The words of each feature's name: the candidate that the test finds best, and another where "one of the two"
    is plainly better and the feature responds to either word alone. Where nothing could be tested, the first candidate.

    Args:
        feature_c, word_c: int64 [c] each, of `candidates`.
        words: the two words of a name must not overlap (`Words.clash`).
    """
    score_c = np.nan_to_num(name_test.accuracy(feature_c, [[word] for word in word_c.tolist()]), nan=-1.0)
    run_c = np.cumsum(np.bincount(run_starts(feature_c), minlength=len(feature_c))) - 1
    best_r = np.maximum.reduceat(score_c, run_starts(feature_c)) if len(feature_c) else score_c
    at_tie = np.flatnonzero(score_c >= best_r[run_c] - TIE)
    first_r = at_tie[run_starts(feature_c[at_tie])]
    words_of = {int(feature_c[i]): [int(word_c[i])] for i in first_r}
    has_candidate = score_c[first_r] >= 0
    other_candidates = [
        i
        for i, r in enumerate(run_c)
        if has_candidate[r]
        and word_c[i] != word_c[first_r[r]]
        and (words is None or not words.clash(int(word_c[first_r[r]]), int(word_c[i])))
    ]
    pairs = [[*words_of[int(feature_c[i])], int(word_c[i])] for i in other_candidates]
    gain = name_test.accuracy(feature_c[other_candidates], pairs) - score_c[first_r[run_c[other_candidates]]]
    responses = Responses(name_test)
    for i in np.argsort(-gain, kind="stable"):
        feature, pair = int(feature_c[other_candidates[i]]), pairs[i]
        is_better = gain[i] >= SECOND_GAIN and len(words_of[feature]) == 1
        if is_better and responses.to_both(feature, *pair):
            words_of[feature].append(pair[1])
    return words_of


def distinguish(names: Sequence[Name | None], name_test: NameTest, words: Words, barred_w: Array) -> list[Name | None]:
    """Names that several features have get a word in brackets that tells the feature from the others, where captions
    have one: "red (triangle)". The words by which a name is tested stay.

    Args:
        barred_w: bool [W], words that tell nothing of an image.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for feature, name in enumerate(names):
        if name is not None and name.words:
            groups[name.text].append(feature)
    result = list(names)
    for text, features in groups.items():
        on_fn = name_test.on_fn[features].astype(np.int64)
        count, n = (on_fn @ name_test.caption_nw).tocsr(), np.asarray(on_fn.sum(1)).ravel()
        if len(features) == 1 or not n.any():
            continue
        z = log_odds(count, n, np.asarray(count.sum(0)).ravel(), float(n.sum())).toarray()
        z[:, barred_w] = 0
        for feature, z_w in zip(features, z, strict=True):
            own_words = name.words if (name := names[feature]) else []
            z_w[own_words] = 0
            word = int(z_w.argmax())
            if z_w[word] >= MIN_DIFFERENCE and not any(words.clash(word, own_word) for own_word in own_words):
                result[feature] = Name(f"{text} ({words.name[word]})", own_words)
    return result
