"""The reader's questions about features: lists, one feature, its partners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, select, text

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.base import StoreBase, feature_ref
from precompute.store.cooccurrence import SORTS, Counted, measured
from precompute.store.histogram import EDGES, trimmed, unpack
from precompute.store.sql import Columns, Page, encode_cursor, keyset_page, match_words, page_start
from precompute.utils.types import Array

Item = dict[str, Any]

_FEATURE_ROW = [s.features.c[name] for name in (
    "id", "label", "label_score", "verdict", "density_text", "density_image", "max_activation", "p999",
    *s.OMEGA_FIELDS, "modality_share", "same_sample_rate", "n_samples",
)]  # fmt: skip
_COUNTS = ("n_text", "n_image", "samples_text", "samples_image", "max_text", "max_image")
_FEATURE = Columns(
    [*_FEATURE_ROW, *(s.features.c[name] for name in _COUNTS), s.feature_details.c.hist, s.feature_details.c.logits]
)
"""All that `FeatureQueries.feature` reads of the database."""


class FeatureQueries(StoreBase):
    """Answers about features."""

    def features(
        self,
        *,
        sort: str = "id",
        order: str = "asc",
        limit: int = 50,
        cursor: str | None = None,
        verdict: str | Sequence[str] | None = None,
        min_omega: float | None = None,
        min_lift: float | None = None,
        max_density: float | None = None,
        q: str | None = None,
        ids: Iterable[int] | None = None,
        has_label: bool | None = None,
    ) -> Page:
        """One page of features; the filters are those of `GET /features` (docs/api.md)."""
        if sort not in s.FEATURE_SORTS:
            raise SaevxError(f"Cannot sort features by {sort!r}: use one of {', '.join(s.FEATURE_SORTS)}.")
        c = s.features.c
        where: list[ColumnElement[bool]] = []
        if verdict:
            wanted = [verdict] if isinstance(verdict, str) else list(verdict)
            if unknown := set(wanted) - set(s.VERDICTS):
                raise SaevxError(f"Unknown verdict {unknown.pop()!r}: use one of {', '.join(s.VERDICTS)}.")
            where.append(c.verdict.in_(wanted))
        if min_omega is not None:
            where.append(c.omega >= min_omega)
        if min_lift is not None:
            where.append(c.lift >= min_lift)
        if max_density is not None:
            where.append(c.max_density <= max_density)
        numbers = None if ids is None else list(ids)
        if numbers is not None:
            where.append(c.id.in_(numbers))
        if has_label is not None:
            where.append(c.label.is_not(None) if has_label else c.label.is_(None))
        if q and q.strip():
            match = match_words(q)
            found = text("SELECT rowid FROM feature_fts WHERE feature_fts MATCH :q").bindparams(q=match)
            where.append(c.id.in_(found.columns(s.features.c.id).scalar_subquery()) if match else c.id < 0)
        tag = self.list_tag(
            "features", sort=sort, order=order, verdict=[verdict] if isinstance(verdict, str) else verdict,
            bounds=[min_omega, min_lift, max_density], q=q, ids=numbers, has_label=has_label,
        )  # fmt: skip
        rows, total, after = keyset_page(
            self.engine, select(*_FEATURE_ROW), by=c[sort], key=c.id, order=order, limit=limit,
            cursor=cursor, tag=tag, where=where, n=self.n_features, total=None if where else self.n_features,
        )  # fmt: skip
        return Page([dict(r._mapping) for r in rows], total, after)

    def _check_feature(self, feature: int) -> None:
        if not 0 <= feature < self.n_features:
            raise SaevxError(f"No feature {feature}: this store has 0 to {self.n_features - 1}.")

    def feature(self, feature: int) -> Item:
        """Everything known of a feature but its examples (`GET /features/{id}`).

        Raises:
            SaevxError: no such feature.
        """
        self._check_feature(feature)
        rest = "features JOIN feature_details ON feature_details.id = features.id WHERE features.id = ?"
        item = _FEATURE.fetch(self.engine, rest, (int(feature),))[0]
        hist, logits = unpack(item.pop("hist")), item.pop("logits")
        tops = (item["max_text"], item["max_image"])
        unit = self.events.unit
        near, partners = self.neighbour_table[feature], self._partners(feature, 8)
        refs = self.feature_refs([
            *near["other"][near["other"] >= 0].tolist(), *(one["id"] for group in partners.values() for one in group)
        ])  # fmt: skip
        return {
            **item,
            "histogram": {name: trimmed(hist[m], unit) for m, name in enumerate(s.MODALITIES)},
            "bands": {name: _bands(hist[m], tops[m], unit) for m, name in enumerate(s.MODALITIES)},
            "logits": logits,
            "neighbours": {
                space: [{**feature_ref(refs[k]), "cosine": cosine} for k, cosine in one.tolist() if k >= 0]
                for space, one in zip(s.SPACES, near, strict=True)
            },
            "cooccurring": {
                name: [{**feature_ref(refs[one["id"]]), **one} for one in group] for name, group in partners.items()
            },
        }

    def _partners(self, feature: int, limit: int) -> dict[str, list[Item]]:
        """Other features that share samples with this one, strongest NPMI first, by direction.

        The feature with itself is in `cooccurrence`, and in `same_sample_rate`.
        """
        asked = [
            ("text_to_image", "text-image", "a", "image"),
            ("image_to_text", "text-image", "b", "text"),
            *(("same", f"{m}-{m}", side, m) for m in s.MODALITIES for side in ("a", "b")),
        ]
        # All together: with a few pairs each, it is the number of steps that takes the time.
        parts = [self.pairs[kind].counted(self.pairs[kind].of(feature, side)) for _, kind, side, _ in asked]
        others = [part.b if side == "a" else part.a for part, (_, _, side, _) in zip(parts, asked, strict=True)]
        found = measured(Counted(*map(np.concatenate, zip(*parts, strict=True))), self.pairs["text-image"].n)
        other = np.concatenate(others)
        part_of = np.repeat(np.arange(len(asked)), [len(one) for one in others])
        order = np.lexsort((other, -found.support, -found.npmi, part_of))
        order = order[other[order] != feature]
        ends = np.searchsorted(part_of[order], np.arange(len(asked) + 1))
        columns = {"id": other} | {name: getattr(found, name) for name in ("support", "lift", "npmi", "lift_shuffled")}
        groups: dict[str, list[Item]] = {"text_to_image": [], "image_to_text": [], "same": []}
        for i, (group, _, _, modality) in enumerate(asked):
            first = order[ends[i] : min(ends[i + 1], ends[i] + limit)]
            rows = zip(*(column[first].tolist() for column in columns.values()), strict=True)
            groups[group] += [{**dict(zip(columns, row, strict=True)), "modality": modality} for row in rows]
        groups["same"] = sorted(groups["same"], key=lambda x: (-x["npmi"], -x["support"], x["id"]))[:limit]
        return groups

    def cooccurrence(
        self, *, kind: str = "text-image", sort: str = "npmi", min_support: int = 1,
        feature: int | None = None, limit: int = 50, cursor: str | None = None,
    ) -> Page:  # fmt: skip
        """Strongest pairs of features that share samples (`GET /cooccurrence`)."""
        if sort not in SORTS:
            raise SaevxError(f"Cannot sort co-occurrence by {sort!r}: use npmi, lift or support.")
        if kind not in s.KINDS:
            raise SaevxError(f"Unknown kind {kind!r}: use one of {', '.join(s.KINDS)}.")
        tag = self.list_tag("cooccurrence", kind=kind, sort=sort, min_support=min_support, feature=feature)
        pairs, start = self.pairs[kind], page_start(tag, cursor)
        if feature is None:
            at, total = pairs.page(sort, min_support, start, limit)
        else:
            at = np.union1d(pairs.of(feature, "a"), pairs.of(feature, "b"))
            at = at[pairs.column("support")[at] >= max(min_support, 0)]
            total, at = len(at), at[pairs.sorted(pairs.measured(at), sort)][start : start + limit]
        found = pairs.measured(at)
        refs = self.feature_refs([*found.a.tolist(), *found.b.tolist()])
        rows = zip(*(column.tolist() for column in found), strict=True)
        items = [{"kind": kind, **dict(zip(found._fields, row, strict=True))} for row in rows]
        items = [{**item, "a": feature_ref(refs[item["a"]]), "b": feature_ref(refs[item["b"]])} for item in items]
        return Page(items, total, encode_cursor(tag, None, start + limit) if start + limit < total else None)


def _bands(counts: Array, largest: float, unit: float) -> list[Item]:
    """Octaves down from the octave of the largest value; band 3 holds everything below the top three."""
    if largest <= 0:
        return []
    octave = int(np.floor(np.log2(largest / unit)))
    bands = []
    for band in range(4):
        high = 2.0 ** (octave + 1 - band)
        low = high / 2 if band < 3 else 0.0
        count = int(counts[(EDGES[:-1] >= low) & (EDGES[:-1] < high)].sum())
        bands.append({"band": band, "low": low * unit, "high": high * unit, "count": count})
    return bands
