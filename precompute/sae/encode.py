"""From a batch of pairs to its sparse features: the one path of the offline pass and of live requests."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.geometry import View
from precompute.model.batch import IMAGE, Batch
from precompute.model.calibration import mark_sinks, sink_limits, token_norms
from precompute.sae.sae import SaeV
from precompute.sae.sparse import sparse_encoder
from precompute.utils.ragged import offsets
from precompute.utils.tensors import nonzero_indices, on_float64_device
from precompute.utils.types import Array

CHUNK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 28}
"""Largest dense z [tokens, F] in memory at a time: 32 MB of float32, and 1 GB on a GPU. A GPU waits for Python after
each piece; with 32 MB and 262,144 features, thirty tokens a piece, that took 6 of the 16 seconds of `collect`."""

OVERFLOW = "an activation is too large for float16 at this store's scale"
NOT_FINITE = "the model's residual stream is not finite"
ERROR_NOT_FINITE = "the SAE's reconstruction of it is not finite"


class Scale(NamedTuple):
    """What the calibration fixed, for float16 storage and attention sinks. Stands in the manifest."""

    log2: int
    """Stored value = z · 2^log2."""
    sink_norm: tuple[float, float]
    """‖h‖ of a text and of an image token above which it is an attention sink; inf where none is."""

    @classmethod
    def from_manifest(cls, manifest: dict[str, Any]) -> Scale:
        sinks = manifest["sinks"]
        return cls(int(manifest["scale_log2"]), sink_limits(sinks["multiple"], sinks["median_norm"]))


class EncodedBatch(NamedTuple):
    """Pairs' tokens in order, without padding; t counts all tokens, e the events, b the pairs."""

    start_b: Array
    """int64 [b+1]: tokens of each pair."""
    token_id_t: Array
    """int32."""
    modality_t: Array
    """uint8: TEXT, IMAGE, SPECIAL or SINK."""
    offset_t: Array
    """int64 [t+1]: events of each token; SPECIAL and SINK have none."""
    feature_e: Array
    """int64, ascending inside a token."""
    value_e: Array
    """float16 in stored units, > 0."""
    norm_t: Array
    """float64 ‖h‖."""
    error_t: Array
    """float64 ‖h − ĥ‖² of the tokens counted, 0 elsewhere; zeros unless measured."""
    views: list[list[View]]
    reason_b: list[str | None]
    """Why a pair is rejected; None where it is not."""
    hidden_td: Tensor
    """h of all tokens in the model's dtype, on its device."""
    events: SparseFeatures
    """The events once more, where the SAE is, by the tokens that are counted."""

    def slices(self, b: int) -> tuple[slice, slice]:
        """Tokens and events of pair b."""
        t = slice(int(self.start_b[b]), int(self.start_b[b + 1]))
        return t, slice(int(self.offset_t[t.start]), int(self.offset_t[t.stop]))


class SparseFeatures(NamedTuple):
    """Features of tokens: CSR rows, where the SAE is."""

    count_t: Tensor
    """int64: events of each token."""
    feature_e: Tensor
    """int64, ascending inside a token."""
    z_e: Tensor
    """float32."""
    value_e: Tensor
    """float16 in stored units, > 0."""


@torch.inference_mode()
def sparse_features(sae: SaeV, hidden_td: Tensor, scale: Scale) -> SparseFeatures:
    """z > 0 of tokens [t, d], encoded in chunks so that dense z [t, F] never stands in memory.

    Args:
        hidden_td: tokens to encode.

    Returns:
        stored values are inf where they overflow, and never 0: what is active stays active.
    """
    if (encoder := sparse_encoder(sae)) is not None:
        count_t, feature_e, z_e = map(torch.from_numpy, encoder.encode(hidden_td))
        return SparseFeatures(count_t, feature_e, z_e, stored_values(z_e, scale))
    no_entries = torch.zeros(0, dtype=torch.long, device=sae.device)
    counts, features, values = [no_entries], [no_entries], [no_entries.float()]
    for part_td in chunks(sae, hidden_td):
        acts_tf = sae.encode(part_td)
        at_e = nonzero_indices((acts_tf > 0).flatten())
        token_e = at_e // acts_tf.shape[1]
        features.append(at_e - token_e * acts_tf.shape[1])
        counts.append(torch.bincount(token_e, minlength=len(part_td)))
        values.append(acts_tf.flatten()[at_e])
    z_e = torch.cat(values)
    return SparseFeatures(torch.cat(counts), torch.cat(features), z_e, stored_values(z_e, scale))


