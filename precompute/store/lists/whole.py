"""A list of features whole: the numbers that pass its filters, in its order."""

from functools import cached_property
from itertools import chain
from operator import attrgetter
from threading import RLock

import numpy as np
from cachetools import LRUCache, cachedmethod
from sqlalchemy import select

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.companion_files import HALLUCINATION
from precompute.store.core import Core, feature_columns
from precompute.store.figures.hallucination import Hallucination
from precompute.store.lists.filters import RANGED, conditions
from precompute.store.lists.marked import Marked
from precompute.store.lists.matches import MATCH, best_matches
from precompute.store.sql import fetch_plain
from precompute.utils.types import Array, Item

MAX_BYTES = 1 << 24
"""Of the lists that are kept: those of 64 lists of all 65,536 features."""


class WholeLists:
    """The lists of a store's features. One takes SQLite some milliseconds, and each page of it is a part of an array.

    A store does not change, so the lists asked for last are kept.
    """

    def __init__(self, core: Core, hallucination: Hallucination) -> None:
        self._core, self._hallucination = core, hallucination
        self._lists: LRUCache[str, Array] = LRUCache(MAX_BYTES, getsizeof=lambda ids: ids.nbytes + 256)
        self._lock = RLock()
        self._by: dict[str, tuple[Array, Array]] = {}
        self._columns: dict[str, Array] = {}

    @cachedmethod(attrgetter("_lists"), key=lambda _, tag, *arguments: tag, lock=attrgetter("_lock"))
    def of(self, tag: str, sort: str, order: str, filters: Item) -> Array:
        """int32 [n]: the features in their order; those without the value that sorts them come last, by number.

        Args:
            tag: stands for the other arguments.
            sort: one of `schema.FEATURE_SORTS`, "hallucination" or "match". order: "asc" or "desc".
            filters: those of `FeatureFilters` that are neither left out nor None.
        """
        if order not in ("asc", "desc"):
            raise SaevxError(f"Unknown order {order!r}: use asc or desc.")
        return self._in_order(sort, order == "desc", filters)

    def place_after(self, last: int, ids: Array, sort: str, order: str, filters: Item) -> int:
        """Where a list goes on after the feature `last`, which may be in it no more. `ids`: int32 [n], as of `of`."""
        with_value, without_value = self._order_by(sort, filters)
        ordered_ids = np.concatenate([with_value[::-1] if order == "desc" else with_value, without_value])
        rank_f = np.empty_like(ordered_ids)
        rank_f[ordered_ids] = np.arange(len(ordered_ids))
        return int(np.searchsorted(rank_f[ids], rank_f[min(last, len(ordered_ids) - 1)], side="right"))

    def verdict_counts(self, filters: Item) -> dict[str, int]:
        """Of each verdict how many features a list has that leaves only it, under filters that say nothing of verdicts.

        Args:
            filters: as of `of`.
        """
        filters = dict(filters)
        fold = filters.pop("fold", None)
        ids, n_features = np.flatnonzero(self._mask(filters)), self._core.n_features
        line_k = ids
        if fold is not None:  # one line for the features of a group
            group_k = self._groups[fold][ids]
            line_k = np.where(group_k < 0, ids, group_k)
        has_line_vk = np.zeros((len(s.VERDICTS), n_features), bool)
        has_line_vk.reshape(-1)[self._verdicts[ids] * n_features + line_k] = True  # one index: half the time of two
        n_v = np.count_nonzero(has_line_vk, axis=1)
        return dict(zip(s.VERDICTS, n_v.tolist(), strict=True))

    def _in_order(self, sort: str, descending: bool, filters: Item) -> Array:
        filters = dict(filters)
        fold = filters.pop("fold", None)
        passes_f = self._mask(filters)
        if fold is not None:
            passes_f &= self._is_strongest(fold, passes_f)
        with_value, without_value = self._order_by(sort, filters)
        ids: Array = np.concatenate([with_value[::-1] if descending else with_value, without_value])
        return ids[passes_f[ids]]

    def _mask(self, filters: Item) -> Array:
        """bool [F]: which features pass the filters: ranges and verdicts by columns in memory, the others by SQLite."""
        passes_f, sql_filters = np.ones(self._core.n_features, bool), dict(filters)
        for name in RANGED:
            for end, compare in (("min", np.greater_equal), ("max", np.less_equal)):
                if (value := sql_filters.pop(f"{end}_{name}", None)) is not None:
                    passes_f &= compare(self._column(name), value)
        if (verdicts := sql_filters.pop("verdict", None)) is not None:
            passes_f &= np.isin(self._verdicts, [s.VERDICTS.index(name) for name in verdicts])
        if (family := sql_filters.pop("family", None)) is not None:
            passes_f &= self._column("family") == family
        if sql_filters:
            passes_f &= self._mask_by_sql(sql_filters)
        return passes_f

    def _mask_by_sql(self, filters: Item) -> Array:
        """bool [F]: which features pass the filters."""
        passes_f = np.zeros(self._core.n_features, bool)
        engine = self._core.engine
        query = select(s.features.c.id).where(*conditions(filters))
        statement = query.compile(engine, compile_kwargs={"render_postcompile": True})
        values = statement.construct_params()
        rows = fetch_plain(engine, str(statement), [values[name] for name in statement.positiontup or ()])
        passes_f[np.fromiter(chain.from_iterable(rows), np.int64)] = True
        return passes_f

    def _column(self, name: str) -> Array:
        """float64 [F]: a column of the table `features`, NaN for null, which passes no comparison."""
        if name not in self._columns:
            self._columns[name] = feature_columns(self._core.engine, name)[:, 0]
        return self._columns[name]

    def _order_by(self, sort: str, filters: Item) -> tuple[Array, Array]:
        """int32: the features that have the value, smallest first, equal ones by number; and those without it."""
        if sort == MATCH:
            if (filters.get("q") or "").strip():
                return self._by_match(filters["q"], filters.get("marked"))
            sort = "evidence"
        if sort == HALLUCINATION:
            return self._by_separation()
        if sort not in self._by:
            engine = self._core.engine
            queries = (
                f"SELECT id FROM features WHERE {sort} IS NOT NULL ORDER BY {sort}, id",
                f"SELECT id FROM features WHERE {sort} IS NULL ORDER BY id",
            )
            with_value, without_value = (np.array(fetch_plain(engine, query), np.int32).ravel() for query in queries)
            self._by[sort] = with_value, without_value
        return self._by[sort]

    def _by_match(self, q: str, marks: Marked | None) -> tuple[Array, Array]:
        """As `_order_by`: those with the words, the best last; best of all are those whose notes have them."""
        annotated_ids = np.array(marks.word_matches if marks else (), np.int32)
        matching_ids = best_matches(self._core, q)
        ids = np.concatenate([annotated_ids, matching_ids[~np.isin(matching_ids, annotated_ids)]])
        return ids[::-1], np.setdiff1d(np.arange(self._core.n_features, dtype=np.int32), ids)

    def _by_separation(self) -> tuple[Array, Array]:
        """As `_order_by`; never kept, since the file may change."""
        separation = self._hallucination.separation
        if not separation:
            raise SaevxError(
                "No hallucination figures were measured on this store, so nothing can be sorted by them: run "
                "`saevx experiment hallucination --store STORE --attach`."
            )
        ids = np.array(sorted(separation, key=lambda k: (separation[k], k)), np.int32)
        ids = ids[(ids >= 0) & (ids < self._core.n_features)]
        return ids, np.setdiff1d(np.arange(self._core.n_features, dtype=np.int32), ids)

    def _is_strongest(self, fold: str, passes_f: Array) -> Array:
        """bool [F]: whether a feature is alone, or the strongest of its family or name among those that pass."""
        group_f, by_strength = self._groups[fold], self._by_strength
        candidates = by_strength[passes_f[by_strength]]
        strongest_of = np.full(len(group_f), -1, np.int32)
        # Of several values for one place the last one stays, so the strongest must come last.
        strongest_of[group_f[candidates[::-1]]] = candidates[::-1]
        return (group_f < 0) | (strongest_of[group_f] == np.arange(len(group_f)))

    @cached_property
    def _by_strength(self) -> Array:
        """int32 [F]: all features, those of the most evidence first."""
        query = "SELECT id FROM features ORDER BY evidence DESC NULLS LAST, max_activation DESC, id"
        return np.array(fetch_plain(self._core.engine, query), np.int32).ravel()

    @cached_property
    def _groups(self) -> dict[str, Array]:
        """int32 [F] for each fold: the strongest feature of the family, or of all of one name; −1 where it is alone."""
        groups = ("coalesce(family, -1)", "coalesce(namesake, family, -1)")
        family_f, name_f = feature_columns(self._core.engine, *groups, dtype=np.int32).T.copy()
        return {"families": family_f, "names": name_f}

    @cached_property
    def _verdicts(self) -> Array:
        """int64 [F]: the place of each feature's verdict in `schema.VERDICTS`."""
        rows = fetch_plain(self._core.engine, "SELECT verdict FROM features ORDER BY id")
        return np.array([s.VERDICTS.index(verdict) for (verdict,) in rows], np.int64)
