"""Pairs as scores, flags and reasons read them: rows of an unfinished store, new data, or one pair sent to a server.

n counts the pairs, F the features, e the events (an active feature on a token). The modality axis m is 0 text, 1 image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from precompute.store.schema import IMAGE, TEXT
from precompute.utils.ragged import expand, offsets
from precompute.utils.types import Array

if TYPE_CHECKING:
    from PIL import Image

    from precompute.collect.shard import Sample
    from precompute.live.engine import EncodedPair
    from precompute.store.making.unfinished import Collected
    from precompute.store.reader import Store


class TextEvents(NamedTuple):
    """Every event on a text token, in the order of pairs and tokens; e events."""

    row_e: Array
    """int64: which of the n pairs."""
    position_e: Array
    """int64: which token of the pair."""
    feature_e: Array
    """int64."""
    z_e: Array
    """float64 activation in the SAE's units."""


class Thumbnails(NamedTuple):
    """The thumbnails of all images of n pairs, on which the pixel flags rest."""

    files: list[Path]
    row: Array
    """int64 [files]: which of the n pairs."""


class Pairs(Protocol):
    """n pairs, stored or new. A column is read when it is first asked for, as scores need less than flags."""

    @property
    def n_features(self) -> int: ...
    @property
    def maxima(self) -> tuple[csr_matrix, csr_matrix]:
        """Largest z of each feature on text tokens and on image tokens: float64 CSR [n, F], features rising."""

    @property
    def n_events_n(self) -> Array:
        """int64 [n]: events on text and image tokens."""

    @property
    def n_tokens_nm(self) -> Array:
        """int64 [n, 2]: text and image tokens, without special tokens and sinks."""

    @property
    def error_nm(self) -> Array:
        """float64 [n, 2]: Σ‖h − ĥ‖² over these tokens."""

    @property
    def nll_n(self) -> Array:
        """float64 [n]: the caption's mean cross-entropy given the image, NaN where it was not measured."""

    @property
    def nll_alone_n(self) -> Array:
        """float64 [n]: the same without the image; NaN where there is none."""

    @property
    def sample_ids(self) -> Sequence[str] | None:
        """None where pairs have no id."""

    @property
    def texts(self) -> Sequence[str]: ...
    @property
    def size_n2(self) -> Array:
        """int64 [n, 2]: width and height of the first image in pixels, 0 without an image."""

    @property
    def thumbnails(self) -> Thumbnails: ...
    @property
    def text_events(self) -> TextEvents: ...
    def token(self, i: int, position: int) -> str:
        """The text of a token of pair i."""


class StoredPairs:
    """Rows of an unfinished store."""

    def __init__(self, data: Collected, rows: Array) -> None:
        self.data, self.rows, self.n_features = data, np.asarray(rows, np.int64), data.n_features

    def _of_modalities(self, name: str) -> Array:
        return np.stack([self.data.sample[f"{name}_{modality}"][self.rows] for modality in ("text", "image")], axis=1)

    @cached_property
    def maxima(self) -> tuple[csr_matrix, csr_matrix]:
        return self.data.maxima_of(self.rows)

    @cached_property
    def n_events_n(self) -> Array:
        events = self.data.events
        first, last = (events.token_event[events.sample_token[rows]] for rows in (self.rows, self.rows + 1))
        return np.asarray(last - first)

    @cached_property
    def n_tokens_nm(self) -> Array:
        return self._of_modalities("n")

    @cached_property
    def error_nm(self) -> Array:
        return self._of_modalities("sse")

    @cached_property
    def nll_n(self) -> Array:
        return self.data.sample["caption_nll"][self.rows]

    @cached_property
    def nll_alone_n(self) -> Array:
        return self.data.sample["caption_nll_alone"][self.rows]

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return [self.data.samples[row] for row in self.rows.tolist()]

    @cached_property
    def sample_ids(self) -> list[str]:
        return [str(record["sample_id"]) for record in self._records]

    @cached_property
    def texts(self) -> list[str]:
        return [str(record["text"]) for record in self._records]

    @cached_property
    def size_n2(self) -> Array:
        return np.stack([self.data.sample[edge][self.rows] for edge in ("width", "height")], axis=1)

    @cached_property
    def thumbnails(self) -> Thumbnails:
        images = [(i, image) for i, record in enumerate(self._records) for image in record["images"]]
        files = [self.data.part / str(image["thumb"]) for _, image in images]
        return Thumbnails(files, np.array([i for i, _ in images], dtype=np.int64))

    @cached_property
    def text_events(self) -> TextEvents:
        events, rows = self.data.events, self.rows
        start, stop = np.asarray(events.sample_token[rows]), np.asarray(events.sample_token[rows + 1])
        token = expand(start, stop - start)
        row_t = np.repeat(np.arange(len(rows)), stop - start)
        position_t = token - start[row_t]
        is_text = np.asarray(events.token_modality[token]) == TEXT
        token, row_t, position_t = token[is_text], row_t[is_text], position_t[is_text]
        first, last = np.asarray(events.token_event[token]), np.asarray(events.token_event[token + 1])
        n_events_t = last - first
        event = expand(first, n_events_t)
        return TextEvents(
            np.repeat(row_t, n_events_t),
            np.repeat(position_t, n_events_t),
            events.event_feature[event].astype(np.int64),
            events.event_value[event].astype(np.float64) * self.data.unit,
        )

    def token(self, i: int, position: int) -> str:
        return self.data.token(int(self.rows[i]), position)


