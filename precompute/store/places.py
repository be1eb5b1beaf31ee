"""The reader's questions about places: where a feature fires, and what fires at a token or patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, select

from precompute.errors import SaevxError
from precompute.geometry import View, patch_box
from precompute.store import schema as s
from precompute.store.base import modality_code, page_start
from precompute.store.events import SampleEvents, dense_values, of_bits, patches
from precompute.store.features import FeatureQueries
from precompute.store.samples import SampleQueries

Array = NDArray[Any]
Item = dict[str, Any]

_WINDOW = 12  # text tokens shown on either side of a text example


class PlaceQueries(FeatureQueries, SampleQueries):
    """Answers about tokens and patches."""

    def examples(
        self, feature: int, *, modality: str | None = None, band: int | None = -1, limit: int = 20,
        compute: Callable[[int], SampleEvents | None] | None = None,
    ) -> list[Item]:  # fmt: skip
        """Where a feature fires, with the same sample's other side (`GET /features/{id}/examples`).

        Args:
            modality: "text", "image" or None for both.
            band: −1 the overall top list, 0–3 octaves down from the largest, None for all.
            compute: gives the events of a row that the store has not kept, or None.
        """
        self._feature_row(feature)
        e = s.examples.c
        where = [e.feature == feature]
        if modality is not None:
            where.append(e.modality == modality_code(modality))
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
        missing = [] if compute is None else [row for row in samples if not self.events.has(row)]
        computed = {row: compute(row) for row in missing} if compute else {}
        return [self._example(feature, r, samples[r.row], computed.get(r.row)) for r in rows]

    def strongest_examples(self, features: Sequence[int], modality: str, n_samples: int) -> dict[int, list[Item]]:
        """Of each feature, its strongest example in each of the first few samples: what a list shows, in two queries.

        Args:
            n_samples: at most so many; found among the first 2 · n_samples examples.
        """
        e = s.examples.c
        wanted = sorted({int(k) for k in features})
        query = (
            select(s.examples)
            .where(
                e.feature.in_(wanted), e.modality == modality_code(modality), e.band == -1, e.rank < 2 * n_samples
            )
            .order_by(e.feature, e.rank)
        )
        first: dict[int, dict[int, Row[Any]]] = {feature: {} for feature in wanted}
        for r in self._all(query):
            of = first[r.feature]
            if len(of) < n_samples:
                of.setdefault(r.row, r)
        samples = {r.row: r for r in self._sample_rows(sorted({row for of in first.values() for row in of}))}
        return {k: [self._example(k, r, samples[row]) for row, r in of.items()] for k, of in first.items()}

    def _example(
        self, feature: int, example: Row[Any], sample: Row[Any], computed: SampleEvents | None = None
    ) -> Item:
        """Where the sample's events are neither kept nor `computed`, its place alone: no grid, and null on the tokens
        around it."""
        known = computed is not None or self.events.has(sample.row)
        events = computed or (self.events.sample if known else self.events.tokens)(sample.row)
        z_t = dense_values(events, [feature])[:, 0] if known else np.full(len(events.token_id_t), np.nan)
        z_t[example.position] = float(of_bits(example.value)) * self.events.unit
        grids = self._grids(events, sample.views, z_t[:, None]) if known else []
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
            patch = self._patch(sample, where, at)
        grid = grids[shown] if grids else None
        token_ids = events.token_id_t
        return {
            "sample_id": sample.sample_id,
            "text": sample.text,
            "images": sample.images,
            "modality": s.MODALITIES[example.modality],
            "band": example.band,
            "rank": example.rank,
            "activation": float(of_bits(example.value)) * self.events.unit,
            "position": example.position,
            "token": self.token_text(int(token_ids[example.position]))
            if example.modality == s.TEXT
            else None,
            "patch": patch,
            "tokens": [
                {
                    "text": self.token_text(int(token_ids[t])),
                    "position": int(t),
                    "activation": None if np.isnan(z_t[t]) else float(z_t[t]),
                }
                for t in window
            ],
            "recomputed": computed is not None,
            "grid": {**grid, "values": [[v or 0.0 for v in row] for row in grid["values"][0]]}
            if grid
            else None,
        }

    @staticmethod
    def _patch(sample: Row[Any], where: Any, at: int) -> Item:
        view, row, col = int(where.view[at]), int(where.row[at]), int(where.col[at])
        grid = View(*sample.views[view])
        shown = sample.images[grid.image]
        box = list(patch_box(grid, row, col, (shown["width"], shown["height"])))
        return {"view": view, "row": row, "col": col, "box": box, "image": grid.image}

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

    def activations(self, sample_id: str, features: Sequence[int], computed: SampleEvents | None = None) -> Item:
        """Values of `features` on every token and patch of a sample (`GET /samples/{id}/activations`).

        Args:
            computed: the sample's events, where the store has not kept them.

        Raises:
            NotKept: features are asked for, and the events are neither kept nor given.
        """
        row = self._sample_row(sample_id)
        wanted = [int(f) for f in features]
        for f in wanted:
            if not 0 <= f < self.n_features:
                raise SaevxError(f"No feature {f}: this store has 0 to {self.n_features - 1}.")
        events = computed or (self.events.sample if wanted else self.events.tokens)(row.row)
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
            "recomputed": computed is not None,
        }

    def features_at(
        self, sample_id: str, *, position: int | None = None, patch: tuple[int, int, int] | None = None,
        limit: int = 50, cursor: str | None = None, computed: SampleEvents | None = None,
    ) -> Item:  # fmt: skip
        """The features active on one token, or on one patch (view, row, col), strongest share first.

        Args:
            computed: as in `activations`.

        Raises:
            NotKept: as in `activations`.
            SaevxError: no such sample, position or patch.
        """
        row = self._sample_row(sample_id)
        events = computed or self.events.tokens(row.row)
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
        if computed is None and kind in (s.TEXT, s.IMAGE):
            events = self.events.sample(row.row)
        low, high = events.offset_t[position : position + 2]
        feature, z = events.feature_e[low:high], events.z_e[low:high]
        items = self.strongest(feature, z, kind, len(feature)) if kind in (s.TEXT, s.IMAGE) else []
        start = page_start(cursor)
        at = np.flatnonzero(where.position == position)
        return {
            "sample_id": row.sample_id,
            "position": position,
            "modality": s.TOKEN_KINDS[kind],
            "token": self.token_text(int(events.token_id_t[position])),
            "patch": self._patch(row, where, int(at[0])) if len(at) else None,
            "items": items[start : start + limit],
            "total": len(items),
            "next": str(start + limit) if start + limit < len(items) else None,
            "recomputed": computed is not None,
        }
