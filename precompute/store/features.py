"""The reader's questions about features: lists, one feature, its partners."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Row, func, or_, select, text

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.base import StoreBase, feature_ref, page_start
from precompute.store.hist import EDGES, trimmed, unpack
from precompute.store.query import Page, keyset_page, match_words

Array = NDArray[Any]
Item = dict[str, Any]

_FEATURE_ROW = [s.features.c[name] for name in (
    "id", "label", "label_score", "verdict", "density_text", "density_image", "max_activation", "p999",
    *s.OMEGA_FIELDS, "modality_share", "same_sample_rate", "n_samples",
)]  # fmt: skip


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
        if ids is not None:
            where.append(c.id.in_(list(ids)))
        if has_label is not None:
            where.append(c.label.is_not(None) if has_label else c.label.is_(None))
        if q and q.strip():
            match = match_words(q)
            found = text("SELECT rowid FROM feature_fts WHERE feature_fts MATCH :q").bindparams(q=match)
            where.append(c.id.in_(found.columns(s.features.c.id).scalar_subquery()) if match else c.id < 0)
        rows, total, after = keyset_page(
            self.engine, select(*_FEATURE_ROW), by=c[sort], key=c.id, order=order, limit=limit,
            cursor=cursor, where=where,
        )  # fmt: skip
        return Page([dict(r._mapping) for r in rows], total, after)

    def _feature_row(self, feature: int) -> Row[Any]:
        if not 0 <= feature < self.n_features:
            raise SaevxError(f"No feature {feature}: this store has 0 to {self.n_features - 1}.")
        return self._all(select(s.features).where(s.features.c.id == feature))[0]

    def feature(self, feature: int) -> Item:
        """Everything known of a feature but its examples (`GET /features/{id}`).

        Raises:
            SaevxError: no such feature.
        """
        row = self._feature_row(feature)._mapping
        hist = unpack(row["hist"])
        tops = (row["max_text"], row["max_image"])
        unit = self.events.unit
        return {
            **{column.name: row[column.name] for column in _FEATURE_ROW},
            **{
                k: row[k]
                for k in ("n_text", "n_image", "samples_text", "samples_image", "max_text", "max_image")
            },
            "histogram": {name: trimmed(hist[m], unit) for m, name in enumerate(s.MODALITIES)},
            "bands": {name: _bands(hist[m], tops[m], unit) for m, name in enumerate(s.MODALITIES)},
            "logits": row["logits"] or {"promoted": [], "suppressed": []},
            "neighbours": self._neighbours(feature),
            "cooccurring": self.cooccurring(feature),
        }

    def _neighbours(self, feature: int) -> Item:
        n, f = s.neighbours.c, s.features.c
        query = (
            select(n.space, f.id, f.label, f.verdict, n.cosine)
            .join(s.features, f.id == n.other)
            .where(n.feature == feature)
            .order_by(n.space, n.rank)
        )
        found: dict[str, list[Item]] = {space: [] for space in s.SPACES}
        for r in self._all(query):
            found[r.space].append({"id": r.id, "label": r.label, "verdict": r.verdict, "cosine": r.cosine})
        return found

    def cooccurring(self, feature: int, limit: int = 8) -> Item:
        """Other features that share samples with this one, strongest NPMI first, by direction.

        The feature with itself is in `cooccurrence`, and in `same_sample_rate`.
        """
        co, f = s.cooccurrence.c, s.features.c
        groups: dict[str, list[Item]] = {"text_to_image": [], "image_to_text": [], "same": []}
        asked = [
            ("text_to_image", "text-image", co.a, co.b, "image"),
            ("image_to_text", "text-image", co.b, co.a, "text"),
        ]
        for modality in s.MODALITIES:
            kind = f"{modality}-{modality}"
            asked += [("same", kind, co.a, co.b, modality), ("same", kind, co.b, co.a, modality)]
        for group, kind, mine, other, modality in asked:
            query = (
                select(f.id, f.label, f.verdict, co.support, co.lift, co.npmi, co.lift_shuffled)
                .join(s.features, f.id == other)
                .where(co.kind == kind, mine == feature, other != feature)
                .order_by(co.npmi.desc(), co.support.desc(), f.id)
                .limit(limit)
            )
            groups[group] += [{**r._mapping, "modality": modality} for r in self._all(query)]
        groups["same"].sort(key=lambda x: (-x["npmi"], -x["support"], x["id"]))
        groups["same"] = groups["same"][:limit]
        return groups

    def cooccurrence(
        self, *, kind: str = "text-image", sort: str = "npmi", min_support: int = 1,
        feature: int | None = None, limit: int = 50, cursor: str | None = None,
    ) -> Page:  # fmt: skip
        """Strongest pairs of features that share samples (`GET /cooccurrence`)."""
        if sort not in ("npmi", "lift", "support"):
            raise SaevxError(f"Cannot sort co-occurrence by {sort!r}: use npmi, lift or support.")
        if kind not in s.KINDS:
            raise SaevxError(f"Unknown kind {kind!r}: use one of {', '.join(s.KINDS)}.")
        c = s.cooccurrence.c
        where = [c.kind == kind, c.support >= min_support]
        if feature is not None:
            where.append(or_(c.a == feature, c.b == feature))
        start = page_start(cursor)
        total = int(self._all(select(func.count()).select_from(s.cooccurrence).where(*where))[0][0])
        order = [c[sort].desc(), c.support.desc(), c.a, c.b]
        if feature is None:
            # As a sum it is no use to an index, so the planner walks the one of the order and stops at the limit.
            where = [c.kind == kind, c.support + 0 >= min_support]
        rows = self._all(select(s.cooccurrence).where(*where).order_by(*order).limit(limit).offset(start))
        refs = self.feature_refs([k for r in rows for k in (r.a, r.b)])
        items = [{**r._mapping, "a": feature_ref(refs[r.a]), "b": feature_ref(refs[r.b])} for r in rows]
        return Page(items, total, str(start + limit) if start + limit < total else None)


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
