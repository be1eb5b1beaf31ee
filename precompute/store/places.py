"""What fires on the tokens and patches of a pair, whether the store has it or the live model has just read it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from precompute.errors import SaevxError
from precompute.geometry import View, patch_box
from precompute.store import schema as s
from precompute.store.core import NAME_FIELDS, Core, Vocabulary
from precompute.store.events import Events, SampleEvents, dense_values, patches
from precompute.store.features import Features
from precompute.store.sql import next_cursor, page_start
from precompute.utils.types import Array, Item, Items


def sides_of(events: Events, row: int) -> list[tuple[Array, Array]]:
    """(feature, z) of the sample's text and of its image, int64 [k] rising and float64 [k]: each feature's largest
    activation on that side. By its events; where the store does not hold them, of the 256 strongest features a side:
    one that is on in the text may then be on in the image too without being among them."""
    if not events.has(row):
        return [events.maxima(row, m) for m in range(len(s.MODALITIES))]
    return event_maxima(events.of(row))


def event_maxima(sample: SampleEvents) -> list[tuple[Array, Array]]:
    """As `sides_of`, by a sample's events."""
    modality_e = sample.by_event(sample.modality_t)
    return [
        _side_maxima(sample.feature_e[modality_e == m], sample.z_e[modality_e == m]) for m in range(len(s.MODALITIES))
    ]


def _side_maxima(feature_e: Array, z_e: Array) -> tuple[Array, Array]:
    """Each feature once, rising, with its largest z. Without sorting, as a large sample has half a million events."""
    z_f = np.zeros(int(feature_e.max(initial=-1)) + 1)
    np.maximum.at(z_f, feature_e, z_e)
    feature_k = np.flatnonzero(z_f)
    return feature_k, z_f[feature_k]


class Window(NamedTuple):
    """A page of a list: its length, and where it begins."""

    limit: int
    cursor: str | None = None


class Places:
    """Tokens and patches by what fires there.

    In its methods `pair` has what a row of the table `samples` has of the pair: `views` [rows, cols, box, image] and
    `images` {width, height}.
    """

    def __init__(self, core: Core, vocabulary: Vocabulary, features: Features) -> None:
        self._core, self._vocabulary, self._features = core, vocabulary, features

    def activations(self, events: SampleEvents, views: Sequence[Any], features: Sequence[int]) -> Item:
        """Values (z) of `features` on every token and patch: {features, tokens, grids}.

        Raises:
            SaevxError: no such feature.
        """
        features = [int(f) for f in features]
        for feature in features:
            self._core.check_feature(feature)
        z_tk = dense_values(events, features)
        refs = self._core.feature_refs(features)
        no_values = [None] * len(features)
        texts = self._vocabulary.texts(events.token_id_t)
        return {
            "features": [{k: refs[f][k] for k in (*NAME_FIELDS, "max_text", "max_image", "p999")} for f in features],
            "tokens": [
                {
                    "text": text,
                    "modality": s.TOKEN_KINDS[m],
                    "position": t,
                    "values": z_tk[t].tolist() if m in (s.TEXT, s.IMAGE) else no_values,
                }
                for t, (text, m) in enumerate(zip(texts, events.modality_t.tolist(), strict=True))
            ],
            "grids": _grids(events, views, z_tk),
        }

    def position(self, events: SampleEvents, pair: Item, patch: tuple[int, int, int], name: str) -> int:
        """The place of a patch (view, row, col) in the token list. Raises SaevxError where `name` has no such patch."""
        places = patches(events, pair["views"])
        patch_index = np.flatnonzero((places.view == patch[0]) & (places.row == patch[1]) & (places.col == patch[2]))
        if not len(patch_index):
            raise SaevxError(f"{name} has no patch {','.join(map(str, patch))}: give the view,row,col of another.")
        return int(places.position[patch_index[0]])

    def features_at(self, events: SampleEvents, pair: Item, position: int, window: Window, name: str) -> Item:
        """The features active on one token or patch, in the order of `Features.strongest`.

        Args:
            position: place in the token list.
            name: what messages call the pair.

        Raises:
            SaevxError: no such position.
        """
        kind = kind_at(events, position, name)
        low, high = events.offset_t[position : position + 2]
        feature_k, z_k = events.feature_e[low:high], events.z_e[low:high]
        items = self._features.strongest(feature_k, z_k, kind, len(z_k)) if kind in (s.TEXT, s.IMAGE) else []
        tag = self._core.list_tag("features at", sample=name, position=position)
        start = page_start(tag, window.cursor)
        end = start + window.limit
        places = patches(events, pair["views"])
        at = np.flatnonzero(places.position == position)
        return {
            "position": position,
            "modality": s.TOKEN_KINDS[kind],
            "token": self._vocabulary.whole_token(events.token_id_t, position),
            "patch": patch_item(pair, *(int(column[at[0]]) for column in places[1:])) if len(at) else None,
            "items": items[start:end],
            "total": len(items),
            "next": next_cursor(tag, end, len(items)),
        }


def kind_at(events: SampleEvents, position: int | None, name: str) -> int:
    """The modality of the token at a position. Raises SaevxError where there is none."""
    if position is None or not 0 <= position < len(events.token_id_t):
        raise SaevxError(f"{name} has positions 0 to {len(events.token_id_t) - 1}: choose one.")
    return int(events.modality_t[position])


def patch_item(pair: Item, view: int, row: int, col: int) -> Item:
    """One patch of a pair: its place and its box in the original image, in pixels."""
    grid = View(*pair["views"][view])
    image = pair["images"][grid.image]
    box = list(patch_box(grid, row, col, (image["width"], image["height"])))
    return {"view": view, "row": row, "col": col, "box": box, "image": grid.image}


def _grids(events: SampleEvents, views: Sequence[Any], z_tk: Array) -> Items:
    """Each view with the values of the chosen features, null where a patch has no value.

    Args:
        z_tk: float64 [t, k], values of k features on the tokens.

    Returns:
        {view, rows, cols, box, image, values [k][rows][cols]} of each view.
    """
    places = patches(events, views)
    grids = []
    for index, (rows, cols, box, image) in enumerate(views):
        is_of_view = places.view == index
        position_p = places.position[is_of_view]
        values_krc = np.full((z_tk.shape[1], rows, cols), np.nan)
        is_image_p = (events.modality_t[position_p] == s.IMAGE)[:, None]  # a sink keeps its place, without a value
        values_krc[:, places.row[is_of_view], places.col[is_of_view]] = np.where(is_image_p, z_tk[position_p], np.nan).T
        values = [[[None if v != v else v for v in row] for row in k] for k in values_krc.tolist()]
        grids.append({"view": index, "rows": rows, "cols": cols, "box": box, "image": image, "values": values})
    return grids
