"""Whether two programs show the same of a feature: ours documents by one token each, SAEDashboard tokens."""

import numpy as np
from numpy.typing import NDArray

from precompute.store.schema import CONTEXT_TOKENS

Places = dict[tuple[int, int], float]
"""Activations by document and position."""
Values = dict[int, float]
"""The same by document."""
Examples = dict[int, Places]
"""Of each feature its strongest tokens."""


def different(mine: Examples, other: Examples, n: int, tokens: NDArray[np.int64]) -> list[int]:
    """Of n features by chance those whose examples differ."""
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(sorted(other), n, replace=False)).tolist()
    return [feature for feature in chosen if not alike(*by_document(mine.get(feature, {}), other[feature], tokens))]


def by_document(mine: Places, other: Places, tokens: NDArray[np.int64]) -> tuple[Values, Values]:
    """Both sides' documents with their largest activation. SAEDashboard lists tokens, so several of a document, and
    fewer documents than ours: as many of ours are looked at. It folds nothing, so those of its documents are left out
    that are folded in ours: those with the same text around a strongest token as one of ours."""

    def window(place: tuple[int, int]) -> bytes:
        document, position = place
        at = np.arange(position - CONTEXT_TOKENS, position + CONTEXT_TOKENS + 1)
        inside = (at > 0) & (at < tokens.shape[1])  # the first token is no text
        return np.where(inside, tokens[document][np.where(inside, at, 0)], -1).tobytes()

    listed, shown = {document: value for (document, _), value in mine.items()}, set(map(window, mine))
    theirs: Values = {}
    for (document, _), value in other.items():
        theirs[document] = max(value, theirs.get(document, 0.0))
    folded = {
        place[0]
        for place, value in other.items()
        if place[0] not in listed and tie(value, theirs[place[0]]) and window(place) in shown
    }
    theirs = {document: value for document, value in theirs.items() if document not in folded}
    strongest = sorted(listed, key=lambda document: -listed[document])[: len(theirs)]
    return {document: listed[document] for document in strongest}, theirs


def tie(a: float, b: float) -> bool:
    """Ours are float16, and SAEDashboard's rounded to four digits."""
    return abs(a - b) <= 2.0**-10 * max(a, b) + 1e-4


def alike(mine: Values, other: Values) -> bool:
    """Whether the same documents are strongest, with the same activations. A document that only one has must tie with
    the weakest of both."""
    if len(mine) != len(other):
        return False
    if any(not tie(mine[document], other[document]) for document in mine.keys() & other.keys()):
        return False
    alone = [mine[one] for one in mine.keys() - other.keys()] + [other[one] for one in other.keys() - mine.keys()]
    return all(tie(value, min(side.values())) for value in alone for side in (mine, other))
