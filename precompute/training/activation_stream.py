"""Activations for training: streamed from the model, shuffled, and what each batch tells about the SAE."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute.data.batches import Plan
from precompute.data.records import Data, Row
from precompute.model.batch import IMAGE
from precompute.model.calibration import MODALITIES, mark_sinks, token_norms
from precompute.model.loader import LoadedBatch, load_batch, prefetch
from precompute.model.mllm import Mllm
from precompute.sae.reconstruction import WHICH, QualitySums
from precompute.utils.tensors import on_float64_device


class Stream:
    """Batches of activations, epoch after epoch, from a shuffle buffer without special tokens and sinks.

    The buffer is filled by forward passes, shuffled whole and served to its last full batch; what is left begins the
    next fill. So a fill follows from where in the data it began, what was left over, and its number: a checkpoint keeps
    these, and resuming repeats the fill's forward passes, where the buffer itself would take gigabytes.
    """

    def __init__(
        self,
        mllm: Mllm,
        data_and_plan: tuple[Data, Plan],
        sink: tuple[float, float],
        *,
        size: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.mllm, (self.data, self.plan), self.sink = mllm, data_and_plan, sink
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rejected_rows: dict[int, str] = {}
        # Where the next fill begins: epoch and place in its order of batches.
        self.epoch = self.at = self.number = 0
        self.hidden_td = torch.zeros(0, mllm.d_model, dtype=mllm.dtype)
        self.modality_t: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.n_served = 0
        self.source: Iterator[list[LoadedBatch]] | None = None
        self.began: dict[str, Any] = {}

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Tensor, NDArray[np.uint8]]:
        """h [t, d] float32 and the tokens' modality [t]."""
        if (self.n_served + 1) * self.batch_size > len(self.modality_t):
            left = slice(self.n_served * self.batch_size, None)
            self.fill(self.hidden_td[left], self.modality_t[left])
        rows = slice(self.n_served * self.batch_size, (self.n_served + 1) * self.batch_size)
        self.n_served += 1
        return self.hidden_td[rows].float(), self.modality_t[rows]

    def fill(self, left_td: Tensor, left_t: NDArray[np.uint8]) -> None:
        """Run the model until the buffer is full, and shuffle it."""
        self.began = {
            "epoch": self.epoch,
            "at": self.at,
            "number": self.number,
            "left_td": left_td.cpu().clone(),
            "left_t": torch.from_numpy(left_t.copy()),
        }
        if self.source is None:
            self.source = prefetch(
                partial(load_batch, self.mllm), batches(self.data.rows, self.plan, self.seed, self.epoch, self.at)
            )
        parts_td, parts_t, n = [left_td], [left_t], len(left_t)
        while n < self.size:  # the calibration has found a token in this data, so this ends
            for loaded_batch in next(self.source):
                self.rejected_rows |= {r.index: r.reason for r in loaded_batch.rejected_rows}
                if loaded_batch.batch is None:
                    continue
                hidden_bsd = self.mllm.hidden(loaded_batch.batch)
                norm_bs = token_norms(hidden_bsd)
                kind_bs = mark_sinks(loaded_batch.batch.modality_bs, norm_bs, self.sink)
                keep_bs = (kind_bs <= IMAGE) & np.isfinite(norm_bs)
                parts_td.append(hidden_bsd[torch.from_numpy(keep_bs).to(hidden_bsd.device)])
                parts_t.append(kind_bs[keep_bs])
                n += len(parts_t[-1])
            self.at += 1
            if self.at == len(self.plan.batches):
                self.epoch, self.at = self.epoch + 1, 0
        # Seeded by its number, so that no generator's state need be kept.
        order = np.random.default_rng([self.seed, self.number]).permutation(n)
        self.number += 1
        device = parts_td[-1].device
        hidden_td = torch.cat([part.to(device) for part in parts_td])
        self.hidden_td = hidden_td[torch.from_numpy(order).to(device)]
        self.modality_t = np.concatenate(parts_t)[order]
        self.n_served = 0

    def state(self) -> dict[str, Any]:
        """What `restore` goes on from."""
        return {**self.began, "served": self.n_served, "set_aside": self.rejected_rows}

    def restore(self, state: dict[str, Any]) -> None:
        """Repeat the fill during which `state` was taken, and pass over what it had served."""
        self.epoch, self.at, self.number = (int(state[name]) for name in ("epoch", "at", "number"))
        self.rejected_rows = dict(state["set_aside"])
        self.source = None
        self.fill(state["left_td"].to(self.mllm.device), state["left_t"].numpy())
        self.n_served = int(state["served"])


def batches(rows: Sequence[Row], plan: Plan, seed: int, epoch: int, at: int) -> Iterator[list[Row]]:
    """The plan's batches for ever, each epoch in an order of its own, from place `at` of `epoch` on."""
    while True:
        order = np.random.default_rng([seed, 1 << 32, epoch]).permutation(len(plan.batches))
        for i in order[at:].tolist():
            yield [rows[row] for row in plan.batches[i]]
        epoch, at = epoch + 1, 0


class Meter:
    """FVU and L0 since the last `take`, and dead features, per modality and of both together."""

    def __init__(self, n_features: int, d_model: int) -> None:
        self.sums = QualitySums.zeros(d_model)
        self.fired_mf = torch.zeros(2, n_features, dtype=torch.int64)
        """int64 [2, F]: the last step at which a feature fired on that modality; 0: never."""

    @torch.no_grad()
    def update(self, output: Any, modality_t: NDArray[np.uint8], step: int) -> None:
        """Count SAELens' TrainStepOutput of a batch."""
        h_td, acts_tf = on_float64_device(output.sae_in.detach()).double(), output.feature_acts.detach()
        active_tf = (acts_tf.to_dense() if acts_tf.is_sparse else acts_tf) > 0
        error_t = (h_td - on_float64_device(output.sae_out.detach())).square().sum(-1)
        for m in MODALITIES.values():
            at = torch.from_numpy(np.flatnonzero(modality_t == m)).to(h_td.device)
            if len(at):
                self.sums.update(m, int(active_tf[at].sum()), float(error_t[at].sum()), h_td[at].cpu().numpy())
                self.fired_mf[m, active_tf[at].any(0).cpu()] = step

    def take(self, step: int, window: int) -> dict[str, Any]:
        """The figures since the last call; the sums then start at 0.

        A feature that has not fired in the last `window` steps is dead.
        """
        dead_mf = (self.fired_mf <= max(0, step - window)).numpy()
        n_dead = {name: int(dead_mf[modalities].all(0).sum()) for name, modalities in WHICH.items()}
        figures = self.sums.figures()
        self.sums = QualitySums.zeros(self.sums.total_md.shape[1])
        return {**figures, "dead": n_dead}

    def state(self) -> dict[str, Tensor]:
        """What `restore` continues from."""
        sums = {name: torch.from_numpy(array) for name, array in vars(self.sums).items()}
        return {**sums, "fired_mf": self.fired_mf}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continue from what `state` returned."""
        self.sums = QualitySums(**{name: state[name].numpy() for name in vars(self.sums)})
        self.fired_mf = state["fired_mf"]


def finite(value: float) -> float | None:
    """None for what JSON has no number for: a diverged run is logged too."""
    return value if math.isfinite(value) else None
