"""Which feature of one store is which of another, by direction or by shared samples; computed once, then held."""

import threading
from collections.abc import Sequence
from typing import NamedTuple

from backend.live.lru import Lru
from backend.schemas.compare import MatchBy
from backend.stores import OpenStore
from precompute.store.relations.counterparts import Counterpart, alive_by_evidence, counterparts
from precompute.store.relations.shared_samples import SharedMatches

MAX_FEATURES = 2048
"""Features of a store that the chart and the lists of features without a match look at: those first in the default
order."""
LEAST = 0.5
"""Cosine from which two features count as a match."""

_SHARED: Lru[tuple[str, str], SharedMatches] = Lru(4)
_LOCK = threading.RLock()
"""So that several requests do not compute the same at once."""


class Matching(NamedTuple):
    """The features of a store in the default order, and the best match of each in the other one."""

    ids: list[int]
    """At most `MAX_FEATURES`, without dead ones."""
    n_alive: int
    """Features of the store that are not dead."""
    best: dict[int, Counterpart]
    """Of those that can be compared."""

    def is_match(self, id: int, least: float) -> bool:
        """Whether the best match of a feature reaches this cosine."""
        return id in self.best and self.best[id].cosine >= least


_MATCHINGS: Lru[tuple[str, str, str], Matching] = Lru(16)
"""By content of both stores, which never changes, and the way of matching."""


def best_matches(store: OpenStore, other: OpenStore, by: MatchBy, ids: Sequence[int]) -> dict[int, Counterpart]:
    """The best match in `other` of those features that can be compared.

    Raises:
        SaevxError: directions of different lengths; no sample in common.
    """
    if by == "direction":
        return counterparts(store.reader, other.reader, ids)
    return shared_matches(store, other).nearest(ids)


def shared_matches(store: OpenStore, other: OpenStore) -> SharedMatches:
    """Raises SaevxError where the stores have no sample in common."""
    key = (store.content_id, other.content_id)
    with _LOCK:
        return _SHARED.get_or_make(key, lambda: SharedMatches(store.reader, other.reader))


def cached_matching(store: OpenStore, other: OpenStore, by: MatchBy) -> Matching:
    """Of the features of `store`. Raises SaevxError as `best_matches`."""

    def make() -> Matching:
        order = alive_by_evidence(store.reader)
        return Matching(order[:MAX_FEATURES], len(order), best_matches(store, other, by, order[:MAX_FEATURES]))

    with _LOCK:
        return _MATCHINGS.get_or_make((store.content_id, other.content_id, by), make)


def default_way(store: OpenStore, other: OpenStore) -> MatchBy:
    """By direction in one layer of one width, else by shared samples."""
    summary_a, summary_b = store.reader.summary, other.reader.summary
    return "direction" if all(summary_a[name] == summary_b[name] for name in ("layer", "d_model")) else "samples"
