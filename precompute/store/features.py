"""`store.features`: the list of features, one feature, and all of them as arrays."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Unpack

import numpy as np
from sqlalchemy import select

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.companion_files import HALLUCINATION
from precompute.store.cooccurrence import Cooccurrence
from precompute.store.core import Core, feature_columns, feature_ref
from precompute.store.events import map_array
from precompute.store.figures.hallucination import Hallucination
from precompute.store.histogram import bands, nonempty_bins, unpack
from precompute.store.lists.filters import FeatureFilters, verdicts_of
from precompute.store.lists.marked import Marked
from precompute.store.lists.matches import MATCH
from precompute.store.lists.ranges import Distributions, distributions
from precompute.store.lists.whole import WholeLists
from precompute.store.sql import Page, PlainQuery, encode_cursor, fetch, fetch_of, page_start
from precompute.utils.stats import ratio
from precompute.utils.types import Array, Item, Items, check_keywords

Row = tuple[Any, ...]

NEIGHBOUR = np.dtype([("other", "<i4"), ("cosine", "<f4")])
"""index/neighbours.npy [F, spaces, 10]: strongest first, `other` −1 beyond the end."""

_FEATURE_ROW = [s.features.c[name] for name in (
    "id", "label", "label_score", "verdict", "density_text", "density_image", "max_activation", "p999",
    *s.OMEGA_FIELDS, "modality_share", "same_sample_rate", "n_samples", *s.PAIR_FIELDS, "place", "place_share",
    "family", "mean_cosine", "description", "evidence",
)]  # fmt: skip
LISTED = [*(column.name for column in _FEATURE_ROW), "n_members"]
"""What a list shows of a feature."""
_LIST = (
    f"SELECT {', '.join(f'features.{name}' for name in LISTED[:-1])}, coalesce(families.n_members, 1) "
    "FROM features LEFT JOIN families ON families.id = features.family WHERE features.id IN (?)"
)
CHUNK = 2000
"""Features of a whole list at a time."""
_COUNTS = ("n_text", "n_image", "samples_text", "samples_image", "max_text", "max_image")
_FEATURE = PlainQuery(
    [
        *_FEATURE_ROW,
        *(s.features.c[name] for name in _COUNTS),
        *(s.feature_details.c[name] for name in ("hist", "logits", "place_map")),
        s.families.c.n_members,
    ]
)
"""All that `Features.get` reads of the database."""
_TABLE = (
    "samples_text", "samples_image", "density_text", "density_image", "max_text", "max_image", "p999", "omega",
    "omega_centred", "omega_all_pairs",
)  # fmt: skip

MIN_SAMPLE_COUNT = 16
"""A feature's samples are taken as at least so many."""


