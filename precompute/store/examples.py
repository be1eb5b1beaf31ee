"""The reader's questions about places: where a feature fires, and what fires at a token or patch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from precompute.errors import SaevxError
from precompute.geometry import View, patch_box
from precompute.store import schema as s
from precompute.store.base import modality_code
from precompute.store.events import SampleEvents, dense_values, image_tokens, of_bits, patches
from precompute.store.features import FeatureQueries
from precompute.store.samples import SampleQueries
from precompute.store.sql import Columns, encode_cursor, marks, page_start
from precompute.utils.types import Array

Item = dict[str, Any]

_NONE = np.zeros(0, np.int64)

_EXAMPLE = Columns(s.examples.c)
_SHOWN = Columns(s.samples.c[name] for name in ("row", "sample_id", "text", "images", "views"))


class PlaceQueries(FeatureQueries, SampleQueries):
    """Answers about tokens and patches."""

    def examples(
        self, feature: int, *, modality: str | None = None, band: int | None = -1, limit: int = 20,
        compute: Callable[[int], SampleEvents | None] | None = None,
    ) -> list[Item]:  # fmt: skip
        """Where a feature fires, with the same sample's other side (`GET /features/{id}/examples`).

        Args:
            modality: "text", "image" or None for both.
            band: −1 the strongest overall, 0–3 octaves down from the largest, None for all.
            compute: gives the events of a row that the store has not kept, or None.
        """
        self._check_feature(feature)
        asked: dict[str, Any] = {"feature": int(feature)}
        if modality is not None:
            asked["modality"] = modality_code(modality)
        if band is not None:
            asked["band"] = int(band)
        rest = f"examples WHERE {' AND '.join(f'{name} = ?' for name in asked)} ORDER BY band, rank, modality LIMIT ?"
        rows = _EXAMPLE.fetch(self.engine, rest, (*asked.values(), max(1, min(limit, 200))))
        samples = self._shown({r["row"] for r in rows})
        missing = [] if compute is None else [row for row in samples if not self.events.has(row)]
        computed = {row: compute(row) for row in missing} if compute else {}
        return [self._example(r, samples[r["row"]], computed.get(r["row"])) for r in rows]

    def _shown(self, rows: Iterable[int]) -> dict[int, Item]:
        """row → what an example shows of its sample."""
        wanted = sorted(rows)
        found: dict[int, Item] = {}
        for start in range(0, len(wanted), 900):
            some = wanted[start : start + 900]
            rest = f"samples WHERE row IN ({marks(len(some))})"
            found |= {sample["row"]: sample for sample in _SHOWN.fetch(self.engine, rest, some)}
        return found

    def strongest_examples(self, features: Sequence[int], modality: str, n_samples: int) -> dict[int, list[Item]]:
        """Of each feature the first examples, without the tokens around them: what a list shows, in two queries."""
        wanted = sorted({int(k) for k in features})
        first: dict[int, list[Item]] = {feature: [] for feature in wanted}
        for start in range(0, len(wanted), 900):
            some = wanted[start : start + 900]
            rest = (
                f"examples WHERE feature IN ({marks(len(some))}) AND modality = ? AND band = -1 AND rank < ? "
                "ORDER BY feature, rank"
            )
            for r in _EXAMPLE.fetch(self.engine, rest, (*some, modality_code(modality), n_samples)):
                first[r["feature"]].append(r)
        samples = self._shown({r["row"] for of in first.values() for r in of})
        return {k: [self._example(r, samples[r["row"]], around=0) for r in of] for k, of in first.items()}

    def _example(
        self, example: Item, sample: Item, computed: SampleEvents | None = None, around: int = s.AROUND
    ) -> Item:
        """One example with `around` text tokens on either side, or without any for 0. Where the sample's events are
        neither kept nor `computed`, its place alone: no grid, and null on the tokens around it."""
        position, text = example["position"], example["modality"] == s.TEXT
        known = computed is not None or self.events.has(sample["row"])
        if computed is not None:
            events, z_t = computed, dense_values(computed, [example["feature"]])[:, 0]
        elif known:
            events, z_t = self.events.feature(sample["row"], example["feature"])
        else:
            events = self.events.tokens(sample["row"])
            z_t = np.full(len(events.token_id_t), np.nan)
        z = z_t[position] = float(of_bits(example["value"])) * self.events.unit
        views = sample["views"]
        patch_at = np.flatnonzero(image_tokens(events, sum(rows * cols for rows, cols, _, _ in views)))
        text_at = np.flatnonzero(events.modality_t == s.TEXT) if around else _NONE
        if text:
            centre = int(np.searchsorted(text_at, position))
            window = slice(max(0, centre - around), centre + around + 1)
            patch, shown = None, 0
        else:
            window = slice(0, 2 * around + 1)
            patch = _patch(sample, *_place(views, int(np.searchsorted(patch_at, position))))
            shown = patch["view"]
        texts = self.token_texts(events.token_id_t[text_at], window)
        return {
            "sample_id": sample["sample_id"],
            "text": sample["text"],
            "images": sample["images"],
            "modality": s.MODALITIES[example["modality"]],
            "band": example["band"],
            "rank": example["rank"],
            "activation": z,
            "n_active": example["n_active"],
            "n_same": example["n_same"],
            "position": position,
            "token": self.whole_token(events.token_id_t, position) if text else None,
            "patch": patch,
            "tokens": [
                {"text": token, "position": t, "activation": None if (value := float(z_t[t])) != value else value}
                for token, t in zip(texts, text_at[window].tolist(), strict=True)
            ],
            "recomputed": computed is not None,
            "grid": _grid(events, z_t, views, patch_at, shown) if known and views else None,
        }

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
        events = computed or (self.events.sample if wanted else self.events.tokens)(row["row"])
        z_tk = dense_values(events, wanted)
        refs = self.feature_refs(wanted)
        blank = [None] * len(wanted)
        return {
            "sample_id": row["sample_id"],
            "features": [
                {k: refs[f][k] for k in ("id", "label", "max_text", "max_image", "p999")} for f in wanted
            ],
            "tokens": [
                {
                    "text": text,
                    "modality": s.TOKEN_KINDS[m],
                    "position": t,
                    "values": z_tk[t].tolist() if m in (s.TEXT, s.IMAGE) else blank,
                }
                for t, (text, m) in enumerate(
                    zip(self.token_texts(events.token_id_t), events.modality_t.tolist(), strict=True)
                )
            ],
            "grids": self._grids(events, row["views"], z_tk),
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
        events = computed or self.events.tokens(row["row"])
        where = patches(events, row["views"])
        if patch is not None:
            hit = np.flatnonzero((where.view == patch[0]) & (where.row == patch[1]) & (where.col == patch[2]))
            if not len(hit):
                raise SaevxError(
                    f"Sample {sample_id!r} has no patch {','.join(map(str, patch))}: give the view,row,col of another."
                )
            position = int(where.position[hit[0]])
        if position is None or not 0 <= position < len(events.token_id_t):
            raise SaevxError(f"Sample {sample_id!r} has positions 0 to {len(events.token_id_t) - 1}: choose one.")
        kind = int(events.modality_t[position])
        if computed is None and kind in (s.TEXT, s.IMAGE):
            events = self.events.sample(row["row"])
        low, high = events.offset_t[position : position + 2]
        feature, z = events.feature_e[low:high], events.z_e[low:high]
        items = self.strongest(feature, z, kind, len(feature)) if kind in (s.TEXT, s.IMAGE) else []
        tag = self.list_tag("features at", sample=row["sample_id"], position=position)
        start = page_start(tag, cursor)
        at = np.flatnonzero(where.position == position)
        return {
            "sample_id": row["sample_id"],
            "position": position,
            "modality": s.TOKEN_KINDS[kind],
            "token": self.whole_token(events.token_id_t, position),
            "patch": _patch(row, *(int(one[at[0]]) for one in where[1:])) if len(at) else None,
            "items": items[start : start + limit],
            "total": len(items),
            "next": encode_cursor(tag, None, start + limit) if start + limit < len(items) else None,
            "recomputed": computed is not None,
        }


def _place(views: Sequence[Any], at: int) -> tuple[int, int, int]:
    """(view, row, col) of the image token numbered `at`: the walk of `events.patches`, of one."""
    for view, (rows, cols, _, _) in enumerate(views):
        if at < rows * cols:
            return view, at // cols, at % cols
        at -= rows * cols
    raise IndexError(f"The views end {at} patches before.")


def _patch(sample: Item, view: int, row: int, col: int) -> Item:
    grid = View(*sample["views"][view])
    shown = sample["images"][grid.image]
    box = list(patch_box(grid, row, col, (shown["width"], shown["height"])))
    return {"view": view, "row": row, "col": col, "box": box, "image": grid.image}


def _grid(events: SampleEvents, z_t: Array, views: Sequence[Any], patch_at: Array, view: int) -> Item:
    """One view with the values of one feature, 0 where the patch is inactive or a sink."""
    rows, cols, box, image = views[view]
    first = sum(one[0] * one[1] for one in views[:view])
    here = patch_at[first : first + rows * cols]
    values = np.zeros(rows * cols)
    values[: len(here)] = np.where(events.modality_t[here] == s.IMAGE, z_t[here], 0.0)
    return {
        "view": view, "rows": rows, "cols": cols, "box": box, "image": image,
        "values": values.reshape(rows, cols).tolist(),
    }  # fmt: skip
