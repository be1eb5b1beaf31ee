"""Examples as the pages show them: a feature's strongest samples, those that show the same folded under the strongest.

The accumulators keep more samples than are shown, so that others move up where some are folded. What counts is the side
on which the feature fires (METHOD, *Examples*): on text two samples show the same where the window of tokens is the
same, or where they are near-duplicates with the same caption; on images where the file is the same, or they are
near-duplicates.
"""

from typing import NamedTuple, Self

import numpy as np

from precompute.collect.accumulators import MISSING
from precompute.scoring.near_duplicates import near_in_lists
from precompute.store.making.example_views import Files, number_files, number_of, views
from precompute.store.making.unfinished import Collected
from precompute.store.schema import BAND, IMAGE, SHOWN, TEXT
from precompute.utils.types import Array

LISTS_AT_ONCE = 1 << 11


class SimilarityKeys(NamedTuple):
    """What of the samples tells whether two show the same."""

    vector_nd: Array
    """float32: image vectors, zero where there is none."""
    sign_nb: Array
    """int8: the first image's hash bits as ±1, zero where there is none."""
    caption_n: Array
    """int64: one number a caption, from its hash."""
    files: Files

    @classmethod
    def from_store(cls, data: Collected, vectors: Array, hashes: Array, row_of_hash: Array) -> Self:
        """
        Args:
            vectors: image sample vectors [N, 256].
            hashes: bool [n, 64] of the samples in `row_of_hash`.
        """
        caption_n = np.fromiter(map(number_of, data.samples.column("text")), np.int64, data.n_samples)
        sign_nb = np.zeros((data.n_samples, hashes.shape[1]), np.int8)
        sign_nb[row_of_hash] = np.where(hashes, 1, -1)
        images = zip(data.samples.column("sha256"), data.samples.column("views"), strict=True)
        return cls(vectors, sign_nb, caption_n, number_files(data.n_samples, images))


def fold(data: Collected, samples: SimilarityKeys) -> dict[str, Array]:
    """What is shown of the accumulators' lists: `top_*` [F, 2, SHOWN] and `band_*` [F, 2, bands, samples], as they are
    there, with `n_same`, uint8: how many later samples of the list are folded under this one."""
    tables = {}
    for name, n_shown in (("top", SHOWN), ("band", BAND)):
        columns = {field: data.accum[f"{name}_{field}"] for field in MISSING}
        shape = columns["row"].shape
        rows, positions = (columns[field].reshape(-1, shape[-1]) for field in ("row", "position"))
        modality = np.arange(len(rows)) * 2 * shape[0] // len(rows) % 2
        head, n_same = np.zeros(rows.shape, bool), np.zeros(rows.shape, np.uint8)
        for m in (TEXT, IMAGE):
            lists = np.flatnonzero((modality == m) & (rows[:, 0] >= 0))
            view_lc = views(data.events, samples.files, m, rows[lists], positions[lists])
            for low in range(0, len(lists), LISTS_AT_ONCE):
                block = lists[low : low + LISTS_AT_ONCE]
                is_alike = show_the_same(samples, m, rows[block], view_lc[low : low + LISTS_AT_ONCE])
                head[block], n_same[block] = unfolded_entries(is_alike, rows[block] >= 0)
        columns["n_same"] = n_same.reshape(shape)
        for field, values in columns.items():
            heads_only = without_gaps(values.reshape(rows.shape), head, MISSING.get(field, 0), n_shown)
            tables[f"{name}_{field}"] = heads_only.reshape(*shape[:-1], n_shown)
    return tables


def unfolded_entries(alike_lcc: Array, valid_lc: Array) -> tuple[Array, Array]:
    """Of lists in order, each entry is folded under the first that it is like and that is not folded itself.

    Args:
        alike_lcc: bool: whether an entry (middle axis) is like a later one (last axis).

    Returns:
        bool [l, c] which are not folded, uint8 [l, c] how many are folded under each.
    """
    head, n_same = valid_lc.copy(), np.zeros(valid_lc.shape, np.uint8)
    lists = np.flatnonzero(alike_lcc.any((1, 2)))
    is_alike, own_head, own_n = alike_lcc[lists], head[lists], n_same[lists]
    for at in range(1, valid_lc.shape[1]):
        is_under = is_alike[:, :at, at] & own_head[:, :at]
        folded_lists = np.flatnonzero(is_under.any(1) & own_head[:, at])
        own_n[folded_lists, is_under[folded_lists].argmax(1)] += 1
        own_head[folded_lists, at] = False
    head[lists], n_same[lists] = own_head, own_n
    return head, n_same


def without_gaps(value_lc: Array, head_lc: Array, fill_value: int, n_shown: int) -> Array:
    """The entries that are not folded, without gaps, at most so many; `fill_value` where there are fewer."""
    place = np.cumsum(head_lc, axis=1) - 1
    list_index, at = np.nonzero(head_lc & (place < n_shown))
    column = np.full((len(value_lc), n_shown), fill_value, value_lc.dtype)
    column[list_index, place[list_index, at]] = value_lc[list_index, at]
    return column


def show_the_same(samples: SimilarityKeys, modality: int, row_lc: Array, view_lc: Array) -> Array:
    """bool [l, c, c]: whether an entry of a list (middle axis) shows the same as a later one (last axis).

    Args:
        row_lc: int64, −1 where there is none.
        view_lc: of `views`.
    """
    pair = np.triu(np.ones((row_lc.shape[1],) * 2, bool), 1) & (row_lc >= 0)[:, None]  # a list has no gaps
    is_alike: Array = pair & (view_lc[:, :, None] == view_lc[:, None])
    pair &= ~is_alike
    if modality == TEXT:
        caption = samples.caption_n[row_lc]
        pair &= caption[:, :, None] == caption[:, None]
    lists = np.flatnonzero(pair.any((1, 2)))
    if len(lists):
        rows = row_lc[lists]
        is_alike[lists] |= near_in_lists(samples.vector_nd[rows], samples.sign_nb[rows].astype(np.float32), pair[lists])
    return is_alike