class Features:
    """The features of a store, numbered 0…F−1."""

    def __init__(self, core: Core, cooccurrence: Cooccurrence, hallucination: Hallucination) -> None:
        self._core = core
        self._cooccurrence = cooccurrence
        self._hallucination = hallucination
        self._lists = WholeLists(core, hallucination)

    def list(
        self,
        *,
        sort: str = "id",
        order: str = "asc",
        limit: int = 50,
        cursor: str | None = None,
        **filters: Unpack[FeatureFilters],
    ) -> Page:
        """One page of features.

        Args:
            sort: one of `schema.FEATURE_SORTS`, or "hallucination" where that was measured; features without that
                value come last. With words (`q`) also "match": the features of the words, best first in order "desc";
                without words it is "evidence".
            order: "asc" or "desc".
            limit: features on the page, at most 1000.
            cursor: `next` of the page before, with the same order and filters.
            filters: keywords of `FeatureFilters`.

        Raises:
            SaevxError: a sort, order or verdict that does not exist, or the cursor of another list.
        """
        tag, ids = self._ordered_ids(sort, order, filters)
        start, limit = page_start(tag, cursor), max(1, min(int(limit), 1000))
        by_mark = bool(str(filters.get("marked") or ""))  # such a list may be another by the next page
        if cursor and by_mark:
            start = self._lists.place_after(start, ids, sort, order, {**filters})
        end = start + limit
        items: Items = [dict(zip(LISTED, row, strict=True)) for row in self._rows(ids[start:end])]
        separation = self._hallucination.separation
        for item in items:
            item[HALLUCINATION] = separation.get(item["id"])
        if end >= len(ids):
            return Page(items, len(ids), None)
        return Page(items, len(ids), encode_cursor(tag, None, int(ids[end - 1]) if by_mark else end))

    def whole_list(
        self, *, sort: str = "id", order: str = "asc", **filters: Unpack[FeatureFilters]
    ) -> Iterator[Sequence[Row]]:
        """All features of a list, some thousand at a time, each with the values of `LISTED`. Arguments as `list`."""
        ids = self._ordered_ids(sort, order, filters)[1]
        return (self._rows(ids[start : start + CHUNK]) for start in range(0, len(ids), CHUNK))

    def random(self, **filters: Unpack[FeatureFilters]) -> int | None:
        """The number of a random feature among those that pass the filters; None where none does."""
        ids = self._ordered_ids("id", "asc", filters)[1]
        return int(np.random.default_rng().choice(ids)) if len(ids) else None

    def verdict_counts(self, **filters: Unpack[FeatureFilters]) -> dict[str, int]:
        """By verdict, how many features a list with it and these filters has; the filter `verdict` is ignored."""
        check_keywords(filters, FeatureFilters)
        conditions: Item = {name: value for name, value in filters.items() if value is not None and name != "verdict"}
        return self._lists.verdict_counts(conditions)

    def _rows(self, ids: Array) -> Sequence[Row]:
        """The values of `LISTED` of int [n] features, in this order."""
        row_of: dict[int, Row] = {row[0]: row for row in fetch_of(self._core.engine, _LIST, ids)}
        return [row_of[id] for id in ids.tolist()]

    def _ordered_ids(self, sort: str, order: str, filters: FeatureFilters) -> tuple[str, Array]:
        """The tag of a list, and int32 [n] its features in their order."""
        check_keywords(filters, FeatureFilters)
        if sort not in (*s.FEATURE_SORTS, HALLUCINATION, MATCH):
            raise SaevxError(f"Cannot sort features by {sort!r}: use one of {', '.join(s.FEATURE_SORTS)}.")
        conditions: Item = {name: value for name, value in filters.items() if value is not None}
        if verdict := conditions.pop("verdict", None):
            conditions["verdict"] = verdicts_of([verdict] if isinstance(verdict, str) else verdict)
        if "ids" in conditions:
            conditions["ids"] = [*conditions["ids"]]
        marks: Marked | None = conditions.get("marked")
        tag_filters = {name: value for name, value in conditions.items() if name != "marked"}
        if sort == HALLUCINATION:
            tag_filters["stamp"] = self._hallucination.stamp
        if marks is None:
            tag = key = self._core.list_tag("features", sort=sort, order=order, **tag_filters)
        else:  # cursors know the name of what was chosen, the cache knows the rows
            tag = self._core.list_tag("features", sort=sort, order=order, marked=marks.name, **tag_filters)
            key = self._core.list_tag("features", sort=sort, order=order, marked=asdict(marks), **tag_filters)
        return tag, self._lists.of(key, sort, order, conditions)

    @cached_property
    def distributions(self) -> Distributions:
        """How each figure that lists can be limited to a range of is distributed over the store's features."""
        return distributions(self._core.engine)

    def get(self, feature: int) -> Item:
        """Everything known of a feature but its examples (`GET /features/{id}`).

        Raises:
            SaevxError: no such feature.
        """
        core = self._core
        core.check_feature(feature)
        tables = (
            "features JOIN feature_details ON feature_details.id = features.id "
            "LEFT JOIN families ON families.id = features.family WHERE features.id = ?"
        )
        item = _FEATURE.fetch(core.engine, tables, (int(feature),))[0]
        hist, logits = unpack(item.pop("hist")), item.pop("logits")
        maxima, unit = (item["max_text"], item["max_image"]), core.events.unit
        neighbours, partners = self.neighbours[feature], self._cooccurrence.partners(feature, 8)
        ids = neighbours["other"]
        refs = core.feature_refs([*ids[ids >= 0].tolist(), *(p["id"] for group in partners.values() for p in group)])
        return {
            **item,
            HALLUCINATION: self._hallucination.separation.get(int(feature)),
            "n_members": item["n_members"] or 1,
            "histogram": {name: nonempty_bins(hist[m], unit) for m, name in enumerate(s.MODALITIES)},
            "bands": {name: bands(hist[m], maxima[m], unit) for m, name in enumerate(s.MODALITIES)},
            "logits": {**logits["centred"], **logits},
            "neighbours": {
                space: [
                    {
                        **feature_ref(refs[k]),
                        "cosine": cosine,
                        "near_copy": item["family"] is not None and refs[k]["family"] == item["family"],
                    }
                    for k, cosine in of_space.tolist()
                    if k >= 0
                ]
                for space, of_space in zip(s.NEIGHBOUR_SPACES, neighbours, strict=True)
            },
            "cooccurring": {
                name: [{**feature_ref(refs[p["id"]]), **p} for p in group] for name, group in partners.items()
            },
        }

    def refs(self, ids: Iterable[int]) -> dict[int, Item]:
        """id → id, label, label_score, description, verdict, max_text, max_image, p999 and family of these features."""
        return self._core.feature_refs(ids)

    def place_maps(self, ids: Iterable[int]) -> dict[int, Item | None]:
        """id → {rows, columns, mean} of the mean activation by place, row by row; None for a feature without one."""
        details = s.feature_details.c
        rows = fetch(self._core.engine, select(details.id, details.place_map).where(details.id.in_([*ids])))
        return {row.id: row.place_map for row in rows}

    @cached_property
    def table(self) -> dict[str, Array]:
        """Columns of all features, each float64 [F] in id order, NaN for null: for arithmetic over whole columns.

        Numbers of samples (`samples_text`, `samples_image`), shares of tokens (`density_…`), activations in z
        (`max_…`, `p999`), and three variants of ω.
        """
        return dict(zip(_TABLE, feature_columns(self._core.engine, *_TABLE).T, strict=True))

    @property
    def family(self) -> Array:
        """int64 [F]: the family of each feature, which is the id of its strongest member; its own where it has none."""
        return self._core.family

    @property
    def concept(self) -> Array:
        """int64 [F]: equal for features of one family or name, which lists show as one: the first of them."""
        return self._core.concept

    @cached_property
    def has_place(self) -> Array:
        """bool [F]: whether the feature is tied to a place of the image."""
        return feature_columns(self._core.engine, "place IS NOT NULL", dtype=bool)[:, 0]

    @cached_property
    def max_by_modality(self) -> Array:
        """float64 [F, 2]: largest z of each feature on text and on images."""
        return np.stack([self.table["max_text"], self.table["max_image"]], axis=1)

    @cached_property
    def neighbours(self) -> Array:
        """`NEIGHBOUR` [F, 2, 10]: nearest features by decoder direction and by profile, as `NEIGHBOUR_SPACES`."""
        return map_array(self._core.path / "index" / "neighbours.npy")

    @cached_property
    def specificity(self) -> Array:
        """float64 [F, 2]: log(N / n) of each feature on text and on images, n its samples, taken as at least 16 or a
        quarter of a small store: what fired in two samples is not known to be specific. 0 where it is never active."""
        n_f2 = np.stack([self.table["samples_text"], self.table["samples_image"]], axis=1)
        n_samples = self._core.n_samples
        return np.log(n_samples / np.maximum(n_f2, min(MIN_SAMPLE_COUNT, n_samples / 4))) * (n_f2 > 0)

    def strongest(self, feature_k: Array, z_k: Array, modality: int, n: int) -> Items:
        """Of the features active in one modality the strongest and most specific.

        Args:
            feature_k: int [k], features that are active. z_k: float64 [k], their activations (z).
            modality: 0 text, 1 image.
            n: at most so many.

        Returns:
            {id, label, verdict, activation, share}, the share being z ÷ p99.9 of both modalities together, by the
            share, at most 1, × specificity.
        """
        share_k = ratio(z_k, self.table["p999"][feature_k])
        score_k = np.minimum(share_k, 1) * self.specificity[feature_k, modality]
        order = np.lexsort((feature_k, -share_k, -score_k))[:n]
        refs = self.refs(feature_k[order])
        return [
            {**feature_ref(refs[int(k)]), "activation": float(z_k[i]), "share": float(share_k[i])}
            for i, k in zip(order, feature_k[order], strict=True)
        ]

    def grouped(self, sides: Sequence[tuple[Array, Array]], n: int) -> dict[str, Items]:
        """The families that are on in a sample, those of one name as one; on is an activation of a tenth of p99.9.

        Args:
            sides: (feature, z) of its text and of its image, as `places.sides_of`.
            n: at most so many of each group.

        Returns:
            `both`, `image_only` and `text_only`: {id, label, verdict} of the best member, {activation_text, share_text,
            activation_image, share_image} of the strongest one on each side, how many more are on (`n_alike`), and all
            that are (`members`). By share, at most 1, × specificity; in `both` by the smaller product of its two.
        """
        # Only what fires in the sample: whole columns of a wide SAE would take ten times as long.
        firing_k = np.unique(np.concatenate([feature_k for feature_k, _ in sides]))
        z_k2 = np.zeros((len(firing_k), 2))
        for m, (feature_k, z_k) in enumerate(sides):
            z_k2[firing_k.searchsorted(feature_k), m] = z_k
        share_k2 = ratio(z_k2, self.table["p999"][firing_k][:, None])
        on_k2 = share_k2 >= s.DELTA_SHARE
        is_on_k = on_k2.any(axis=1)
        active_a, z_a2, share_a2, on_a2 = firing_k[is_on_k], z_k2[is_on_k], share_k2[is_on_k], on_k2[is_on_k]
        score_a2 = np.minimum(share_a2, 1) * on_a2 * self.specificity[active_a]
        of_a = np.unique(self.concept[active_a], return_inverse=True)[1]
        on_g2, score_g2 = np.zeros((len(active_a), 2), bool), np.zeros((len(active_a), 2))
        np.logical_or.at(on_g2, of_a, on_a2)
        np.maximum.at(score_g2, of_a, score_a2)
        both_g: Array = on_g2[:, 0] & on_g2[:, 1]
        score_g = np.where(both_g, score_g2.min(axis=1), score_g2.max(axis=1))
        # The member that stands for its family: on both sides, where one is.
        own_a = np.where(both_g[of_a], score_a2.min(axis=1), score_a2.max(axis=1))
        order = np.lexsort((active_a, -score_a2.max(axis=1), -own_a, -score_g[of_a]))
        best_a = order[np.sort(np.unique(of_a[order], return_index=True)[1])]
        where_g = np.where(both_g, 2, on_g2[:, 1])
        best_of = [best_a[where_g[of_a[best_a]] == where][:n] for where in (2, 1, 0)]
        refs = self.refs(active_a[np.concatenate(best_of)])
        by_family = of_a.argsort(kind="stable")
        first_g = of_a[by_family].searchsorted(np.arange(len(active_a) + 1))

        def item(at: int) -> Item:
            members = by_family[first_g[of_a[at]] : first_g[of_a[at] + 1]]
            values: Item = {}
            for m, side in enumerate(s.MODALITIES):
                k = members[share_a2[members, m].argmax()] if len(members) > 1 else at
                values[f"activation_{side}"] = float(z_a2[k, m]) if on_a2[k, m] else None
                values[f"share_{side}"] = float(share_a2[k, m]) if on_a2[k, m] else None
            values |= {"n_alike": len(members) - 1, "members": active_a[members].tolist()}
            return {**feature_ref(refs[int(active_a[at])]), **values}

        names = ("both", "image_only", "text_only")
        return {name: [item(at) for at in places] for name, places in zip(names, best_of, strict=True)}
