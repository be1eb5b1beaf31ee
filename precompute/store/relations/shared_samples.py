"""Features of two stores that fire most strongly on the same samples (METHOD, *Features of two stores*)."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.reader import Store
from precompute.store.relations.counterparts import Counterpart
from precompute.store.sql import fetch_plain
from precompute.utils.ragged import csr_rows
from precompute.utils.types import Array

MAX_SAMPLES = 8192
"""Shared samples that are compared, those with the smallest SHA-256 of their content."""
MIN_SIDES = 3
"""A feature that fires on fewer sides of them is not compared: a single sample in common would be a match."""
CHUNK = 50_000
BLOCK = 128
"""Features whose correlations with all of the other store are in memory at a time."""


class SharedRows(NamedTuple):
    """Samples that both stores hold, in the order of their content's SHA-256."""

    here_n: Array
    """int64 [n]: rows of the one store."""
    there_n: Array
    """int64 [n]: rows of the other."""


def content_key(text: str, hashes: Sequence[str]) -> bytes:
    """SHA-256 of a sample's text and of its image files: what makes two samples the same, whatever their ids are."""
    return hashlib.sha256(json.dumps([text, list(hashes)]).encode()).digest()


def shared_rows(store: Store, other: Store) -> SharedRows:
    """The samples with the same content; where a store holds a content several times, the first is that of the first,
    the second that of the second."""
    other_rows = dict(_keyed_rows(other))
    rows = sorted((key, row, other_rows[key]) for key, row in _keyed_rows(store) if key in other_rows)
    pairs_n2 = np.array([pair[1:] for pair in rows], np.int64).reshape(-1, 2)
    return SharedRows(pairs_n2[:, 0], pairs_n2[:, 1])


def _keyed_rows(store: Store) -> Iterator[tuple[tuple[bytes, int], int]]:
    """((SHA-256 of its content, how many rows before had the same), row) of each sample."""
    n_seen: Counter[bytes] = Counter()
    query = "SELECT row, text, images FROM samples WHERE row >= ? AND row < ? ORDER BY row"
    for start in range(0, store.n_samples, CHUNK):
        for row, text, images in fetch_plain(store.engine, query, (start, start + CHUNK)):
            key = content_key(text, [str(image["sha256"]) for image in json.loads(images)])
            yield (key, n_seen[key]), row
            n_seen[key] += 1


class Sides(NamedTuple):
    """The largest activations of a store's features on each side of the shared samples."""

    z_sf: csr_matrix
    """float32 [2n, F], the n texts first, then the n images; 0 where the store holds none."""
    mean_mf: Array
    """float64 [2, F]: means over the texts and over the images."""
    norm_f: Array
    """float64 [F]: length of each column without these means; 0 where it fires on fewer than `MIN_SIDES` sides."""


def sides_of(store: Store, row_n: Array) -> Sides:
    """Of the samples in these rows, int64 [n]."""
    events, n = store.events, len(row_n)
    side_s = np.concatenate([row_n * len(s.MODALITIES) + m for m in range(len(s.MODALITIES))])
    z_sf = csr_rows(
        side_s, np.asarray(events.max_offset), events.max_feature, events.max_value, store.n_features
    ).astype(np.float32)
    mean_mf = np.stack([np.asarray(z_sf[m * n : (m + 1) * n].sum(0, np.float64)).ravel() / n for m in range(2)])
    square_f = np.asarray(z_sf.multiply(z_sf).sum(0, np.float64)).ravel() - n * np.square(mean_mf).sum(0)
    norm_f = np.sqrt(np.maximum(square_f, 0))
    norm_f[np.bincount(z_sf.indices, minlength=store.n_features) < MIN_SIDES] = 0
    norm_f[norm_f < 1e-4 * np.sqrt(n * np.square(mean_mf).sum(0))] = 0  # what rounding leaves of a constant
    return Sides(z_sf, mean_mf, norm_f)


class SharedMatches:
    """Matches of the features of two stores by the samples that they share.

    Raises:
        SaevxError: they share none.
    """

    def __init__(self, store: Store, other: Store) -> None:
        rows = shared_rows(store, other)
        self.n_shared = len(rows.here_n)
        """Samples that both hold."""
        if not self.n_shared:
            raise SaevxError(
                "The stores have no sample in common, so no features can be matched by shared samples: "
                "compare stores of the same data, or match by direction."
            )
        self.n_compared = min(self.n_shared, MAX_SAMPLES)
        self.here = sides_of(store, rows.here_n[:MAX_SAMPLES])
        self.there = sides_of(other, rows.there_n[:MAX_SAMPLES])

    def nearest(self, features: Sequence[int]) -> dict[int, Counterpart]:
        """The best match in the other store of those features that fire on enough of the shared samples."""
        ids = [id for id in features if self.here.norm_f[id] > 0]
        match_of = dict(_matches(self.here, self.there, ids, self.n_compared))
        back_of = dict(_matches(self.there, self.here, sorted({to for to, _ in match_of.values()}), self.n_compared))
        return {id: Counterpart(to, cosine, back_of[to][0] == id) for id, (to, cosine) in match_of.items()}


def _matches(sides: Sides, other_sides: Sides, ids: Sequence[int], n: int) -> Iterator[tuple[int, tuple[int, float]]]:
    """(feature, (the feature of the other store with the largest correlation, that correlation))."""
    columns = sides.z_sf.tocsc()
    known_f = other_sides.norm_f > 0
    if not known_f.any():
        return
    for start in range(0, len(ids), BLOCK):
        block = np.array(ids[start : start + BLOCK], np.int64)
        product_bf = (columns[:, block].T @ other_sides.z_sf).toarray().astype(np.float64)
        product_bf -= n * sides.mean_mf[:, block].T @ other_sides.mean_mf
        product_bf /= np.outer(sides.norm_f[block], np.where(known_f, other_sides.norm_f, 1))
        product_bf[:, ~known_f] = -np.inf
        to = product_bf.argmax(1)
        for id, best_id, value in zip(block.tolist(), to.tolist(), product_bf[np.arange(len(to)), to], strict=True):
            yield id, (best_id, min(float(value), 1.0))


def same_sample(store: Store, other: Store, sample_id: str) -> str | None:
    """The id in `other` of a sample of `store`: of the same content, and of the same id where there is such a one; None
    where there is none.

    Raises:
        SaevxError: `store` has no such sample.
    """
    content = _contents(store, "sample_id", store.samples.sample_id(store.samples.row(sample_id)))[0]
    if content in _contents(other, "sample_id", content.id):  # most often; a text has no index
        return content.id
    same_ids = [c.id for c in _contents(other, "text", content.text) if c.hashes == content.hashes]
    return same_ids[0] if same_ids else None


class Content(NamedTuple):
    """What makes a sample that one."""

    id: str
    text: str
    hashes: list[str]
    """SHA-256 of each image file."""


def _contents(store: Store, column: str, value: str) -> list[Content]:
    """The samples with this value of a column, in order."""
    query = f"SELECT sample_id, text, images FROM samples WHERE {column} = ? ORDER BY row"
    rows = fetch_plain(store.engine, query, (value,))
    return [Content(id, text, [str(image["sha256"]) for image in json.loads(images)]) for id, text, images in rows]
