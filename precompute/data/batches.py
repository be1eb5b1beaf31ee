"""Batches and shards of a pass, planned before it from the order and lengths of the data.

A batch holds samples of like length; a shard is a run of whole batches. As nothing depends on where shards are
cut, 1 shard or 8, killed and resumed, give the same bytes.
"""

import hashlib
import heapq
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from precompute.data.disk.row_table import RowTable, SampleIds, as_table, take
from precompute.data.images import check_size, header_size
from precompute.data.records import BadRow, Data, RejectedRow, Row
from precompute.data.rejections import all_rejected_message, summary_of
from precompute.data.rows import ALL_REJECTED, guess_line, refuse_no_image
from precompute.errors import PairError, SaevxError
from precompute.utils.progress import say
from precompute.utils.ragged import batched, expand, offsets
from precompute.utils.types import LazySequence

CALIBRATION_SAMPLES = 64
"""Samples from which norms, the scale of activations and the SAE's input factor are measured."""
SHARD_TOKENS = 1 << 19
"""Most tokens in a shard, one batch apart: a shard's events stand in memory until it is written."""
ROWS_AT_ONCE = 4096
OVERHEAD = 8
"""Tokens of a template, roughly, when batches are planned."""
DS_SPARE = 16
"""D_s is gathered with spares, for members that turn out unreadable."""


class Batches(LazySequence[list[int]]):
    """Positions in the list of usable rows, by batch.

    Args:
        at_n: int64 [n]: those of all batches, one batch behind the other.
        start_b: int64 [b+1]: where each batch begins and, last, where all end.
    """

    def __init__(self, at_n: NDArray[np.int64], start_b: NDArray[np.int64]) -> None:
        self.at_n, self.start_b = at_n, start_b

    def __len__(self) -> int:
        return len(self.start_b) - 1

    def item(self, number: int) -> list[int]:
        return self.at_n[self.start_b[number] : self.start_b[number + 1]].tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]


class Plan(NamedTuple):
    """Positions in the list of usable rows, by batch, and batches by shard."""

    batches: Sequence[list[int]]
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
    order_n = np.argsort(length_n, kind="stable")
    start_b = batch_starts(length_n[order_n], batch_tokens)
    first_b = order_n[start_b[:-1]].tolist()
    digests = (hashlib.sha256(f"{seed} {sample_ids[at]}".encode()).digest() for at in first_b)
    order_b = np.argsort(np.fromiter(digests, "S32", len(first_b)), kind="stable")
    size_b = np.diff(start_b)[order_b]
    batches = Batches(order_n[expand(start_b[order_b], size_b)], offsets(size_b))
    shards: list[range] = []
    begin = n_samples = n_tokens = 0
    for i, batch in enumerate(batches):
        n_samples += len(batch)
        n_tokens += int(length_n[batch].sum())
        if n_samples >= shard_samples or n_tokens >= SHARD_TOKENS or i + 1 == len(batches):
            shards.append(range(begin, i + 1))
            begin, n_samples, n_tokens = i + 1, 0, 0
    return Plan(batches, shards, smallest_hashes(sample_ids, ds + DS_SPARE), length_n)


def batch_starts(length_n: NDArray[np.int64], batch_tokens: int) -> NDArray[np.int64]:
    """int64 [b+1]: where each batch begins, and where the last ends.

    Args:
        length_n: int64 [n], rising: so the newest of a batch is its longest.
    """
    start_b = array("q")
    for low in range(0, len(length_n), ROWS_AT_ONCE):
        for at, length in enumerate(length_n[low : low + ROWS_AT_ONCE].tolist(), low):
            if not start_b or (at - start_b[-1] + 1) * length > batch_tokens:
                start_b.append(at)
    start_b.append(len(length_n))
    return np.array(start_b, np.int64)


def smallest_hashes(sample_ids: Iterable[str], n: int) -> list[int]:
    """Positions of the n ids with the smallest SHA-256, smallest first."""
    digests = ((hashlib.sha256(sample_id.encode()).digest(), at) for at, sample_id in enumerate(sample_ids))
    return [at for _, at in heapq.nsmallest(n, digests)]


def usable(rows: Sequence[Row], mllm: Any) -> tuple[Sequence[Row], NDArray[np.int64], list[RejectedRow]]:
    """Rows that the model can be shown, their tokens as far as planning knows, and the others."""
    positions, lengths = array("q"), array("q")
    rejected_rows: list[RejectedRow] = []
    for at, (row, n) in enumerate(with_text_tokens(rows, mllm)):
        try:
            length = n + n_image_tokens(row, mllm)
            mllm.check_text(row.text)
            mllm.check_length(length + len(mllm.template) // 4)
            if not row.images and not row.text:
                raise PairError("it has neither image nor text")
        except (BadRow, PairError) as error:
            rejected_rows.append(RejectedRow(row.index, row.sample_id, error.reason))
        else:
            positions.append(at)
            lengths.append(length)
    return take(rows, np.array(positions, np.int64)), np.array(lengths, np.int64) + OVERHEAD, rejected_rows


def with_text_tokens(rows: Iterable[Row], mllm: Any) -> Iterator[tuple[Row, int]]:
    """The rows, each with the tokens of its text; texts are counted some thousand at a time."""
    for block in batched(rows, ROWS_AT_ONCE):
        yield from zip(block, mllm.n_text_tokens([row.text for row in block]).tolist(), strict=True)


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
        id_column: of --id-column; with `row` no advice is given on ids that repeat.

    Raises:
        SaevxError: no row can be used, or the model reads images and no row with an image can.
    """
    if mllm.multimodal:
        refuse_no_image(source, mllm.source, data.no_image)
    rows, length_n, bad_rows = usable(data.rows, mllm)
    rejected_rows = sorted([*data.rejected_rows, *bad_rows])
    if not rows:
        raise SaevxError(all_rejected_message(f"No row of {source} can be used", rejected_rows, id_column))
    if mllm.multimodal and any(row.images for row in data.rows) and not any(row.images for row in rows):
        refuse_no_image(source, mllm.source, ALL_REJECTED)
    if data.guess:
        say(guess_line(data.guess))
    if rejected_rows:
        say(summary_of(rejected_rows, id_column))
    plan = make_plan(SampleIds(rows), length_n, **batching._asdict())
    return data._replace(rows=rows, rejected_rows=rejected_rows), plan


def shuffle_images(rows: Sequence[Row], seed: int) -> RowTable:
    """The same rows with the images exchanged among those that have one, none keeping its own."""
    with_image = np.flatnonzero(np.fromiter((bool(row.images) for row in rows), bool, len(rows)))
    if len(with_image) < 2:
        raise SaevxError("--shuffle-images exchanges images, so give data with two pairs that have one at least.")
    from precompute.utils.stats import derangement

    order = derangement(len(with_image), np.random.Generator(np.random.PCG64(seed + 3)))
    image_n = np.arange(len(rows))
    image_n[with_image] = with_image[order]
    return as_table(rows).with_images(image_n)
