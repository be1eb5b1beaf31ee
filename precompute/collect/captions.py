"""What `--nll` measures: the cross-entropy of each caption beside its image and by itself. Of a few images another's
caption is read too, for the calibration of the scores that rest on it."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL.Image import Image
from torch import Tensor

from precompute.data.batches import Plan
from precompute.data.records import Data, Row
from precompute.errors import PairError
from precompute.model.batch import Pair
from precompute.model.loader import LoadedBatch
from precompute.model.mllm import Mllm
from precompute.utils.ragged import find
from precompute.utils.stats import derangement
from precompute.utils.types import Array

N_EXCHANGED = 64
"""Images beside which another's caption is read."""


def exchanged_captions(data: Data, plan: Plan, seed: int) -> dict[int, Row]:
    """Of the pairs with the smallest hashes, by index: the one whose caption is read beside their image."""
    rows = [row for row in (data.rows[i] for i in plan.ds) if row.images and row.text.strip()][:N_EXCHANGED]
    if len(rows) < 2:
        return {}
    order = derangement(len(rows), np.random.default_rng([seed, 15]))
    pairs = ((row, rows[i]) for row, i in zip(rows, order.tolist(), strict=True))
    return {row.index: other_row for row, other_row in pairs if row.text.strip() != other_row.text.strip()}


def prepare(
    mllm: Mllm, batches: Sequence[LoadedBatch], images: Mapping[int, list[Image]], row_of: Mapping[int, Row]
) -> None:
    """Tokenise what `measure` needs beside the pairs themselves.

    Args:
        images: those of the pairs in `row_of`, by the pair's index.
    """
    for batch in batches:
        batch.prepare_alone(mllm)
        for b, row in enumerate(batch.rows):
            if row.index not in row_of:
                continue
            other_row = row_of[row.index]
            try:
                batch.exchanged[b] = other_row.index, mllm.prepare([Pair(other_row.text, images[row.index])])
            except PairError:  # together they are too long
                continue


def measure(mllm: Mllm, loaded_batch: LoadedBatch) -> Tensor:
    """h [b, s, d] of the batch in the model's dtype; `nll_b3` is set."""
    assert loaded_batch.batch is not None
    nll_b3 = np.full((len(loaded_batch.rows), 3), np.nan)
    hidden_bsd, nll_b3[:, 0] = mllm.hidden_and_nll(loaded_batch.batch, quick=True)
    if loaded_batch.alone is not None:
        members = loaded_batch.alone_members
        loaded_batch.alone_hidden, nll_b3[members, 1] = mllm.hidden_and_nll(loaded_batch.alone, quick=True)
    for b, (_, batch) in loaded_batch.exchanged.items():
        nll_b3[b, 2] = mllm.hidden_and_nll(batch, quick=True)[1][0]
    loaded_batch.nll_b3 = nll_b3
    return hidden_bsd


def row_of(index: Array, index_n: Array) -> Array:
    """int64: the rows of these indices of the data among those [N] of the store, −1 where there is none."""
    row, is_there = find(index_n, index)
    return np.where(is_there, row, -1)
