"""Batches and shards of a pass, planned before it from the order and lengths of the data.

A batch holds samples of like length; a shard is a run of whole batches. As nothing depends on where shards are
cut, 1 shard or 8, killed and resumed, give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from precompute.data import (
    ALL_REJECTED,
    BadRow,
    Data,
    RejectedRow,
    Row,
    all_rejected_message,
    check_size,
    guess_line,
    header_size,
    refuse_no_image,
    summary_of,
)
from precompute.errors import PairError, SaevxError
from precompute.utils.progress import say

CALIBRATION_SAMPLES = 64
"""Samples from which norms, the scale of activations and the SAE's input factor are measured."""
SHARD_TOKENS = 1 << 19
"""Most tokens in a shard, one batch apart: a shard's events stand in memory until it is written."""
OVERHEAD = 8
"""Tokens of a template, roughly, when batches are planned."""
DS_SPARE = 16
"""D_s is gathered with spares, for members that turn out unreadable."""


class Plan(NamedTuple):
    """Positions in the list of usable rows, by batch, and batches by shard."""

    batches: list[list[int]]
    shards: list[range]
    ds: list[int]
    """Candidates of D_s, the best first."""
    length_n: NDArray[np.int64]
    """Tokens of each row, as planned."""


class Batching(NamedTuple):
    """How rows are put into batches, shards and D_s."""

    batch_tokens: int
    """Most tokens in a batch, padding counted."""
    seed: int
    shard_samples: int = 1024
    ds: int = 1
    """Samples in D_s."""


def make_plan(
    sample_ids: Sequence[str],
    length_n: NDArray[np.int64],
    *,
    batch_tokens: int,
    shard_samples: int,
    ds: int,
    seed: int,
) -> Plan:
    """Batches of at most `batch_tokens` tokens with padding (one sample at least), in a seeded order.

    The order is shuffled so that the calibration's samples and any part of a run stand for the whole.
    """
    order = np.lexsort((np.arange(len(length_n)), length_n)).tolist()
    batches: list[list[int]] = []
    for at in order:
        # Sorted by length, so the newest is the longest.
        if batches and (len(batches[-1]) + 1) * int(length_n[at]) <= batch_tokens:
            batches[-1].append(at)
        else:
            batches.append([at])
    batches.sort(key=lambda batch: hashlib.sha256(f"{seed} {sample_ids[batch[0]]}".encode()).digest())
    shards: list[range] = []
    begin = n_samples = n_tokens = 0
    for i, batch in enumerate(batches):
        n_samples += len(batch)
        n_tokens += int(length_n[batch].sum())
        if n_samples >= shard_samples or n_tokens >= SHARD_TOKENS or i + 1 == len(batches):
            shards.append(range(begin, i + 1))
            begin, n_samples, n_tokens = i + 1, 0, 0
    return Plan(batches, shards, smallest_hashes(sample_ids, ds + DS_SPARE), length_n)


def smallest_hashes(sample_ids: Sequence[str], n: int) -> list[int]:
    """Positions of the n ids with the smallest SHA-256, smallest first."""
    digests = [hashlib.sha256(sample_id.encode()).digest() for sample_id in sample_ids]
    return sorted(range(len(sample_ids)), key=digests.__getitem__)[:n]


def usable(rows: list[Row], mllm: Any) -> tuple[list[Row], NDArray[np.int64], list[RejectedRow]]:
    """Rows that the model can be shown, their tokens as far as planning knows, and the others."""
    n_text = mllm.n_text_tokens([row.text for row in rows])
    good, lengths, rejected_rows = [], [], []
    for row, n in zip(rows, n_text.tolist(), strict=True):
        try:
            length = n + n_image_tokens(row, mllm)
            mllm.check_text(row.text)
            mllm.check_length(length + len(mllm.template) // 4)
            if not row.images and not row.text:
                raise PairError("it has neither image nor text")
        except (BadRow, PairError) as error:
            rejected_rows.append(RejectedRow(row.index, row.sample_id, error.reason))
        else:
            good.append(row)
            lengths.append(length)
    return good, np.array(lengths, dtype=np.int64) + OVERHEAD, rejected_rows


def n_image_tokens(row: Row, mllm: Any) -> int:
    """Tokens of a row's images as their headers tell; 0 where one tells nothing, which the pass will find out.

    Raises:
        BadRow, PairError: images of these sizes cannot be shown to the model.
    """
    if row.images and not mllm.multimodal:
        raise BadRow("it has an image, and the model reads text only")
    sizes = [header_size(image) for image in row.images]
    if not all(min(size) > 0 for size in sizes):
        return 0
    for size in sizes:
        check_size(size)
    return int(mllm.n_image_tokens(sizes))


def plan_rows(
    mllm: Any,
    data: Data,
    source: str,
    batching: Batching,
    *,
    id_column: str | None = None,
) -> tuple[Data, Plan]:
    """The rows that the model can take, and the order in which they are run. Says which rows are rejected.

    Args:
        id_column: the field asked for, which decides what is advised where ids repeat.

    Raises:
        SaevxError: no row can be used, or the model reads images and none is left, as it should not be.
    """
    if mllm.multimodal:
        refuse_no_image(source, mllm.source, data.no_image)
    good, length_n, bad = usable(data.rows, mllm)
    rejected_rows = sorted([*data.rejected_rows, *bad])
    if not good:
        raise SaevxError(all_rejected_message(f"No row of {source} can be used", rejected_rows, id_column))
    if mllm.multimodal and any(row.images for row in data.rows) and not any(row.images for row in good):
        refuse_no_image(source, mllm.source, ALL_REJECTED)
    if data.guess:
        say(guess_line(data.guess))
    if rejected_rows:
        say(summary_of(rejected_rows, id_column))
    plan = make_plan([row.sample_id for row in good], length_n, **batching._asdict())
    return data._replace(rows=good, rejected_rows=rejected_rows), plan


def shuffle_images(rows: list[Row], seed: int) -> list[Row]:
    """The same rows with the images exchanged among those that have one, none keeping its own."""
    with_image = [i for i, row in enumerate(rows) if row.images]
    if len(with_image) < 2:
        raise SaevxError("--shuffle-images exchanges images, so give data with two pairs that have one at least.")
    from precompute.utils.stats import derangement

    moved = derangement(len(with_image), np.random.Generator(np.random.PCG64(seed + 3)))
    shuffled = list(rows)
    for i, other in zip(with_image, moved.tolist(), strict=True):
        shuffled[i] = replace(rows[i], images=rows[with_image[other]].images)
    return shuffled
