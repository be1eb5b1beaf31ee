"""Opens a finished store and answers what pages and programs ask. Read-only; needs neither a GPU nor the
model.

Answers are plain dicts named as the public API names its fields. Features are integers 0…F−1, samples the
user's own ids, activations real SAE units (z).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Engine, Row, and_, func, or_, select, text

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.events import Events, SampleEvents, dense_values, patches
from precompute.store.hist import EDGES, trimmed, unpack
from precompute.store.query import TIME_LIMIT_S, Page, fetch, keyset_page, match_words, open_engine

Array = NDArray[Any]
Item = dict[str, Any]

_FEATURE_ROW = [s.features.c[name] for name in (
    "id", "label", "label_score", "verdict", "density_text", "density_image", "max_activation", "p999",
    *s.OMEGA_FIELDS, "modality_share", "same_sample_rate", "n_samples",
)]  # fmt: skip
_WINDOW = 12  # text tokens shown on either side of a text example


class Store:
    """A finished store, opened with `Store.open`."""

    def __init__(self, path: Path, manifest: Item, engine: Engine) -> None:
        self.path = path
        self.manifest = manifest
        self.engine = engine
        self.scale_log2 = int(manifest["scale_log2"])
        self.events = Events(path / "events", self.scale_log2)

    @classmethod
    def open(cls, path: str | Path, time_limit_s: float = TIME_LIMIT_S) -> Store:
        """Opens a store folder; arrays and indices are mapped when first asked for.

        Raises:
            SaevxError: not a store, unfinished, or of another schema version.
        """
        path = Path(path)
        manifest_file = path / "manifest.json"
        if not manifest_file.is_file() or not (path / "store.sqlite").is_file():
            advice = " It is unfinished: run `saevx precompute` again." if path.name.endswith(".part") else ""
            raise SaevxError(f"{path} is not a store (no manifest.json and store.sqlite).{advice}")
        manifest = json.loads(manifest_file.read_text())
        if manifest.get("schema") != s.SCHEMA_VERSION:
            raise SaevxError(
                f"{path} has store schema {manifest.get('schema')}, this version reads {s.SCHEMA_VERSION}: "
                "run `saevx precompute` again."
            )
        return cls(path, manifest, open_engine(path / "store.sqlite", time_limit_s))

    def close(self) -> None:
        self.engine.dispose()

    # --- the store ---------------------------------------------------------------------------------

    @property
    def n_features(self) -> int:
        return int(self.manifest["sae"]["n_features"])

    @property
    def n_samples(self) -> int:
        return int(self.manifest["data"]["n_samples"])

    @cached_property
    def summary(self) -> Item:
        """The manifest's public fields."""
        m = self.manifest
        return {
            "name": m["name"],
            "model": m["model"]["name"],
            "layer": m["model"]["layer"],
            "d_model": m["model"]["d_model"],
            "n_features": self.n_features,
            "n_samples": self.n_samples,
            "n_text_tokens": m["tokens"]["text"],
            "n_image_tokens": m["tokens"]["image"],
            "sae": m["sae"]["name"],
            "dataset": m["data"]["name"],
            "created": m.get("created"),
            "version": m["code_version"],
            "content_id": m["content_id"],
        }

    @cached_property
    def detail(self) -> Item:
        """`summary`, verdict counts, special and sink tokens, quality, and the whole manifest."""
        counts = dict(self._all(select(s.features.c.verdict, func.count()).group_by(s.features.c.verdict)))
        m = self.manifest
        return {
            **self.summary,
            "verdicts": {name: int(counts.get(name, 0)) for name in s.VERDICTS},
            "n_special_tokens": m["tokens"]["special"],
            "n_sink_tokens": m["tokens"]["sink"],
            "n_quarantined": m["data"]["n_quarantined"],
            "delta": m["delta"],
            "quality": m["quality"],
            "manifest": m,
        }

    def quarantine(self) -> list[Item]:
        """Rows of the data that were set aside, with the reason."""
        return [dict(r._mapping) for r in self._all(select(s.quarantine).order_by(s.quarantine.c.idx))]

    def _all(self, query: Any, parameters: Any = None) -> Sequence[Row[Any]]:
        return fetch(self.engine, query, parameters)

    # --- features ----------------------------------------------------------------------------------

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
        """One page of features; see DESIGN `GET /features` for the filters."""
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

    def feature_refs(self, ids: Iterable[int]) -> dict[int, Item]:
        """id → {id, label, verdict, max_text, max_image, p999} of the features named."""
        wanted = sorted({int(i) for i in ids})
        c = s.features.c
        query = select(c.id, c.label, c.verdict, c.max_text, c.max_image, c.p999)
        found: dict[int, Item] = {}
        for start in range(0, len(wanted), 900):
            for r in self._all(query.where(c.id.in_(wanted[start : start + 900]))):
                found[r.id] = dict(r._mapping)
        return found

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

    def examples(
        self, feature: int, *, modality: str | None = None, band: int | None = -1, limit: int = 20
    ) -> list[Item]:
        """Where a feature fires, with the same sample's other side (`GET /features/{id}/examples`).

        Args:
            modality: "text", "image" or None for both.
            band: −1 the overall top list, 0–3 octaves down from the largest, None for all.
        """
        self._feature_row(feature)
        e = s.examples.c
        where = [e.feature == feature]
        if modality is not None:
            where.append(e.modality == _modality(modality))
        if band is not None:
            where.append(e.band == band)
        query = (
            select(s.examples)
            .where(*where)
            .order_by(e.band, e.rank, e.modality)
            .limit(max(1, min(limit, 200)))
        )
        rows = self._all(query)
        samples = {r.row: r for r in self._sample_rows(sorted({r.row for r in rows}))}
        return [self._example(feature, r, samples[r.row]) for r in rows]

    def _example(self, feature: int, example: Row[Any], sample: Row[Any]) -> Item:
        events = self.events.sample(sample.row)
        z_t = dense_values(events, [feature])[:, 0]
        grids = self._grids(events, sample.views, z_t[:, None])
        where = patches(events, sample.views)
        text_positions = np.flatnonzero(events.modality_t == s.TEXT)
        if example.modality == s.TEXT:
            centre = int(np.searchsorted(text_positions, example.position))
            window = text_positions[max(0, centre - _WINDOW) : centre + _WINDOW + 1]
            patch, shown = None, 0
        else:
            window = text_positions[: 2 * _WINDOW + 1]
            at = int(np.flatnonzero(where.position == example.position)[0])
            shown = int(where.view[at])
            patch = self._patch(sample.views, where, at)
        grid = grids[shown] if grids else None
        token_ids = events.token_id_t
        return {
            "sample_id": sample.sample_id,
            "text": sample.text,
            "images": sample.images,
            "modality": s.MODALITIES[example.modality],
            "band": example.band,
            "rank": example.rank,
            "activation": example.value,
            "position": example.position,
            "token": self.token_text(int(token_ids[example.position]))
            if example.modality == s.TEXT
            else None,
            "patch": patch,
            "tokens": [
                {"text": self.token_text(int(token_ids[t])), "position": int(t), "activation": float(z_t[t])}
                for t in window
            ],
            "grid": {**grid, "values": [[v or 0.0 for v in row] for row in grid["values"][0]]}
            if grid
            else None,
        }

    @staticmethod
    def _patch(views: list[Any], where: Any, at: int) -> Item:
        view, row, col = int(where.view[at]), int(where.row[at]), int(where.col[at])
        rows, cols, (x0, y0, x1, y1), image = views[view]
        w, h = (x1 - x0) / cols, (y1 - y0) / rows
        box = [x0 + col * w, y0 + row * h, x0 + (col + 1) * w, y0 + (row + 1) * h]
        return {"view": view, "row": row, "col": col, "box": box, "image": image}

    @staticmethod
    def _grids(events: SampleEvents, views: list[Any], z_tk: Array) -> list[Item]:
        where = patches(events, views)
        grids = []
        for index, (rows, cols, box, image) in enumerate(views):
            here = where.view == index
            values_krc = np.full((z_tk.shape[1], rows, cols), np.nan)
            active_pk = np.where(
                (events.modality_t[where.position[here]] == s.IMAGE)[:, None],
                z_tk[where.position[here]],
                np.nan,
            )
            values_krc[:, where.row[here], where.col[here]] = active_pk.T
            values = [[[None if v != v else v for v in row] for row in k] for k in values_krc.tolist()]
            grids.append(
                {"view": index, "rows": rows, "cols": cols, "box": box, "image": image, "values": values}
            )
        return grids

    # --- samples -----------------------------------------------------------------------------------

    def samples(
        self,
        *,
        sort: str = "row",
        order: str = "asc",
        limit: int = 50,
        cursor: str | None = None,
        flag: str | None = None,
        threshold: float | None = None,
        q: str | None = None,
        ids: Iterable[str] | None = None,
    ) -> Page:
        """One page of samples; `flag` keeps those above its threshold (or above `threshold`)."""
        if sort not in s.SAMPLE_SORTS:
            raise SaevxError(f"Cannot sort samples by {sort!r}: use one of {', '.join(s.SAMPLE_SORTS)}.")
        c = s.samples.c
        where: list[ColumnElement[bool]] = []
        if flag is not None:
            limit_value = self._flag(flag)["threshold"] if threshold is None else threshold
            where.append(c[s.flag_column(flag)] > limit_value)
        if ids is not None:
            where.append(c.sample_id.in_([str(i) for i in ids]))
        if q and q.strip():
            match = match_words(q)
            found = text("SELECT rowid FROM sample_fts WHERE sample_fts MATCH :q").bindparams(q=match)
            where.append(c.row.in_(found.columns(c.row).scalar_subquery()) if match else c.row < 0)
        rows, total, after = keyset_page(
            self.engine, select(s.samples), by=_sample_sort(sort), key=c.row, order=order, limit=limit,
            cursor=cursor, where=where,
        )  # fmt: skip
        return Page([self._sample_item(r) for r in rows], total, after)

    def _sample_rows(self, rows: Sequence[int]) -> Sequence[Row[Any]]:
        return self._all(select(s.samples).where(s.samples.c.row.in_([int(r) for r in rows])))

    def _sample_row(self, sample_id: str) -> Row[Any]:
        found = self._all(select(s.samples).where(s.samples.c.sample_id == str(sample_id)))
        if not found:
            raise SaevxError(f"No sample {sample_id!r} in this store.")
        return found[0]

    def _sample_item(self, row: Row[Any]) -> Item:
        values = row._mapping
        thresholds = {f["name"]: f["threshold"] for f in self.flags}
        raised = [n for n, limit in thresholds.items() if (values[s.flag_column(n)] or -np.inf) > limit]
        return {
            **{k: values[k] for k in ("sample_id", "row", "text", "images", "n_text", "n_image")},
            "scores": {name: values[s.score_column(name)] for name in s.SCORES},
            "flags": raised,
        }

    def sample(self, sample_id: str, top: int = 24) -> Item:
        """One pair with scores, ranks, flags, reasons and strongest features (`GET /samples/{id}`)."""
        row = self._sample_row(sample_id)
        values = row._mapping
        item = self._sample_item(row)
        flag_scores = {name: values[s.flag_column(name)] for name in s.FLAGS}
        around = dict(
            self._all(
                select(s.samples.c.row, s.samples.c.sample_id).where(
                    or_(s.samples.c.row == row.row - 1, s.samples.c.row == row.row + 1)
                )
            )
        )
        return {
            **item,
            **{
                k: values[k] for k in ("n_special", "n_sink", "fvu_text", "fvu_image", "extra", "near_cosine")
            },
            "near_sample_id": self.sample_id(row.near_row) if row.near_row is not None else None,
            "views": [_view(v) for v in row.views],
            "score_ranks": self.rank_scores(item["scores"]),
            "flags": [self._flag_hit(row.row, name, flag_scores[name]) for name in item["flags"]],
            "flag_scores": flag_scores,
            "top_features": {name: self._top(row.row, m, top) for m, name in enumerate(s.MODALITIES)},
            "previous": around.get(row.row - 1),
            "next": around.get(row.row + 1),
        }

    def sample_id(self, row: int) -> str:
        return str(self._all(select(s.samples.c.sample_id).where(s.samples.c.row == int(row)))[0][0])

    def row(self, sample_id: str) -> int:
        return int(self._sample_row(sample_id).row)

    def _top(self, row: int, modality: int, top: int) -> list[Item]:
        return self.strongest(*self.events.maxima(row, modality), modality, top)

    def strongest(self, feature: Array, z: Array, modality: int, top: int) -> list[Item]:
        """The features with the largest share of their own maximum in that modality, as the pages list
        them.
        """
        largest = self.max_by_modality[feature, modality]
        share = np.divide(z, largest, out=np.zeros(len(z)), where=largest > 0)
        order = np.lexsort((feature, -share))[:top]
        refs = self.feature_refs(feature[order])
        return [
            {**_ref(refs[int(k)]), "activation": float(z[i]), "share": float(min(share[i], 1.0))}
            for i, k in zip(order, feature[order], strict=True)
        ]

    def activations(self, sample_id: str, features: Sequence[int]) -> Item:
        """Values of `features` on every token and patch of a sample (`GET /samples/{id}/activations`)."""
        row = self._sample_row(sample_id)
        wanted = [int(f) for f in features]
        for f in wanted:
            if not 0 <= f < self.n_features:
                raise SaevxError(f"No feature {f}: this store has 0 to {self.n_features - 1}.")
        events = self.events.sample(row.row)
        z_tk = dense_values(events, wanted)
        refs = self.feature_refs(wanted)
        blank = [None] * len(wanted)
        return {
            "sample_id": row.sample_id,
            "features": [
                {k: refs[f][k] for k in ("id", "label", "max_text", "max_image", "p999")} for f in wanted
            ],
            "tokens": [
                {
                    "text": self.token_text(int(token)),
                    "modality": s.TOKEN_KINDS[m],
                    "position": t,
                    "values": z_tk[t].tolist() if m in (s.TEXT, s.IMAGE) else blank,
                }
                for t, (token, m) in enumerate(zip(events.token_id_t, events.modality_t, strict=True))
            ],
            "grids": self._grids(events, row.views, z_tk),
        }

    def features_at(
        self, sample_id: str, *, position: int | None = None, patch: tuple[int, int, int] | None = None,
        limit: int = 50, cursor: str | None = None,
    ) -> Item:  # fmt: skip
        """The features active on one token, or on one patch (view, row, col), strongest share first.

        Raises:
            SaevxError: no such sample, position or patch.
        """
        row = self._sample_row(sample_id)
        events = self.events.sample(row.row)
        where = patches(events, row.views)
        if patch is not None:
            hit = np.flatnonzero((where.view == patch[0]) & (where.row == patch[1]) & (where.col == patch[2]))
            if not len(hit):
                raise SaevxError(
                    f"Sample {sample_id!r} has no patch {','.join(map(str, patch))} (view,row,col)."
                )
            position = int(where.position[hit[0]])
        if position is None or not 0 <= position < len(events.token_id_t):
            raise SaevxError(f"Sample {sample_id!r} has positions 0 to {len(events.token_id_t) - 1}.")
        kind = int(events.modality_t[position])
        low, high = events.offset_t[position : position + 2]
        feature, z = events.feature_e[low:high], events.z_e[low:high]
        items = self.strongest(feature, z, kind, len(feature)) if kind in (s.TEXT, s.IMAGE) else []
        start = _offset(cursor)
        at = np.flatnonzero(where.position == position)
        return {
            "sample_id": row.sample_id,
            "position": position,
            "modality": s.TOKEN_KINDS[kind],
            "token": self.token_text(int(events.token_id_t[position])),
            "patch": self._patch(row.views, where, int(at[0])) if len(at) else None,
            "items": items[start : start + limit],
            "total": len(items),
            "next": str(start + limit) if start + limit < len(items) else None,
        }

    def image_path(self, sample_id: str, image: int = 0) -> Path:
        """WebP file of a sample's picture."""
        row = self._sample_row(sample_id)
        if not 0 <= image < len(row.images):
            raise SaevxError(f"Sample {sample_id!r} has {len(row.images)} pictures, counted from 0.")
        return self.path / str(row.images[image]["path"])

    # --- quality -----------------------------------------------------------------------------------

    @cached_property
    def scores(self) -> list[Item]:
        """Each score with its distribution, rank correlation with length and calibration."""
        rows = {r.name: r for r in self._all(select(s.scores))}
        return [_distribution(rows[name]) for name in s.SCORES]

    @cached_property
    def flags(self) -> list[Item]:
        """Each flag with count, threshold, histogram and calibration."""
        rows = {r.name: r for r in self._all(select(s.flags))}
        return [_distribution(rows[name]) for name in s.FLAGS]

    def _flag(self, name: str) -> Item:
        for flag in self.flags:
            if flag["name"] == name:
                return flag
        raise SaevxError(f"Unknown flag {name!r}: use one of {', '.join(s.FLAGS)}.")

    def flag_count(self, name: str, threshold: float) -> int:
        """Samples above another threshold."""
        self._flag(name)
        query = select(func.count()).where(s.samples.c[s.flag_column(name)] > threshold)
        return int(self._all(query)[0][0])

    def _flag_hit(self, row: int, name: str, score: float) -> Item:
        flag = self._flag(name)
        r = s.flag_reasons.c
        found = self._all(select(r.reason).where(and_(r.row == row, r.flag == name)))
        return {
            "name": name,
            "title": flag["title"],
            "score": score,
            "threshold": flag["threshold"],
            "reason": self.reason(found[0][0]) if found else None,
        }

    def reason(self, reason: Item) -> Item:
        """A stored reason with its feature ids turned into {id, label}."""
        refs = self.feature_refs(reason.get("features", []))
        shown = [{"id": k, "label": refs[k]["label"]} for k in reason.get("features", [])]
        return {"text": reason["text"], "features": shown, "tokens": reason.get("tokens", [])}

    def score_values(self, name: str) -> Array:
        """float64 [N] in row order, NaN where not computed."""
        if name not in s.SCORES:
            raise SaevxError(f"Unknown score {name!r}: use one of {', '.join(s.SCORES)}.")
        query = select(s.samples.c[s.score_column(name)]).order_by(s.samples.c.row)
        return np.array([np.nan if r[0] is None else r[0] for r in self._all(query)], dtype=np.float64)

    def rank_scores(self, scores: Item) -> dict[str, float | None]:
        """Share of the store's samples with a lower score, per score."""
        ranks: dict[str, float | None] = {}
        for name, value in scores.items():
            known = self._sorted_score(name)
            below = int(np.searchsorted(known, value, "left")) if value is not None else 0
            ranks[name] = below / len(known) if value is not None and len(known) else None
        return ranks

    def _sorted_score(self, name: str) -> Array:
        cache: dict[str, Array] = self.__dict__.setdefault("_sorted_scores", {})
        if name not in cache:
            values = self.score_values(name)
            cache[name] = np.sort(values[~np.isnan(values)])
        return cache[name]

    def cooccurrence(
        self, *, kind: str = "text-image", sort: str = "npmi", min_support: int = 1, feature: int | None = None,
        limit: int = 50, cursor: str | None = None,
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
        start = _offset(cursor)
        total = int(self._all(select(func.count()).select_from(s.cooccurrence).where(*where))[0][0])
        order = [c[sort].desc(), c.support.desc(), c.a, c.b]
        rows = self._all(select(s.cooccurrence).where(*where).order_by(*order).limit(limit).offset(start))
        refs = self.feature_refs([k for r in rows for k in (r.a, r.b)])
        items = [{**r._mapping, "a": _ref(refs[r.a]), "b": _ref(refs[r.b])} for r in rows]
        return Page(items, total, str(start + limit) if start + limit < total else None)

    # --- search ------------------------------------------------------------------------------------

    def search_words(self, q: str, limit: int = 20) -> Item:
        """Features by label and promoted tokens, samples by caption (`GET /search`)."""
        match = match_words(q)
        if not match:
            return {"q": q, "features": [], "samples": []}
        c = s.features.c
        # The label outweighs the promoted tokens; bm25 is lower for better matches.
        hits = "SELECT rowid AS id, bm25(feature_fts, 10.0, 1.0) AS b FROM feature_fts WHERE feature_fts MATCH :q"
        found = self._all(text(hits + " ORDER BY b, id LIMIT :n"), {"q": match, "n": limit})
        rows = {r.id: r for r in self._all(select(s.features).where(c.id.in_([h[0] for h in found])))}
        features = []
        for hit in found:
            r = rows[hit[0]]
            item = {k: r._mapping[k] for k in ("id", "label", "verdict", "omega", "lift", "n_samples")}
            features.append({**item, "promoted": [t for t, _ in (r.logits or {}).get("promoted", [])]})
        hits = "SELECT rowid, bm25(sample_fts) AS b FROM sample_fts WHERE sample_fts MATCH :q ORDER BY b, rowid LIMIT :n"
        order = [r[0] for r in self._all(text(hits), {"q": match, "n": limit})]
        by_row = {r.row: self._sample_item(r) for r in self._sample_rows(order)}
        return {"q": q, "features": features, "samples": [by_row[row] for row in order]}

    def index(self, name: str) -> Any:
        """FAISS index `decoder`, `profile`, `sample_text` or `sample_image`, memory-mapped when first used.
        """
        cache: dict[str, Any] = self.__dict__.setdefault("_indices", {})
        if name not in cache:
            path = self.path / "index" / f"{name}.faiss"
            if not path.is_file():
                raise SaevxError(f"This store has no index {name!r}.")
            cache[name] = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        return cache[name]

    def nearest_samples(self, vector: Array, modality: str, k: int = 12) -> list[Item]:
        """Samples whose vector of that modality is nearest; `vector` as `index.sample_vector` makes it."""
        _modality(modality)
        if not np.any(vector):
            return []
        cosine, rows = self.index(f"sample_{modality}").search(np.asarray(vector, np.float32)[None], k)
        kept = [(int(r), float(c)) for r, c in zip(rows[0], cosine[0], strict=True) if r >= 0]
        by_row = {r.row: r for r in self._sample_rows([r for r, _ in kept])}
        return [
            {
                "sample_id": by_row[r].sample_id, "row": r, "text": by_row[r].text, "images": by_row[r].images,
                "modality": modality, "cosine": min(c, 1.0),
            }
            for r, c in kept
        ]  # fmt: skip

    # --- in memory, once -------------------------------------------------------------------------------

    @cached_property
    def _tokens(self) -> list[str]:
        rows = self._all(select(s.vocabulary).order_by(s.vocabulary.c.token_id))
        tokens = [""] * (rows[-1].token_id + 1 if rows else 0)
        for r in rows:
            tokens[r.token_id] = r.text
        return tokens

    def token_text(self, token_id: int) -> str:
        tokens = self._tokens
        return tokens[token_id] if token_id < len(tokens) else f"<{token_id}>"

    @cached_property
    def feature_table(self) -> dict[str, Array]:
        """Columns of all features as arrays [F], for arithmetic over whole queries: id order, NaN for null.
        """
        names = [
            "samples_text", "samples_image", "density_text", "density_image", "max_text", "max_image", "p999",
            "omega", "omega_centred",
        ]  # fmt: skip
        rows = self._all(select(*(s.features.c[n] for n in names)).order_by(s.features.c.id))
        table = np.array([[np.nan if v is None else v for v in r] for r in rows], dtype=np.float64)
        return {name: table[:, i] for i, name in enumerate(names)}

    @cached_property
    def max_by_modality(self) -> Array:
        """float64 [F, 2]: largest z of each feature on text and on images."""
        table = self.feature_table
        return np.stack([table["max_text"], table["max_image"]], axis=1)


def _modality(name: str) -> int:
    if name not in s.MODALITIES:
        raise SaevxError(f"Unknown modality {name!r}: use text or image.")
    return s.MODALITIES.index(name)


def _sample_sort(sort: str) -> Any:
    if sort in s.SCORES:
        return s.samples.c[s.score_column(sort)]
    return s.samples.c[s.flag_column(sort)] if sort in s.FLAGS else s.samples.c.row


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isdigit():
        raise SaevxError("This cursor is not one of this list: start again without `cursor`.")
    return int(cursor)


def _ref(feature: Item) -> Item:
    return {"id": feature["id"], "label": feature["label"], "verdict": feature["verdict"]}


def _view(view: Any) -> Item:
    return {"rows": view[0], "cols": view[1], "box": view[2], "image": view[3]}


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


def _distribution(row: Row[Any]) -> Item:
    item = dict(row._mapping)
    item["histogram"] = item.pop("hist")
    low, high = item.pop("auroc_low", None), item.pop("auroc_high", None)
    if isinstance(item["auroc"], int | float):
        item["auroc"] = {"value": item["auroc"], "low": low, "high": high}
    return item
