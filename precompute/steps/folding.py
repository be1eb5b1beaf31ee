"""Examples as the pages show them: a feature's strongest samples, those that show the same folded under the strongest.

The accumulators keep more samples than are shown, so that others move up where some are folded. What counts is the side
on which the feature fires (METHOD, *Examples*): on text two samples show the same where the window of tokens is the
same, or where they are near-duplicates with the same caption; on images where the file is the same, or they are
near-duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from precompute.collect.accumulators import MISSING
from precompute.collect.entries import BAND, mix
from precompute.scoring.near_duplicates import near_in_lists
from precompute.store.events import Events, patches
from precompute.store.making.unfinished import Collected
from precompute.store.schema import AROUND, IMAGE, SHOWN, TEXT
from precompute.utils import memory
from precompute.utils.runs import expand, offsets, run_starts

Array = NDArray[Any]
LISTS_AT_ONCE = 1 << 11
TOKENS_AT_ONCE = 1 << 20


class Files(NamedTuple):
    """Which samples have which image files, by a number a file."""

    first_n: Array
    """int64: the sample's first; −1 where it has none."""
    several: dict[int, tuple[list[Any], Array]]
    """Of the rows with several images their views, and the number of each view's file."""


def number_files(n: int, records: Iterable[tuple[int, list[Any], list[Any]]]) -> Files:
    """
    Args:
        n: samples.
        records: row, images and views of samples.
    """
    numbers: dict[str, int] = {}
    first_n = np.full(n, -1, np.int64)
    several = {}
    for row, images, grids in records:
        own = np.array([numbers.setdefault(str(image["sha256"]), len(numbers)) for image in images], np.int64)
        first_n[row] = own[0] if len(own) else -1
        if len(own) > 1:
            several[row] = (grids, own[[int(grid[3]) for grid in grids]])
    return Files(first_n, several)


class Samples(NamedTuple):
    """What of the samples tells whether two show the same."""

    vector_nd: Array
    """float32: image vectors, zero where there is none."""
    sign_nb: Array
    """int8: the first image's hash bits as ±1, zero where there is none."""
    caption_n: Array
    """int64: one number a caption."""
    files: Files

    @classmethod
    def of(cls, data: Collected, vectors: Array, hashes: Array, row_of_hash: Array) -> Samples:
        """
        Args:
            vectors: image sample vectors [N, 256].
            hashes: bool [n, 64] of the samples in `row_of_hash`.
        """
        captions: dict[str, int] = {}
        caption = (captions.setdefault(str(record["text"]), len(captions)) for record in data.samples)
        caption_n = np.fromiter(caption, np.int64, data.n_samples)
        sign_nb = np.zeros((data.n_samples, hashes.shape[1]), np.int8)
        sign_nb[row_of_hash] = np.where(hashes, 1, -1)
        records = ((row, record["images"], record["views"]) for row, record in enumerate(data.samples))
        return cls(vectors, sign_nb, caption_n, number_files(data.n_samples, records))


def fold(data: Collected, samples: Samples) -> dict[str, Array]:
    """What is shown of the accumulators' lists: `top_*` [F, 2, SHOWN] and `band_*` [F, 2, bands, samples], as they are
    there, with `n_same`, uint8: how many samples of the list show the same as this one, which stands before them."""
    tables = {}
    for name, most in (("top", SHOWN), ("band", BAND)):
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
                alike = show_the_same(samples, m, rows[block], view_lc[low : low + LISTS_AT_ONCE])
                head[block], n_same[block] = heads(alike, rows[block] >= 0)
        columns["n_same"] = n_same.reshape(shape)
        for field, values in columns.items():
            heads_only = moved_up(values.reshape(rows.shape), head, MISSING.get(field, 0), most)
            tables[f"{name}_{field}"] = heads_only.reshape(*shape[:-1], most)
    return tables


def heads(alike_lcc: Array, valid_lc: Array) -> tuple[Array, Array]:
    """Of lists in order, each entry is folded under the first that it is like and that is not folded itself.

    Args:
        alike_lcc: bool: whether an entry (middle axis) is like a later one (last axis).

    Returns:
        bool [l, c] which are not folded, uint8 [l, c] how many are folded under each.
    """
    head, n_same = valid_lc.copy(), np.zeros(valid_lc.shape, np.uint8)
    lists = np.flatnonzero(alike_lcc.any((1, 2)))
    alike, own_head, own_n = alike_lcc[lists], head[lists], n_same[lists]
    for at in range(1, valid_lc.shape[1]):
        under = alike[:, :at, at] & own_head[:, :at]
        folded = np.flatnonzero(under.any(1) & own_head[:, at])
        own_n[folded, under[folded].argmax(1)] += 1
        own_head[folded, at] = False
    head[lists], n_same[lists] = own_head, own_n
    return head, n_same