class NewPairs:
    """Pairs that went through the model outside the making of a store, measured against a finished store.

    Args:
        samples: what the pass makes of each pair.
        thumbnails: of their images, written as the pass writes them.
        sample_ids: None where the pairs have none.
    """

    def __init__(
        self,
        store: Store,
        samples: Sequence[Sample],
        texts: Sequence[str],
        thumbnails: Thumbnails,
        sample_ids: Sequence[str] | None = None,
    ) -> None:
        self.store, self.samples, self.texts, self.thumbnails = store, samples, texts, thumbnails
        self.sample_ids, self.n_features, self.unit = sample_ids, store.n_features, 2.0**-store.scale_log2

    def _concatenate(self, name: str) -> Array:
        return np.concatenate([getattr(sample, name) for sample in self.samples])

    @cached_property
    def maxima(self) -> tuple[csr_matrix, csr_matrix]:
        n_active_nm = np.stack([sample.max_m for sample in self.samples])
        feature, value = self._concatenate("max_feature"), self._concatenate("max_value")
        start = offsets(n_active_nm.reshape(-1))

        def maxima_of(modality: int) -> csr_matrix:
            at = expand(start[modality:-1:2], n_active_nm[:, modality])
            z, row_start = value[at].astype(np.float64) * self.unit, offsets(n_active_nm[:, modality])
            return csr_matrix((z, feature[at].astype(np.int64), row_start), shape=(len(self.samples), self.n_features))

        return maxima_of(TEXT), maxima_of(IMAGE)

    @cached_property
    def n_events_n(self) -> Array:
        return np.array([len(sample.feature_e) for sample in self.samples])

    @cached_property
    def n_tokens_nm(self) -> Array:
        return np.array([[(sample.modality_t == m).sum() for m in (TEXT, IMAGE)] for sample in self.samples])

    @cached_property
    def error_nm(self) -> Array:
        return np.array([sample.error_m for sample in self.samples])

    @cached_property
    def nll_n(self) -> Array:
        return np.array([sample.nll_3[0] for sample in self.samples])

    @cached_property
    def nll_alone_n(self) -> Array:
        return np.array([sample.nll_3[1] for sample in self.samples])

    @cached_property
    def size_n2(self) -> Array:
        firsts = [(sample.record["images"] or [{"width": 0, "height": 0}])[0] for sample in self.samples]
        return np.array([[first["width"], first["height"]] for first in firsts])

    @cached_property
    def text_events(self) -> TextEvents:
        n_tokens = np.array([len(sample.token_id_t) for sample in self.samples])
        n_events_t = self._concatenate("count_t")
        is_text_e = np.repeat(self._concatenate("modality_t") == TEXT, n_events_t)
        position_t = np.concatenate([np.arange(n) for n in n_tokens])
        return TextEvents(
            np.repeat(np.repeat(np.arange(len(self.samples)), n_tokens), n_events_t)[is_text_e],
            np.repeat(position_t, n_events_t)[is_text_e],
            self._concatenate("feature_e")[is_text_e].astype(np.int64),
            self._concatenate("value_e")[is_text_e].astype(np.float64) * self.unit,
        )

    def token(self, i: int, position: int) -> str:
        return self.store.vocabulary.whole_token(self.samples[i].token_id_t, position)


def live_pair(
    store: Store, encoded_pair: EncodedPair, text: str, images: Sequence[Image.Image], folder: Path, nll_3: Array
) -> NewPairs:
    """One pair sent to a server, as the offline pass would have stored it.

    Args:
        encoded_pair, nll_3: as of `sample_of`. folder: where thumbnails are written.
    """
    from precompute.data.images import write_thumbnail

    files = [folder / f"{i}.webp" for i in range(len(images))]
    for image, file in zip(images, files, strict=True):
        write_thumbnail(image, file)
    thumbnails = Thumbnails(files, np.zeros(len(files), np.int64))
    return NewPairs(store, [sample_of(encoded_pair, images, nll_3)], [text], thumbnails)


def sample_of(encoded_pair: EncodedPair, images: Sequence[Image.Image], nll_3: Array) -> Sample:
    """What the pass makes of a pair.

    Args:
        encoded_pair: of the pair, with its errors where `reconstruction` is wanted.
        nll_3: float64 [3] as `Sample.nll_3`.
    """
    from precompute.collect.shard import Sample

    count_t = np.diff(encoded_pair.offset_t)
    kind_e = np.repeat(encoded_pair.modality_t, count_t)
    is_side = [kind_e == m for m in (TEXT, IMAGE)]
    maxima_m = [largest_values(encoded_pair.feature_e[is_e], encoded_pair.value_e[is_e]) for is_e in is_side]
    is_m = [encoded_pair.modality_t == m for m in (TEXT, IMAGE)]
    return Sample(
        index=0,
        token_id_t=encoded_pair.token_id_t,
        modality_t=encoded_pair.modality_t,
        count_t=count_t,
        feature_e=encoded_pair.feature_e,
        value_e=encoded_pair.value_e,
        max_m=np.array([len(feature) for feature, _ in maxima_m]),
        max_feature=np.concatenate([feature for feature, _ in maxima_m]),
        max_value=np.concatenate([value for _, value in maxima_m]),
        error_m=np.array([encoded_pair.error_t[is_t].sum() for is_t in is_m]),
        square_m=np.array([np.square(encoded_pair.norm_t[is_t]).sum() for is_t in is_m]),
        nll_3=nll_3,
        record={"images": [{"width": image.width, "height": image.height} for image in images]},
        resid_td=None,
    )


def largest_values(feature_e: Array, value_e: Array) -> tuple[Array, Array]:
    """The distinct features, rising, and the largest value of each, in the values' own dtype."""
    feature, which_e = np.unique(feature_e, return_inverse=True)
    value = np.zeros(len(feature), value_e.dtype)
    np.maximum.at(value, which_e, value_e)
    return feature, value
