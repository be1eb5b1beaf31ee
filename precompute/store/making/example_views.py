"""What an example shows of its side, as one number: the window of text around its token, or its image file.

Two examples with the same number show the same, so only one of them is listed (steps/folding.py, `saevx verify`).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from precompute.store.events import Events, patches
from precompute.store.schema import CONTEXT_TOKENS, TEXT
from precompute.utils import memory
from precompute.utils.ragged import expand, offsets, run_starts
from precompute.utils.tensors import mix
from precompute.utils.types import Array

TOKENS_AT_ONCE = 1 << 20


class Files(NamedTuple):
    """Which samples have which image files; files of the same content have the same number (`number_of`)."""

    first_n: Array
    """int64 [N]: the number of the sample's first file; −1 where it has none."""
    several: dict[int, tuple[list[Any], Array]]
    """row → views, and the number of each view's file, int64 [views]: of the samples with several images alone."""


def number_of(text: str) -> int:
    """63 bits of a hash: equal for equal texts, and for no two different ones of a store. Numbers in the order of
    occurrence would need all texts in memory."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


def number_files(n: int, images: Iterable[tuple[Sequence[str], str]]) -> Files:
    """Numbers the image files of all samples by their content.

    Args:
        n: samples.
        images: of each sample, in row order, the SHA-256 of its image files and its views as JSON.
    """
    first_n = np.full(n, -1, np.int64)
    several = {}
    for row, (hashes, views) in enumerate(images):
        file_numbers = [number_of(sha256) for sha256 in hashes]
        if file_numbers:
            first_n[row] = file_numbers[0]
        if len(file_numbers) > 1:
            grids = json.loads(views)
            several[row] = (grids, np.array(file_numbers)[[int(grid[3]) for grid in grids]])
    return Files(first_n, several)


def views(events: Events, files: Files, modality: int, row_lc: Array, position_lc: Array) -> Array:
    """int64 [l, c]: one number for all that an example shows of its side: the window of text, or the image file.

    Args:
        modality: 0 text, 1 image.
        row_lc: int [l, c], the samples of l lists; −1 where a list has ended, and the number is then meaningless.
        position_lc: int [l, c], the example's place in the sample's token list.
    """
    view_lc = np.full(row_lc.shape, -1)
    valid = row_lc >= 0
    row_e, position_e = row_lc[valid], position_lc[valid].astype(np.int64)
    is_text = modality == TEXT
    view_lc[valid] = windows(events, row_e, position_e) if is_text else image_files(events, files, row_e, position_e)
    return view_lc


def image_files(events: Events, files: Files, row_e: Array, position_e: Array) -> Array:
    """int64 [e]: the number of the image file that holds the patch at `position_e` of sample `row_e`, both int [e]."""
    file_e: Array = files.first_n[row_e]
    several = np.flatnonzero(np.isin(row_e, list(files.several)))
    order = several[np.argsort(row_e[several], kind="stable")]
    for of_row in np.split(order, run_starts(row_e[order])[1:]) if len(order) else ():
        row = int(row_e[of_row[0]])
        grids, file_of_view = files.several[row]
        places = patches(events.tokens(row), grids)
        at = np.searchsorted(places.position, position_e[of_row])
        has_place = at < len(places.position)  # a model may have more image tokens than its views have patches
        file_e[of_row[has_place]] = file_of_view[places.view[at[has_place]]]
    return file_e


def windows(events: Events, row_e: Array, position_e: Array) -> Array:
    """int64 [e]: a hash of the text tokens that an example shows around position `position_e` of sample `row_e`.

    The tokens are hashed in order, and places beyond the sample's ends as −1: windows agree where they have the same
    tokens and the same place in them. Samples are read some million tokens at a time.
    """
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
        group_e = np.searchsorted(rows, row_e[entries])
        begin = token[group_e] - token[low]
        text_begin, text_end = text_before[begin], text_before[begin + length[group_e]]
        key = np.zeros(len(entries), np.int64)
        for step in range(-CONTEXT_TOKENS, CONTEXT_TOKENS + 1):
            x = text_before[begin + position_e[entries]] + step
            is_inside = (x >= text_begin) & (x < text_end)
            key = mix(key, np.where(is_inside, id_x[np.where(is_inside, x, 0)], -1))
        key_e[entries] = key
        memory.release(events.token_modality, events.token_id)
        low = high
    return key_e
