"""`store.cooccurrence`: pairs of features that share samples."""

from functools import cached_property, reduce
from operator import attrgetter
from threading import RLock
from typing import NamedTuple, Unpack

import numpy as np
from cachetools import LRUCache, cachedmethod

from precompute.errors import SaevxError
from precompute.store.core import Core, feature_ref
from precompute.store.relations.feature_pairs import (
    MEASURES,
    MIN_LIFT,
    SORTS,
    FeaturePairs,
    ListedPairs,
    PairCounts,
    PairFilters,
    StrongPairs,
    load,
    measures_of,
)
from precompute.store.schema import COOCCURRENCE_KINDS, MODALITIES
from precompute.store.sql import next_cursor, page_start
from precompute.utils.types import Item, Items, check_keywords

MAX_BYTES = 1 << 24
"""Of the lists that are kept, and of what they are taken from: walking a list asks for the same one again and again,
and moving its threshold for another one of the same pairs."""


def size(pairs: ListedPairs | StrongPairs) -> int:
    """Bytes, with some for the object."""
    return pairs.nbytes + 256


class PairPage(NamedTuple):
    """As `sql.Page`, with the number of pairs that are not listed, by reason."""

    items: Items
    total: int
    next: str | None
    hidden: Item
    """`weak`: below the lift; `same_concept`: of one family or name; `alike`: after another pair of the same two."""


