"""`store.features`: the list of features, one feature, and all of them as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, TypedDict, Unpack

import numpy as np
from sqlalchemy import ColumnElement, Select, func, or_, select

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.cooccurrence import Cooccurrence
from precompute.store.core import Core, feature_ref
from precompute.store.events import mapped
from precompute.store.histogram import EDGES, trimmed, unpack
from precompute.store.sql import KeysetList, Page, PlainQuery, fetch_plain, has_words, keyset_page
from precompute.utils.types import Array, check_keywords

Item = dict[str, Any]
Items = list[Item]

NEIGHBOUR = np.dtype([("other", "<i4"), ("cosine", "<f4")])
"""index/neighbours.npy [F, spaces, 10]: strongest first, `other` −1 beyond the end."""

_FEATURE_ROW = [s.features.c[name] for name in (
    "id", "label", "label_score", "verdict", "density_text", "density_image", "max_activation", "p999",
    *s.OMEGA_FIELDS, "modality_share", "same_sample_rate", "n_samples", *s.PAIR_FIELDS, "place", "place_share",
    "family", "mean_cosine", "description", "evidence",
)]  # fmt: skip
_LIST = select(*_FEATURE_ROW, s.families.c.n_members).select_from(
    s.features.outerjoin(s.families, s.features.c.family == s.families.c.id)
)
_COUNTS = ("n_text", "n_image", "samples_text", "samples_image", "max_text", "max_image")
_FEATURE = PlainQuery(
    [
        *_FEATURE_ROW, *(s.features.c[name] for name in _COUNTS),
        *(s.feature_details.c[name] for name in ("hist", "logits", "place_map")), s.families.c.n_members,
    ]
)
"""All that `Features.get` reads of the database."""
_TABLE = (
    "samples_text", "samples_image", "density_text", "density_image", "max_text", "max_image", "p999", "omega",
    "omega_centred", "omega_all_pairs",
)  # fmt: skip


class FeatureFilters(TypedDict, total=False):
    """Which features a list has, as in `GET /features` (docs/api.md); each filter may be left out or None."""

    verdict: str | Sequence[str] | None
    """One or several of `schema.VERDICTS`, or of the older names in `VERDICT_ALIASES`."""
    min_omega: float | None
    min_lift: float | None
    min_pair_lift: float | None
    min_agreement: float | None
    max_density: float | None
    """Largest share of tokens that activate it, in the modality where it is denser."""
    place: str | None
    """A place ("row 3"), a kind of place (`schema.PLACES`), or "none"."""
    family: int | None
    q: str | None
    """Words of the label or of the promoted tokens."""
    ids: Iterable[int] | None
    has_label: bool | None
    fold: bool | None
    """Of each family only its strongest member among the features that pass the other filters."""


class Features:
    """The features of a store, numbered 0…F−1."""

    def __init__(self, core: Core, cooccurrence: Cooccurrence) -> None:
        self._core = core
        self._cooccurrence = cooccurrence

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
            sort: one of `schema.FEATURE_SORTS`; features without that value come last.
            order: "asc" or "desc".
            limit: features on the page, at most 1000.
            cursor: `next` of the page before, with the same order and filters.
            filters: keywords of `FeatureFilters`.

        Raises:
            SaevxError: a sort, order or verdict that does not exist, or the cursor of another list.
        """
        check_keywords(filters, FeatureFilters)
        core, c = self._core, s.features.c
        if sort not in s.FEATURE_SORTS:
            raise SaevxError(f"Cannot sort features by {sort!r}: use one of {', '.join(s.FEATURE_SORTS)}.")
        given: Item = {name: value for name, value in filters.items() if value is not None}
        if verdict := given.pop("verdict", None):
            given["verdict"] = _verdicts([verdict] if isinstance(verdict, str) else verdict)
        if "ids" in given:
            given["ids"] = [*given["ids"]]
        tag = core.list_tag("features", sort=sort, order=order, **given)
        fold = given.pop("fold", False)
        where = _conditions(given)
        if fold:
            where.append(or_(c.family.is_(None), c.id.in_(_strongest(where)) if where else c.id == c.family))
        listed = KeysetList(_LIST, c[sort], c.id, where, tag, core.n_features, None if where else core.n_features)
        rows, total, after = keyset_page(core.engine, listed, order=order, limit=limit, cursor=cursor)
        return Page([{**r._mapping, "n_members": r.n_members or 1} for r in rows], total, after)

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
        near, partners = self.neighbours[feature], self._cooccurrence.partners(feature, 8)
        refs = core.feature_refs([
            *near["other"][near["other"] >= 0].tolist(), *(one["id"] for group in partners.values() for one in group)
        ])  # fmt: skip
        return {
            **item,
            "n_members": item["n_members"] or 1,
            "histogram": {name: trimmed(hist[m], unit) for m, name in enumerate(s.MODALITIES)},
            "bands": {name: _bands(hist[m], maxima[m], unit) for m, name in enumerate(s.MODALITIES)},
            "logits": {**logits["centred"], **logits},
            "neighbours": {
                space: [
                    {
                        **feature_ref(refs[k]), "cosine": cosine,
                        "near_copy": item["family"] is not None and refs[k]["family"] == item["family"],
                    }
                    for k, cosine in one.tolist() if k >= 0
                ]
                for space, one in zip(s.NEIGHBOUR_SPACES, near, strict=True)
            },
            "cooccurring": {
                name: [{**feature_ref(refs[one["id"]]), **one} for one in group] for name, group in partners.items()
            },
        }

    def refs(self, ids: Iterable[int]) -> dict[int, Item]:
        """id → id, label, label_score, description, verdict, max_text, max_image, p999 and family of these features."""
        return self._core.feature_refs(ids)

    @cached_property
    def table(self) -> dict[str, Array]:
        """Columns of all features, each float64 [F] in id order, NaN for null: for arithmetic over whole columns.

        Numbers of samples (`samples_text`, `samples_image`), shares of tokens (`density_…`), activations in z
        (`max_…`, `p999`), and three variants of ω.
        """
        rows = fetch_plain(self._core.engine, f"SELECT {', '.join(_TABLE)} FROM features ORDER BY id")
        values = np.array(rows, dtype=np.float64).reshape(-1, len(_TABLE))
        return {name: values[:, i] for i, name in enumerate(_TABLE)}

    @cached_property
    def max_by_modality(self) -> Array:
        """float64 [F, 2]: largest z of each feature on text and on images."""
        return np.stack([self.table["max_text"], self.table["max_image"]], axis=1)

    @cached_property
    def neighbours(self) -> Array:
        """`NEIGHBOUR` [F, 2, 10]: nearest features by decoder direction and by profile, as `schema.SPACES`."""
        return mapped(self._core.path / "index" / "neighbours.npy")

    def strongest(self, feature_k: Array, z_k: Array, modality: int, n: int) -> Items:
        """Of the features active in one modality those with the largest share of their own maximum there.

        Args:
            feature_k: int [k], features that are active. z_k: float64 [k], their activations (z).
            modality: 0 text, 1 image.
            n: at most so many.

        Returns:
            {id, label, verdict, activation, share}, the largest share first.
        """
        largest_k = self.max_by_modality[feature_k, modality]
        share_k = np.divide(z_k, largest_k, out=np.zeros(len(z_k)), where=largest_k > 0)
        order = np.lexsort((feature_k, -share_k))[:n]
        refs = self.refs(feature_k[order])
        return [
            {**feature_ref(refs[int(k)]), "activation": float(z_k[i]), "share": float(min(share_k[i], 1.0))}
            for i, k in zip(order, feature_k[order], strict=True)
        ]