def moved_up(value_lc: Array, head_lc: Array, missing: int, most: int) -> Array:
    """The entries that are not folded, without gaps, at most so many; `missing` where there are fewer."""
    place = np.cumsum(head_lc, axis=1) - 1
    which, at = np.nonzero(head_lc & (place < most))
    column = np.full((len(value_lc), most), missing, value_lc.dtype)
    column[which, place[which, at]] = value_lc[which, at]
    return column


def show_the_same(samples: Samples, modality: int, row_lc: Array, view_lc: Array) -> Array:
    """bool [l, c, c]: whether an entry of a list (middle axis) shows the same as a later one (last axis).

    Args:
        row_lc: int64, −1 where there is none.
        view_lc: of `views`.
    """
    pair = np.triu(np.ones((row_lc.shape[1],) * 2, bool), 1) & (row_lc >= 0)[:, None]  # a list has no gaps
    alike: Array = pair & (view_lc[:, :, None] == view_lc[:, None])
    pair &= ~alike
    if modality == TEXT:
        caption = samples.caption_n[row_lc]
        pair &= caption[:, :, None] == caption[:, None]
    lists = np.flatnonzero(pair.any((1, 2)))
    if len(lists):
        rows = row_lc[lists]
        alike[lists] |= near_in_lists(samples.vector_nd[rows], samples.sign_nb[rows].astype(np.float32), pair[lists])
    return alike


def views(events: Events, files: Files, modality: int, row_lc: Array, position_lc: Array) -> Array:
    """int64 [l, c]: one number for all that an example shows of its side: the window of text, or the image file.

    Args:
        row_lc: −1 where there is none; the number is then without meaning.
    """
    view_lc = np.full(row_lc.shape, -1)
    valid = row_lc >= 0
    row_e, position_e = row_lc[valid], position_lc[valid].astype(np.int64)
    is_text = modality == TEXT
    view_lc[valid] = windows(events, row_e, position_e) if is_text else image_files(events, files, row_e, position_e)
    return view_lc


def image_files(events: Events, files: Files, row_e: Array, position_e: Array) -> Array:
    """int64 [e]: the number of the image file that holds each patch."""
    file_e: Array = files.first_n[row_e]
    several = np.flatnonzero(np.isin(row_e, list(files.several)))
    order = several[np.argsort(row_e[several], kind="stable")]
    for of_row in np.split(order, run_starts(row_e[order])[1:]) if len(order) else ():
        row = int(row_e[of_row[0]])
        grids, file_of_view = files.several[row]
        places = patches(events.tokens(row), grids)
        at = np.searchsorted(places.position, position_e[of_row])
        placed = at < len(places.position)  # a model may have more image tokens than its views have patches
        file_e[of_row[placed]] = file_of_view[places.view[at[placed]]]
    return file_e


def windows(events: Events, row_e: Array, position_e: Array) -> Array:
    """int64 [e]: a hash of the text tokens around each in their places, as far as an example shows them."""
    order = np.argsort(row_e, kind="stable")
    rows, first = np.unique(row_e[order], return_index=True)
    first = np.append(first, len(order))
    start = np.asarray(events.sample_token[rows])
    length = events.sample_token[rows + 1] - start
    token = offsets(length)
    key_e = np.zeros(len(row_e), np.int64)
    low = 0
    while low < len(rows):
        high = max(low + 1, int(np.searchsorted(token, token[low] + TOKENS_AT_ONCE, "right")) - 1)
        at = expand(start[low:high], length[low:high])
        text_t = events.token_modality[at] == TEXT
        id_x, text_before = events.token_id[at[text_t]].astype(np.int64), offsets(text_t)
        entries = order[first[low] : first[high]]
        which = np.searchsorted(rows, row_e[entries])
        begin = token[which] - token[low]
        least, most = text_before[begin], text_before[begin + length[which]]
        key = torch.zeros(len(entries), dtype=torch.int64)
        for step in range(-AROUND, AROUND + 1):
            x = text_before[begin + position_e[entries]] + step
            inside = (x >= least) & (x < most)
            key = mix(key, torch.from_numpy(np.where(inside, id_x[np.where(inside, x, 0)], -1)))
        key_e[entries] = key.numpy()
        memory.release(events.token_modality, events.token_id)
        low = high
    return key_e
