"""Rows of the data as batches of the model, decoded and tokenised ahead of it: what the pass, training and evaluation
share. Which rows can be run, and in which batches, is planned before (data/batches.py)."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from precompute.data.disk.row_table import as_table
from precompute.data.images import DecodedImage, open_image
from precompute.data.records import BadRow, Data, RejectedRow, Row
from precompute.errors import PairError, SaevxError
from precompute.model.batch import IMAGE, TEXT, Batch, Pair
from precompute.model.mllm import Mllm
from precompute.options.shared import ModelLoading
from precompute.utils.processes.interrupts import raise_lost
from precompute.utils.types import Array

Item = TypeVar("Item")
Result = TypeVar("Result")
SaveImage = Callable[[Row, int, DecodedImage], None]
"""Called with a row, the place of an image among the row's, and the decoded image."""
PREFETCH = 2
"""Batches decoded ahead of the model."""


class ImageFacts(NamedTuple):
    """What a store says about an image."""

    width: int
    height: int
    sha256: str
    """Of the file."""


@dataclass
class LoadedBatch:
    """A batch that is decoded and tokenised, and the rows that could not be."""

    rows: list[Row]
    batch: Batch | None
    """None when every row was rejected."""
    images: list[list[ImageFacts]]
    """Of each row."""
    rejected_rows: list[RejectedRow]
    ends_batch: bool = True
    """False where another part of the same planned batch follows."""
    hidden: Tensor | None = None
    """[b, s, d] h in the model's dtype, once it is computed."""
    alone: Batch | None = None
    """The texts of `alone_members` without their images; None where they are not to be run."""
    alone_members: list[int] = field(default_factory=list)
    """Places in the batch of the pairs that have both a text and an image."""
    alone_hidden: Tensor | None = None
    """h [b, s, d] of `alone`, where it is computed already."""
    exchanged: dict[int, tuple[int, Batch]] = field(default_factory=dict)
    """Of some places in the batch: the index of another pair, and its caption beside this one's images."""
    nll_b3: Array | None = None
    """float64 [b, 3]: cross-entropy of each caption beside its image, by itself, and of the exchanged one; once they
    are computed, NaN where there is none."""

    def prepare_alone(self, mllm: Mllm) -> None:
        """Tokenise the texts that have an image once more, without it."""
        if self.batch is not None:
            kinds_bs = self.batch.modality_bs
            both_b = (kinds_bs == TEXT).any(1) & (kinds_bs == IMAGE).any(1)
            self.alone_members = [b for b, is_pair in enumerate(both_b.tolist()) if is_pair]
        if self.alone_members:
            self.alone = mllm.prepare([Pair(self.rows[b].text, []) for b in self.alone_members])


class Readable(NamedTuple):
    """A row whose images could be opened."""

    row: Row
    images: list[DecodedImage]

    @property
    def pair(self) -> Pair:
        return Pair(self.row.text, [image.image for image in self.images])


def load_model(source: str, place: ModelLoading, *, layer: int, full: bool = False) -> Mllm:
    """The model where and how the options say."""
    return Mllm.load(source, layer=layer, full=full, **place.model_dump(include=set(ModelLoading.model_fields)))


def without_images(data: Data) -> Data:
    """The same rows as text alone."""
    table = as_table(data.rows)
    return data._replace(rows=table.with_images(np.full(len(table), -1)), text_only=True)


def check_images(mllm: Mllm, data: Data, advice: str) -> None:
    """Raises SaevxError, with the way out, where the data has images and the model reads text only."""
    if not mllm.multimodal and not data.text_only:
        raise SaevxError(f"{mllm.source} reads text only and {data.name} has images: {advice} leaves them out.")


def load_batch(mllm: Mllm, rows: Sequence[Row], save_image: SaveImage | None = None) -> list[LoadedBatch]:
    """Open the images and tokenise. A row that cannot be read, or that the model's processor refuses, is rejected.

    Args:
        save_image: called for every image of the rows that are not rejected; their pixels are then freed.

    Returns:
        one batch; several where the processor takes each of the rows, and not all of them together.
    """
    readable: list[Readable] = []
    rejected_rows: list[RejectedRow] = []
    for row in rows:
        try:
            readable.append(Readable(row, [open_image(path) for path in row.images]))
        except BadRow as error:
            rejected_rows.append(RejectedRow(row.index, row.sample_id, str(error)))
    parts = _prepare(mllm, readable, rejected_rows)
    batches = []
    for members, batch in parts:
        if save_image is not None:
            for row, images in members:
                for i, image in enumerate(images):
                    save_image(row, i, image)
        facts = [[ImageFacts(*image.image.size, image.sha256) for image in images] for _, images in members]
        batches.append(LoadedBatch([member.row for member in members], batch, facts, [], ends_batch=False))
    batches = batches or [LoadedBatch([], None, [], [])]
    batches[0].rejected_rows, batches[-1].ends_batch = rejected_rows, True
    return batches


def _prepare(
    mllm: Mllm, readable: list[Readable], rejected_rows: list[RejectedRow]
) -> list[tuple[list[Readable], Batch]]:
    """The rows and their batch; where the processor refuses it, without those that it refuses alone too, which are
    appended to `rejected_rows`; where it refuses that as well, one batch a row."""
    if not readable:
        return []
    try:
        return [(readable, mllm.prepare([readable_row.pair for readable_row in readable]))]
    except PairError:
        parts: list[tuple[list[Readable], Batch]] = []
        for readable_row in readable:
            try:
                parts.append(([readable_row], mllm.prepare([readable_row.pair])))
            except PairError as error:
                rejected_rows.append(RejectedRow(readable_row.row.index, readable_row.row.sample_id, error.reason))
    rows = [members[0] for members, _ in parts]
    try:
        return [(rows, mllm.prepare([readable_row.pair for readable_row in rows]))] if rows else []
    except PairError:
        return parts


def load_batches(mllm: Mllm, batches: Iterable[Sequence[Row]]) -> Iterator[LoadedBatch]:
    """The batches in order, decoded by a thread of their own while the model computes."""
    for parts in prefetch(lambda rows: load_batch(mllm, rows), batches):
        yield from parts


def prefetch(work: Callable[[Item], Result], items: Iterable[Item], *, wait: bool = False) -> Generator[Result]:
    """`work(item)` of every item in order, up to PREFETCH of them done in a thread before they are needed.

    Args:
        wait: when this is closed early, wait until the item in work is done.
    """
    futures: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="decode-ahead")
    try:
        for item in items:
            raise_lost()
            futures.append(pool.submit(work, item))
            if len(futures) > PREFETCH:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        # Without `wait` it is not waited for: the garbage collector may close this in that very thread.
        pool.shutdown(wait=wait, cancel_futures=True)


@contextmanager
def write_in_background(threaded: bool) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Yields a function that does one piece of work after the other in a thread of its own, or at once where not
    `threaded`. An error of a piece is raised by the next call, or at the end; all work is done at the end."""
    if not threaded:
        yield lambda work: work()
        return
    last: Future[None] | None = None

    def do(work: Callable[[], None]) -> None:
        nonlocal last
        if last is not None:
            last.result()
        last = pool.submit(work)

    with ThreadPoolExecutor(1, thread_name_prefix="write-behind") as pool:
        yield do
        if last is not None:
            last.result()
