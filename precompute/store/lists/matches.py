"""The features of a word, best first: one order for searches, lists and every field that takes a feature by words."""

from __future__ import annotations

import unicodedata

import numpy as np

from precompute.store.core import Core
from precompute.store.sql import fetch_plain, match_words
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
    ids = _matching(core, match_words(q, join=" AND " if every_word else " OR "))
    if not len(ids):
        return ids
    tier_f = np.full(core.n_features, 3, np.int8)
    for tier, prefix in ((2, True), (1, False)):
        tier_f[_matching(core, f"label : ({match_words(q, join=' OR ', prefix=prefix)})")] = tier
    for word in spellings(q):
        tier_f[core.features_of_strongest.get(word, [])] = 0
    best: Array = ids[np.lexsort((core.evidence_rank[ids], tier_f[ids]))]
    return best


def _matching(core: Core, match: str) -> Array:
    """int32 [n]: the features that a query of full text search finds."""
    query = "SELECT rowid FROM feature_fts WHERE feature_fts MATCH ?"
    return np.array(fetch_plain(core.engine, query, [match]) if match else [], np.int32).ravel()


def spellings(q: str) -> list[str]:
    """The words of a query as a top word may be written: as they are, and as full text search reads them."""
    folded = ("".join(string) for strings in query_words(q) for string in strings)
    raw = unicodedata.normalize("NFC", q.lower()).replace("\0", " ").split()
    return [*dict.fromkeys([*folded, *raw])][:N_WORDS]