def _verdicts(names: Sequence[str]) -> list[str]:
    """The verdicts that are meant, in the order of `VERDICTS`."""
    wanted = {one for name in names for one in s.VERDICT_ALIASES.get(name, (name,))}
    if unknown := wanted - set(s.VERDICTS):
        raise SaevxError(f"Unknown verdict {unknown.pop()!r}: use one of {', '.join(s.VERDICTS)}.")
    return [name for name in s.VERDICTS if name in wanted]


def _conditions(given: Item) -> list[ColumnElement[bool]]:
    """What those of `FeatureFilters` mean that are given."""
    c = s.features.c
    limits = {"omega": "min_omega", "lift": "min_lift", "pair_lift": "min_pair_lift", "agreement": "min_agreement"}
    where: list[ColumnElement[bool]] = [c[name] >= given[least] for name, least in limits.items() if least in given]
    if "verdict" in given:
        where.append(c.verdict.in_(given["verdict"]))
    if "max_density" in given:
        where.append(c.max_density <= given["max_density"])
    if "family" in given:
        where.append(c.family == given["family"])
    if (place := given.get("place")) == "none":
        where.append(c.place.is_(None))
    elif place is not None:
        where.append(c.place.startswith(f"{place} ") if place in s.PLACES else c.place == place)
    if "ids" in given:
        where.append(c.id.in_(given["ids"]))
    if "has_label" in given:
        where.append(c.label.is_not(None) if given["has_label"] else c.label.is_(None))
    if given.get("q", "").strip():
        where.append(has_words(c.id, "feature_fts", given["q"]))
    return where


def _strongest(where: list[ColumnElement[bool]]) -> Select[tuple[int]]:
    """Ids of the features that are the strongest in their family of those that pass the filters."""
    c = s.features.c
    place = func.row_number().over(
        partition_by=c.family, order_by=(c.evidence.desc().nulls_last(), c.max_activation.desc(), c.id)
    )
    ranked = select(c.id, place.label("place")).where(c.family.is_not(None), *where).subquery()
    return select(ranked.c.id).where(ranked.c.place == 1)


def _bands(count_b: Array, largest: float, unit: float) -> list[Item]:
    """Octaves down from the octave of the largest value; band 3 holds everything below the top three.

    Args:
        count_b: int64 [256], values by histogram bin.
        largest: the largest value (z). unit: one stored unit in z.
    """
    if largest <= 0:
        return []
    octave = int(np.floor(np.log2(largest / unit)))
    bands = []
    for band in range(4):
        high = 2.0 ** (octave + 1 - band)
        low = high / 2 if band < 3 else 0.0
        count = int(count_b[(EDGES[:-1] >= low) & (EDGES[:-1] < high)].sum())
        bands.append({"band": band, "low": low * unit, "high": high * unit, "count": count})
    return bands