class Cooccurrence:
    """Features that share samples: of each feature its strongest partners."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lists: LRUCache[str, ListedPairs] = LRUCache(MAX_BYTES, getsizeof=size)
        self._pair_cache: LRUCache[tuple[str, str, float], StrongPairs] = LRUCache(MAX_BYTES, getsizeof=size)
        self._lock = RLock()

    @cached_property
    def pairs(self) -> dict[str, FeaturePairs]:
        """The stored pairs by kind, `text-image`, `text-text` and `image-image`, as arrays."""
        return load(self._core.path, int(self._core.manifest["cooccurrence"]["n_samples"]))

    def list(
        self,
        *,
        kind: str = "text-image",
        sort: str = "lift_low",
        limit: int = 50,
        cursor: str | None = None,
        **filters: Unpack[PairFilters],
    ) -> PairPage:
        """One page of the strongest pairs (`GET /cooccurrence`).

        Args:
            kind: "text-image" (a on text, b on the image), "text-text" or "image-image".
            sort: one of `SORTS`, the largest first.
            filters: keywords of `PairFilters`.

        Raises:
            SaevxError: a kind or sort that does not exist, or the cursor of another list.
        """
        core, pairs = self._core, self._of_kind(kind)
        tag, (at, n_alike, hidden) = self.ranked(kind, sort, **filters)
        start = page_start(tag, cursor)
        page = pairs.measures(at[start : start + limit])
        refs = core.feature_refs([*page.a.tolist(), *page.b.tolist()])
        columns = {**page._asdict(), "family_a": core.family[page.a], "family_b": core.family[page.b]}
        columns["n_alike"] = n_alike[start : start + limit]
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        items = [{"kind": kind, **dict(zip(columns, row, strict=True))} for row in rows]
        items = [{**item, "a": feature_ref(refs[item["a"]]), "b": feature_ref(refs[item["b"]])} for item in items]
        return PairPage(items, len(at), next_cursor(tag, start + limit, len(at)), hidden)

    def ranked(self, kind: str, sort: str, **filters: Unpack[PairFilters]) -> tuple[str, ListedPairs]:
        """The tag of a list, and its pairs. Parameters and errors as those of `list`."""
        check_keywords(filters, PairFilters)
        if sort not in SORTS:
            raise SaevxError(f"Cannot sort co-occurrence by {sort!r}: use one of {', '.join(SORTS)}.")
        self._of_kind(kind)
        unless: PairFilters = {"min_support": 1, "feature": None, "min_lift": MIN_LIFT, "alike": False, "like": None}
        chosen_filters: PairFilters = {**unless, **filters}
        tag = self._core.list_tag("cooccurrence", kind=kind, sort=sort, **chosen_filters)
        return tag, self._pair_list(tag, kind, sort, chosen_filters)

    @cachedmethod(attrgetter("_lists"), key=lambda _, tag, *arguments: tag, lock=attrgetter("_lock"))
    def _pair_list(self, tag: str, kind: str, sort: str, filters: PairFilters) -> ListedPairs:
        """The pairs of the list for which `tag` stands."""
        pairs, feature, example = self.pairs[kind], filters["feature"], filters["like"]
        min_support, min_lift, with_alike = max(filters["min_support"], 0), filters["min_lift"], filters["alike"]
        if example is None and feature is None:
            return self._strong_pairs(kind, sort, min_lift).pair_list(min_support, with_alike)
        concept, parts = self._core.concept, []
        if feature is not None:
            parts.append(np.union1d(*(pairs.of(feature, side) for side in ("a", "b"))))
        if example is not None:
            features_a, features_b = (np.flatnonzero(concept == concept[feature_id]) for feature_id in example)
            parts.append(pairs.numbers_between(features_a, features_b))
        order = reduce(np.intersect1d, parts)
        order = order[pairs.sorted(pairs.measures(order), sort)]
        return pairs.strong_pairs(order, concept, min_lift).pair_list(min_support, with_alike or example is not None)

    @cachedmethod(attrgetter("_pair_cache"), key=lambda _, *arguments: arguments, lock=attrgetter("_lock"))
    def _strong_pairs(self, kind: str, sort: str, min_lift: float) -> StrongPairs:
        """All pairs with enough lift."""
        pairs = self.pairs[kind]
        order = pairs.by_support if sort == "support" else pairs.column(f"by_{sort}")
        return pairs.strong_pairs(order, self._core.concept, min_lift)

    def _of_kind(self, kind: str) -> FeaturePairs:
        if kind not in COOCCURRENCE_KINDS:
            raise SaevxError(f"Unknown kind {kind!r}: use one of {', '.join(COOCCURRENCE_KINDS)}.")
        return self.pairs[kind]

    def partners(self, feature: int, limit: int) -> dict[str, Items]:
        """The best feature of each other family or name that shares samples with this one, by the lower bound of the
        lift, which is at least `MIN_LIFT`.

        Returns:
            at most `limit` of `text_to_image`, `image_to_text` and `same` (both on text or both on the image), each
            {id, support, lift, lift_low, lift_high, npmi, lift_shuffled, modality}.
        """
        parts = [
            ("text_to_image", "text-image", "a", "image"),
            ("image_to_text", "text-image", "b", "text"),
            *(("same", f"{m}-{m}", side, m) for m in MODALITIES for side in ("a", "b")),
        ]
        # All parts together: with a few pairs each, it is the number of NumPy calls that takes the time.
        counts = [self.pairs[kind].counts(self.pairs[kind].of(feature, side)) for _, kind, side, _ in parts]
        partners_of = [p.b if side == "a" else p.a for p, (_, _, side, _) in zip(counts, parts, strict=True)]
        pairs = measures_of(PairCounts(*map(np.concatenate, zip(*counts, strict=True))), self.pairs["text-image"].n)
        partner_ids = np.concatenate(partners_of)
        part_of = np.repeat(np.arange(len(parts)), [len(partners) for partners in partners_of])
        order = np.lexsort((partner_ids, -pairs.support, -pairs.lift_low, part_of))
        concept = self._core.concept
        order = order[(concept[partner_ids[order]] != concept[feature]) & (pairs.lift[order] >= MIN_LIFT)]
        # Of each part and concept the first, which is the best.
        key = part_of[order] * len(concept) + concept[partner_ids[order]]
        order = order[np.sort(np.unique(key, return_index=True)[1])]
        ends = np.searchsorted(part_of[order], np.arange(len(parts) + 1))
        columns = {"id": partner_ids} | {name: getattr(pairs, name) for name in MEASURES}
        groups: dict[str, Items] = {"text_to_image": [], "image_to_text": [], "same": []}
        for i, (group, _, _, modality) in enumerate(parts):
            first = order[ends[i] : min(ends[i + 1], ends[i] + limit)]
            rows = zip(*(column[first].tolist() for column in columns.values()), strict=True)
            groups[group] += [{**dict(zip(columns, row, strict=True)), "modality": modality} for row in rows]
        groups["same"] = sorted(groups["same"], key=lambda x: (-x["lift_low"], -x["support"], x["id"]))[:limit]
        return groups
