"""The features of a word, best first: one order for searches, lists and every field that takes a feature by words."""

from __future__ import annotations

import unicodedata

import numpy as np

from precompute.store.core import Core
from precompute.store.sql import fetch_plain, marks, match_words
from precompute.utils.text import query_words
from precompute.utils.types import Array

MATCH = "match"
"""The sort of this order; without words it is that of `evidence`."""
N_WORDS = 50
"""Words of a query that are compared with top words."""
# A feature's strongest top word is that of the side on which more of its strongest samples have it.
_IS_STRONGEST = (
    "lower(trim(json_extract(t.{a}, '$.word'))) IN ({marks}) "
    "AND json_extract(t.{a}, '$.n') >= coalesce(json_extract(t.{b}, '$.n'), 0)"
)
_ORDER = (
    "SELECT x.id FROM features x {join} WHERE x.id IN (SELECT rowid FROM feature_fts WHERE feature_fts MATCH ?) "
    "ORDER BY CASE WHEN {strongest} THEN 0 "
    "WHEN x.id IN (SELECT rowid FROM feature_fts WHERE feature_fts MATCH ?) THEN 1 "
    "WHEN x.id IN (SELECT rowid FROM feature_fts WHERE feature_fts MATCH ?) THEN 2 ELSE 3 END, "
    "x.evidence DESC NULLS LAST, x.label_score DESC NULLS LAST, x.id"
)


def best_matches(core: Core, q: str, *, every_word: bool = True) -> Array:
    """int32 [n]: the features that have the words in their label or promoted tokens, the best first.

    First come those whose strongest top word is one of the words (where a store has no top words: whose label is one);
    then those with one in their label, whole; then as a word's beginning; then those that only promote it. Among equal
    ones the evidence decides (lower end of agreement × name score), then the name score, then the number.

    Args:
        every_word: whether a feature must have all the words, or any.
    """
    match = match_words(q, join=" AND " if every_word else " OR ")
    if not match:
        return np.empty(0, np.int32)
    words = spellings(q)
    held = core.has_top_words
    sides = [_IS_STRONGEST.format(a=a, b=b, marks=marks(len(words))) for a, b in (("text", "image"), ("image", "text"))]
    strongest = " OR ".join(sides) if held else f"lower(x.label) IN ({marks(len(words))})"
    query = _ORDER.format(strongest=strongest, join="LEFT JOIN top_words t ON t.id = x.id" if held else "")
    in_label = [f"label : ({match_words(q, join=' OR ', prefix=prefix)})" for prefix in (False, True)]
    rows = fetch_plain(core.engine, query, [match, *words * (2 if held else 1), *in_label])
    return np.array(rows, np.int32).ravel()


def spellings(q: str) -> list[str]:
    """The words of a query as a top word may be written: as they are, and as full text search reads them."""
    folded = ("".join(string) for strings in query_words(q) for string in strings)
    raw = unicodedata.normalize("NFC", q.lower()).replace("\0", " ").split()
    return [*dict.fromkeys([*folded, *raw])][:N_WORDS]
