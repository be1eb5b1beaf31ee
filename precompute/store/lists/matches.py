"""The features of a word, best first: one order for searches, lists and every field that takes a feature by words."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from precompute.store.core import Core
from precompute.store.sql import match_pieces
from precompute.utils.text import query_words
from precompute.utils.types import Array

MATCH = "match"
"""The sort of this order; without words it is that of `evidence`."""
N_WORDS = 50
"""Words of a query that are compared with top words."""


def best_matches(core: Core, q: str, *, every_word: bool = True) -> Array:
    """int32 [n]: the features that have the words in their label or promoted tokens, the best first.

    First come those whose strongest top word is one of the words (where a store has no top words: whose label is one);
    then those with one in their label, whole; then as a word's beginning; then those that only promote it. Among equal
    ones the evidence decides (lower end of agreement × name score), then the name score, then the number.

    Args:
        every_word: whether a feature must have all the words, or any.
    """
    pieces = match_pieces(q)
    if not pieces:
        return np.empty(0, np.int32)
    ids = np.flatnonzero(_match_mask(core, pieces, np.logical_and if every_word else np.logical_or)).astype(np.int32)
    tier_f = np.full(core.n_features, 3, np.int8)
    for tier, prefix in ((2, True), (1, False)):
        in_label = [f"label : ({piece})" for piece in match_pieces(q, prefix=prefix)]
        tier_f[_match_mask(core, in_label, np.logical_or)] = tier
    for word in spellings(q):
        tier_f[core.features_of_strongest.get(word, [])] = 0
    return ids[np.lexsort((core.evidence_rank[ids], tier_f[ids]))]


def _match_mask(core: Core, pieces: Sequence[str], combine: np.ufunc) -> Array:
    """bool [F]: the features that queries of full text search find, all or any of them."""
    return combine.reduce([core.found_by(piece) for piece in pieces])


def spellings(q: str) -> list[str]:
    """The words of a query as a top word may be written: as they are, and as full text search reads them."""
    folded_words = ("".join(string) for strings in query_words(q) for string in strings)
    plain_words = unicodedata.normalize("NFC", q.lower()).replace("\0", " ").split()
    return [*dict.fromkeys([*folded_words, *plain_words])][:N_WORDS]