def stored_values(z_e: Tensor, scale: Scale) -> Tensor:
    """float16 [e] of z > 0, float32, in stored units: never 0, inf where they overflow."""
    return torch.ldexp(z_e, torch.tensor(scale.log2, device=z_e.device)).half().clamp_(min=2.0**-24)


@torch.inference_mode()
def largest_activation(sae: SaeV, hidden_td: Tensor) -> float:
    """The largest z of tokens [t, d]; 0 where nothing is active."""
    return max((float(sae.encode(part_td).max()) for part_td in chunks(sae, hidden_td)), default=0.0)


def chunks(sae: SaeV, hidden_td: Tensor) -> tuple[Tensor, ...]:
    """Tokens in the pieces that are encoded together."""
    return hidden_td.split(chunk_tokens(sae)) if len(hidden_td) else ()


def chunk_tokens(sae: SaeV) -> int:
    """How many tokens are encoded together."""
    return max(16, CHUNK_ELEMENTS.get(sae.device.type, CHUNK_ELEMENTS["cpu"]) // sae.n_features)


@torch.inference_mode()
def encode_batch(hidden_bsd: Tensor, batch: Batch, sae: SaeV, scale: Scale, *, errors: bool = False) -> EncodedBatch:
    """Sparse features of every counted token of a batch.

    Args:
        hidden_bsd: `Mllm.hidden(batch)`.
        errors: also measure ‖h − ĥ‖² per token.
    """
    length_b = batch.length_b
    start_b = offsets(length_b)
    real_bs = np.arange(batch.modality_bs.shape[1]) < length_b[:, None]
    hidden_td = hidden_bsd[torch.from_numpy(real_bs).to(hidden_bsd.device)]
    token_id_t = batch.inputs["input_ids"].cpu().numpy()[real_bs].astype(np.int32)
    norm_t = token_norms(hidden_td)
    modality_t = mark_sinks(batch.modality_bs[real_bs], norm_t, scale.sink_norm)

    at_tokens = np.flatnonzero(modality_t <= IMAGE)
    counted_td = hidden_td[torch.from_numpy(at_tokens).to(hidden_td.device)].float()
    events = sparse_features(sae, counted_td, scale)
    count_t = np.zeros(len(modality_t), dtype=np.int64)
    count_t[at_tokens] = events.count_t.cpu().numpy()
    offset_t = offsets(count_t)
    feature_e, value_e = events.feature_e.cpu().numpy(), events.value_e.cpu().numpy()

    error_t = np.zeros(len(modality_t))
    if errors and len(at_tokens):
        offset = torch.nn.functional.pad(events.count_t.cumsum(0), (1, 0))
        rebuilt_td = sae.reconstruct(offset, events.feature_e, events.z_e, counted_td)
        squared_td = (counted_td.to(sae.device) - rebuilt_td).square_()
        error_t[at_tokens] = on_float64_device(squared_td).sum(dim=-1, dtype=torch.float64).cpu().numpy()
    return EncodedBatch(
        start_b, token_id_t, modality_t, offset_t, feature_e, value_e, norm_t, error_t,
        batch.views, rejection_reasons(start_b, offset_t, norm_t, value_e, error_t), hidden_td, events,
    )  # fmt: skip


def rejection_reasons(
    start_b: Array, offset_t: Array, norm_t: Array, value_e: Array, error_t: Array
) -> list[str | None]:
    """Per pair, why it cannot be stored; None where it can."""
    reason_b: list[str | None] = [None] * (len(start_b) - 1)
    for cause, at_t in (
        (ERROR_NOT_FINITE, np.flatnonzero(~np.isfinite(error_t))),
        (OVERFLOW, np.searchsorted(offset_t, np.flatnonzero(np.isinf(value_e)), "right") - 1),
        (NOT_FINITE, np.flatnonzero(~np.isfinite(norm_t))),
    ):
        for b in np.unique(np.searchsorted(start_b, at_t, "right") - 1).tolist():
            reason_b[b] = cause
    return reason_b
