"""Data into a model without making a store: what training and evaluation share.

Which rows can be run, and in which batches, is settled as for the pass (plan.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from precompute.data import BadRow, Data, Picture, RejectedRow, Row, none_left, open_picture
from precompute.data.batches import PRELUDE, Plan
from precompute.errors import PairError, SaevxError
from precompute.model.mllm import IMAGE, SINK, TEXT, Batch, Mllm, Pair
from precompute.options.shared import ModelLoading
from precompute.utils.tensors import exact
from precompute.utils.types import Array

Item = TypeVar("Item")
Made = TypeVar("Made")
AHEAD = 2
"""Batches decoded ahead of the model."""


class Norms(NamedTuple):
    """What the first 64 planned samples tell of ‖h‖."""

    sink: tuple[float, float]
    """‖h‖ of a text and of an image token above which it is an attention sink; inf keeps all."""
    mean: float
    """Mean ‖h‖ of the tokens that are counted."""


def load_model(source: str, place: ModelLoading, *, layer: int, full: bool = False) -> Mllm:
    """The model where and how the options say."""
    return Mllm.load(source, layer=layer, full=full, **place.model_dump(include=set(ModelLoading.model_fields)))


def without_pictures(data: Data) -> Data:
    """The same rows as text alone."""
    return data._replace(rows=[replace(row, images=()) for row in data.rows], text_only=True)


def check_images(mllm: Mllm, data: Data, advice: str) -> None:
    """Raises SaevxError, with the way out, where the data has images and the model reads text only."""
    if not mllm.multimodal and not data.text_only:
        raise SaevxError(f"{mllm.source} reads text only and {data.name} has images: {advice} leaves them out.")


class Decoded(NamedTuple):
    """A batch that came through decoding, and what did not."""

    rows: list[Row]
    batch: Batch | None
    """None when every row was set aside."""
    pictures: list[list[Picture]]
    """Of each row, until they are let go of."""
    rejected_rows: list[RejectedRow]


def decode(mllm: Mllm, rows: Sequence[Row]) -> list[Decoded]:
    """Open the images and tokenise; whatever cannot be read, or the model's processor refuses, is set aside.

    Returns:
        one batch; several where the processor takes each of the rows, and not all of them together.
    """
    kept: list[Row] = []
    pictures: list[list[Picture]] = []
    rejected_rows: list[RejectedRow] = []
    for row in rows:
        try:
            pictures.append([open_picture(path) for path in row.images])
            kept.append(row)
        except BadRow as bad:
            rejected_rows.append(RejectedRow(row.index, row.sample_id, str(bad)))
    if not kept:
        return [Decoded([], None, [], rejected_rows)]
    pairs = [Pair(row.text, [one.image for one in seen]) for row, seen in zip(kept, pictures, strict=True)]
    try:
        return [Decoded(kept, mllm.prepare(pairs), pictures, rejected_rows)]
    except PairError:
        alone: list[Decoded] = []
        for row, pair, seen in zip(kept, pairs, pictures, strict=True):
            try:
                alone.append(Decoded([row], mllm.prepare([pair]), [seen], []))
            except PairError as error:
                rejected_rows.append(RejectedRow(row.index, row.sample_id, error.reason))
    if not alone:
        return [Decoded([], None, [], rejected_rows)]
    good, images = [one.rows[0] for one in alone], [one.pictures[0] for one in alone]
    try:
        pairs = [Pair(row.text, [one.image for one in seen]) for row, seen in zip(good, images, strict=True)]
        return [Decoded(good, mllm.prepare(pairs), images, rejected_rows)]
    except PairError:
        alone[0] = alone[0]._replace(rejected_rows=rejected_rows)
        return alone


def load(mllm: Mllm, rows: Sequence[Row]) -> list[Decoded]:
    """`decode`, of which the images are let go."""
    return [one._replace(pictures=[]) for one in decode(mllm, rows)]


def feed(mllm: Mllm, batches: Iterable[Sequence[Row]]) -> Iterator[Decoded]:
    """The batches in order, decoded by a thread of their own while the model computes."""
    for parts in ahead(lambda rows: load(mllm, rows), batches):
        yield from parts


def ahead(work: Callable[[Item], Made], items: Iterable[Item], *, wait: bool = False) -> Generator[Made]:
    """`work(item)` of every item in order, up to AHEAD of them done before they are asked for.

    Args:
        wait: whoever closes this early wants the item that is being worked on to be done with.
    """
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="decode-ahead")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # Not waited for, unless asked to: whoever drops this early may be that very thread, collecting garbage.
        pool.shutdown(wait=wait, cancel_futures=True)


@contextmanager
def behind(apart: bool) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Gives a function that does work one piece after the other in a thread of its own, or at once where not `apart`.
    What fails there is raised by the next call, or at the end; all work is done with when this is left."""
    if not apart:
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


def norms(hidden_bsd: Tensor) -> Array:
    """float64 ‖h‖ [b, s]."""
    found: Array = torch.linalg.vector_norm(exact(hidden_bsd.float()), dim=-1, dtype=torch.float64).cpu().numpy()
    return found


def with_sinks(modality_bs: Array, norm_bs: Array, sink: tuple[float, float]) -> Array:
    """uint8 [b, s]: the modality, or SINK for tokens whose norm is above their modality's limit."""
    kind_bs = modality_bs.copy()
    for modality in (TEXT, IMAGE):
        kind_bs[(modality_bs == modality) & (norm_bs > sink[modality])] = SINK
    return kind_bs


def prelude(mllm: Mllm, data: Data, plan: Plan, multiple: float | None) -> Norms:
    """Norms over the first planned samples, as the pass takes them. Their forward passes are done again later:
    they are few.

    Args:
        multiple: of the median norm of a modality, above which a token is a sink; None: there are none.
    """
    found: dict[int, list[Array]] = {TEXT: [], IMAGE: []}
    left, n_tokens = PRELUDE, 0
    reasons: list[RejectedRow] = []
    for one in feed(mllm, ([data.rows[at] for at in batch] for batch in plan.batches)):
        reasons += one.rejected_rows
        if one.batch is None:
            continue
        norm_bs, modality_bs = norms(mllm.hidden(one.batch)[:left]), one.batch.modality_bs[:left]
        n_tokens += int((modality_bs <= IMAGE).sum())
        for modality, parts in found.items():
            parts.append(norm_bs[(modality_bs == modality) & np.isfinite(norm_bs)])
        left -= len(norm_bs)
        if left <= 0:
            break
    limits: list[float] = []
    counted: list[Array] = []
    for parts in found.values():
        norm_t = np.concatenate(parts) if parts else np.zeros(0)
        fixed = multiple is not None and len(norm_t) > 0
        # In float32, as the pass takes it, so that both call the same tokens sinks.
        median = float(np.median(norm_t.astype(np.float32))) if fixed else 0.0
        limits.append(float((multiple or 0.0) * median) if fixed else float("inf"))
        counted.append(norm_t[norm_t <= limits[-1]])
    norm_t = np.concatenate(counted)
    if not len(norm_t):
        if reasons:
            raise SaevxError(none_left(f"{data.name} gives no text or image token to work on", reasons))
        raise SaevxError(no_finite(mllm.layer) if n_tokens else f"{data.name} gives no text or image token to work on.")
    return Norms((limits[TEXT], limits[IMAGE]), float(norm_t.mean()))


def no_finite(layer: int) -> str:
    """A sentence for a model that gives no token a finite residual stream."""
    return (
        f"The model's residual stream behind layer {layer} is finite for no token: its weights are damaged, or too "
        "large for the number type; download it again, or choose --dtype float32."
    )
