"""What a pass must know before it begins, measured on its first samples: the norm ‖h‖ above which a token is an
attention sink, and the mean norm of the other tokens (METHOD, *Notation*)."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.data.batches import CALIBRATION_SAMPLES, Plan
from precompute.data.records import Data, RejectedRow
from precompute.data.rejections import all_rejected_message
from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, SINK, TEXT
from precompute.model.loader import LoadedBatch, load_batches
from precompute.model.mllm import Mllm
from precompute.utils.tensors import on_float64_device
from precompute.utils.types import Array

MODALITIES = {"text": TEXT, "image": IMAGE}


class Calibration(NamedTuple):
    """What the first 64 planned samples say about ‖h‖."""

    multiple: float | None
    """Of the median norm of a modality, above which a token is a sink; None: there are no sinks."""
    median_norm: dict[str, float | None]
    """Median ‖h‖ of the finite text and image tokens, rounded to float32; None without a token."""
    counted: list[Tensor]
    """float32 [t, d] h of the finite text tokens, then of the image tokens, that are no sinks."""
    n_samples: int

    @property
    def sink_norm(self) -> tuple[float, float]:
        return sink_limits(self.multiple, self.median_norm)


def sink_limits(multiple: float | None, median_norm: dict[str, float | None]) -> tuple[float, float]:
    """‖h‖ of a text and of an image token above which it is an attention sink; inf where none is."""
    text, image = (median_norm[name] for name in MODALITIES)
    return _limit(multiple, text), _limit(multiple, image)


def _limit(multiple: float | None, median: float | None) -> float:
    return float("inf") if multiple is None or median is None else float(multiple * median)


def median_norm(hidden_td: Tensor) -> float | None:
    """Median ‖h‖ of the finite tokens of h [t, d]; None without one."""
    norm_t = hidden_td.norm(dim=-1)
    finite_t = norm_t[torch.isfinite(norm_t)]
    return float(np.median(finite_t.cpu().numpy())) if len(finite_t) else None


def mark_sinks(modality: Array, norm: Array, sink_norm: tuple[float, float]) -> Array:
    """uint8, of the shape of both: the modality, or SINK for tokens whose norm is above their modality's limit."""
    kind = modality.copy()
    for m in (TEXT, IMAGE):
        kind[(modality == m) & (norm > sink_norm[m])] = SINK
    return kind


def token_norms(hidden: Tensor) -> Array:
    """float64 ‖h‖ of h [..., d]."""
    norm = torch.linalg.vector_norm(on_float64_device(hidden.float()), dim=-1, dtype=torch.float64)
    return np.asarray(norm.cpu())


def calibrate(
    batches: Iterable[LoadedBatch], hidden_of: Callable[[LoadedBatch], Tensor], multiple: float | None, layer: int
) -> Calibration:
    """The calibration from the first samples of `batches`; no more batches are taken than it needs.

    Args:
        hidden_of: h [b, s, d] of a batch. layer: L, for the message.

    Raises:
        SaevxError: no sample can be used, or h is finite for none of their tokens.
    """
    hidden_m: dict[int, list[Tensor]] = {TEXT: [], IMAGE: []}
    rejected_rows: list[RejectedRow] = []
    n_samples = 0
    for batch in batches:
        rejected_rows += batch.rejected_rows
        if batch.batch is None:
            continue
        hidden_bsd = hidden_of(batch)[: CALIBRATION_SAMPLES - n_samples]
        for modality, parts in hidden_m.items():
            mask_bs = torch.from_numpy(batch.batch.modality_bs[: len(hidden_bsd)] == modality)
            parts.append(hidden_bsd[mask_bs.to(hidden_bsd.device)].float())
        n_samples += len(batch.rows)
        if n_samples >= CALIBRATION_SAMPLES:
            break
    if not n_samples:
        raise SaevxError(all_rejected_message("No sample could be used", rejected_rows))
    median: dict[str, float | None] = {}
    hidden_parts: list[Tensor] = []
    n_tokens = 0
    for name, modality in MODALITIES.items():
        hidden_td = torch.cat(hidden_m[modality])
        n_tokens += len(hidden_td)
        median[name] = median_norm(hidden_td)
        keep_t = torch.isfinite(hidden_td).all(dim=-1) & (hidden_td.norm(dim=-1) <= _limit(multiple, median[name]))
        hidden_parts.append(hidden_td[keep_t])
    if n_tokens and set(median.values()) == {None}:
        raise SaevxError(no_finite(layer))
    return Calibration(multiple, median, hidden_parts, n_samples)


def calibrate_data(mllm: Mllm, data: Data, plan: Plan, multiple: float | None) -> Calibration:
    """`calibrate` with the first planned samples of the data. Their forward passes are done again later: they are few.

    Raises:
        SaevxError: as `calibrate`; the samples have no token that is counted.
    """
    batches = load_batches(mllm, ([data.rows[at] for at in batch] for batch in plan.batches))

    def hidden_of(batch: LoadedBatch) -> Tensor:
        assert batch.batch is not None
        return mllm.hidden(batch.batch)

    calibration = calibrate(batches, hidden_of, multiple, mllm.layer)
    if not any(map(len, calibration.counted)):
        raise SaevxError(f"{data.name} gives no text or image token to work on.")
    return calibration


def average_factor(hidden: Sequence[Tensor]) -> float:
    """√d / mean‖h‖ over all tokens of several h [t, d]: the factor that makes the mean norm √d.

    Raises:
        SaevxError: there is no token, or all are zero.
    """
    parts = (on_float64_device(hidden_td.float()) for hidden_td in hidden)
    norm_t = torch.cat([part_td.norm(dim=-1, dtype=torch.float64) for part_td in parts]).cpu()
    total = float(norm_t.sum())
    if total <= 0:
        raise SaevxError("The SAE's input factor cannot be estimated: no token of the first samples has a norm.")
    return hidden[0].shape[-1] ** 0.5 * len(norm_t) / total


def no_finite(layer: int) -> str:
    """A sentence for a model that gives no token a finite residual stream."""
    return (
        f"The model's residual stream behind layer {layer} is finite for no token: its weights are damaged, or too "
        "large for the number type; download it again, or choose --dtype float32."
    )
