"""`store.examples`: where a feature fires, with the tokens around and the sample's other side."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from precompute.store import schema as s
from precompute.store.core import Core, Vocabulary, modality_code
from precompute.store.events import SampleEvents, dense_values, image_tokens, of_bits
from precompute.store.places import patch_item
from precompute.store.sql import PlainQuery
from precompute.utils.types import Array, Item

_NONE = np.zeros(0, np.int64)

_EXAMPLE = PlainQuery(s.examples.c)
_SAMPLE = PlainQuery(s.samples.c[name] for name in ("row", "sample_id", "text", "images", "views"))


class Examples:
    """The stored examples of features: the strongest of each modality, and some of each octave below."""

    def __init__(self, core: Core, vocabulary: Vocabulary) -> None:
        self._core = core
        self._vocabulary = vocabulary

    def of(
        self,
        feature: int,
        *,
        modality: str | None = None,
        band: int | None = -1,
        limit: int = 20,
        compute: Callable[[int], SampleEvents | None] | None = None,
    ) -> list[Item]:
        """The examples of a feature, the strongest first (`GET /features/{id}/examples`).

        Args:
            modality: "text", "image" or None for both.
            band: −1 the strongest overall, 0–3 octaves down from the largest, None for all.
            limit: at most so many, and at most 200.
            compute: gives the events of a row that the store does not hold, or None.

        Raises:
            SaevxError: no such feature or modality.
        """
        core = self._core
        core.check_feature(feature)
        where: dict[str, Any] = {"feature": int(feature)}
        if modality is not None:
            where["modality"] = modality_code(modality)
        if band is not None:
            where["band"] = int(band)
        conditions = " AND ".join(f"{name} = ?" for name in where)
        tables = f"examples WHERE {conditions} ORDER BY band, rank, modality LIMIT ?"
        rows = _EXAMPLE.fetch(core.engine, tables, (*where.values(), max(1, min(limit, 200))))
        return self._items(rows, compute)

    def _example_rows(self, feature: int, modality: int) -> list[Item]:
        """The rows of the table `examples` of a feature and modality, the strongest overall first, then the bands."""
        tables = "examples WHERE feature = ? AND modality = ? ORDER BY band, rank"
        return _EXAMPLE.fetch(self._core.engine, tables, (int(feature), modality))

    def _items(self, rows: Sequence[Item], compute: Callable[[int], SampleEvents | None] | None = None) -> list[Item]:
        """Rows of the table `examples` as examples; one without a position is of a sample that lacks the feature.

        Args:
            compute: as of `of`.
        """
        samples, core = self._samples(r["row"] for r in rows), self._core
        rows_without_events = [] if compute is None else [row for row in samples if not core.events.has(row)]
        events_of = {row: compute(row) for row in rows_without_events} if compute else {}
        return [self._item(r, samples[r["row"]], events_of.get(r["row"])) for r in rows]

    def strongest(self, features: Sequence[int], modality: str, n: int) -> dict[int, list[Item]]:
        """feature → its first `n` examples without the tokens around: what a list shows, in two queries."""
        examples: dict[int, list[Item]] = {int(feature): [] for feature in features}
        tables = "examples WHERE feature IN (?) AND modality = ? AND band = -1 AND rank < ? ORDER BY feature, rank"
        for r in _EXAMPLE.fetch_of(self._core.engine, tables, features, modality_code(modality), n):
            examples[r["feature"]].append(r)
        samples = self._samples(r["row"] for rows in examples.values() for r in rows)
        return {k: [self._item(r, samples[r["row"]], around=0) for r in rows] for k, rows in examples.items()}

    def _samples(self, rows: Iterable[int]) -> dict[int, Item]:
        """row → what an example shows of its sample."""
        samples = _SAMPLE.fetch_of(self._core.engine, "samples WHERE row IN (?)", rows)
        return {sample["row"]: sample for sample in samples}

    def _item(
        self, example: Item, sample: Item, computed: SampleEvents | None = None, around: int = s.CONTEXT_TOKENS
    ) -> Item:
        """One example with `around` text tokens on either side. Where the store does not hold the sample's events, and
        they are not `computed` either, its place alone: no grid, and null on the tokens around it."""
        position, text = example["position"], example["modality"] == s.TEXT
        has_events = computed is not None or self._core.events.has(sample["row"])
        if computed is not None:
            events, z_t = computed, dense_values(computed, [example["feature"]])[:, 0]
        elif has_events:
            events, z_t = self._core.events.feature(sample["row"], example["feature"])
        else:
            events = self._core.events.tokens(sample["row"])
            z_t = np.full(len(events.token_id_t), np.nan)
        if position is None:
            z = example["activation"]
        else:
            z = z_t[position] = float(of_bits(example["value"])) * self._core.events.unit
        views = sample["views"]
        # Methods and lists, not numpy's functions and numbers: a page asks this a hundred times.
        patch_at = image_tokens(events, sum([view[0] * view[1] for view in views])).nonzero()[0]
        text_at = (events.modality_t == s.TEXT).nonzero()[0] if around else _NONE
        token = self._vocabulary.whole_token(events.token_id_t, position) if text and position is not None else None
        window, patch, view = slice(0, 2 * around + 1), None, 0
        if position is None:
            pass
        elif text:
            centre = int(text_at.searchsorted(position))
            window = slice(max(0, centre - around), centre + around + 1)
        else:
            patch = patch_item(sample, *_place(views, int(patch_at.searchsorted(position))))
            view = patch["view"]
        shown_at = text_at[window]
        texts = self._vocabulary.texts(events.token_id_t[text_at], window) if around else []
        return {
            "sample_id": sample["sample_id"],
            "text": sample["text"],
            "images": sample["images"],
            "modality": s.MODALITIES[example["modality"]],
            "band": example["band"],
            "rank": example["rank"],
            "activation": z,
            "n_active": example["n_active"] if "n_active" in example else _n_active(events, z_t, example["modality"]),
            "n_same": example["n_same"],
            "position": position,
            "token": token,
            "patch": patch,
            "tokens": [
                {"text": token, "position": t, "activation": value if value == value else None}
                for token, t, value in zip(texts, shown_at.tolist(), z_t[shown_at].tolist(), strict=True)
            ],
            "recomputed": computed is not None,
            "counter": example.get("counter"),
            "grid": _grid(events, z_t, views, patch_at, view) if has_events and views else None,
        }


def _n_active(events: SampleEvents, z_t: Array, modality: int) -> int:
    """Tokens of a modality on which the feature is active."""
    return int((z_t[events.modality_t == modality] > 0).sum())


def _place(views: Sequence[Any], at: int) -> tuple[int, int, int]:
    """(view, row, col) of the image token numbered `at`: the walk of `events.patches`, of one."""
    for view, (rows, cols, _, _) in enumerate(views):
        if at < rows * cols:
            return view, at // cols, at % cols
        at -= rows * cols
    raise IndexError(f"The views end {at} patches before.")


def _grid(events: SampleEvents, z_t: Array, views: Sequence[Any], patch_at: Array, view: int) -> Item:
    """One view with the values of one feature, 0 where the patch is inactive or a sink."""
    rows, cols, box, image = views[view]
    first = sum(grid[0] * grid[1] for grid in views[:view])
    positions = patch_at[first : first + rows * cols]
    values = np.zeros(rows * cols)
    values[: len(positions)] = np.where(events.modality_t[positions] == s.IMAGE, z_t[positions], 0.0)
    return {
        "view": view, "rows": rows, "cols": cols, "box": box, "image": image,
        "values": values.reshape(rows, cols).tolist(),
    }  # fmt: skip
