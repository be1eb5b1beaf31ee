"""What a token of an answer owes to the features at layer L (METHOD, *Why this answer*): activation × gradient.

The quantity is the token's log-odds, a logit difference: its logit less the log-sum-exp of all others. Unlike the
log-probability it has a gradient where the model is sure.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.live.answers import Change, log_odds, with_answer
from precompute.model.batch import IMAGE, SPECIAL, TEXT, Batch
from precompute.model.calibration import mark_sinks, token_norms
from precompute.model.forward_errors import forward_errors
from precompute.model.hooks import replace
from precompute.model.mllm import Mllm
from precompute.sae.encode import Scale, sparse_features
from precompute.sae.sae import SaeV
from precompute.utils.tensors import on_float64_device
from precompute.utils.types import Array

SIDES = ("text", "image", "answer")
"""Kinds of tokens by number: the prompt's own text, patches, and the answer before the token, which begins with the
last position of the prompt where that belongs to the template."""
ANSWER, REST = 2, 3
CHUNK_ELEMENTS = 1 << 24
"""Largest gradient [events, d] in memory at a time: 64 MB of float32."""


class Attribution(NamedTuple):
    """The log-odds of a token, to the first order, as a sum over what h after layer L consists of; e events, s
    positions. Parts are in nats."""

    log_odds: float
    """log p − log (1 − p) of the token."""
    side_s: Array
    """int64: index in SIDES, or REST for special tokens and attention sinks."""
    image_s: Array
    """bool: patches, sinks among them."""
    position_e: Array
    """int64."""
    feature_e: Array
    """int64."""
    z_e: Array
    """float32."""
    part_e: Array
    """float64: z · d_k·gradient."""
    error_g: Array
    """float64 [3], by SIDES: (h − ĥ)·gradient."""
    bias_g: Array
    """float64 [3]: of what the SAE adds whatever is active, decode(0)."""
    rest: float
    """h·gradient of special tokens and sinks, which are not divided."""
    total: float
    """Σ h·gradient over all positions, for the check."""

    @property
    def gap(self) -> float:
        """What the parts miss of the total, as a share of their absolute sum: rounding."""
        parts = (self.part_e.sum(), self.error_g.sum(), self.bias_g.sum(), self.rest)
        size = np.abs(self.part_e).sum() + sum(abs(part) for part in parts[1:])
        return float(abs(sum(parts) - self.total) / max(size, 1e-12))

    def by_feature(self) -> tuple[Array, Array]:
        """(features int64 [n], the largest part first; their parts by SIDES, float64 [n, 3])."""
        feature_n, index_e = np.unique(self.feature_e, return_inverse=True)
        part_n3 = np.zeros((len(feature_n), 3))
        np.add.at(part_n3, (index_e, self.side_s[self.position_e]), self.part_e)
        order = np.argsort(-part_n3.sum(1), kind="stable")
        return feature_n[order], part_n3[order]


def attribute(
    mllm: Mllm, sae: SaeV, batch: Batch, ids: Sequence[int], scale: Scale, change: Change | None = None
) -> Attribution:
    """Of the last token of `ids`, given the prompt, a batch of one, and the tokens before it.

    Args:
        change: acts on h before it is divided, as in a steered run.
    """
    full_batch, n_prompt = with_answer(batch, ids[:-1]), batch.modality_bs.shape[1]
    logits_bsv, leaf_bsd = logits_and_hidden(mllm, full_batch, 1, change)
    value = log_odds(logits_bsv[0], ids[-1:])[0]
    (gradient_bsd,) = torch.autograd.grad(value, leaf_bsd)
    hidden_sd, gradient_sd = leaf_bsd[0].detach(), gradient_bsd[0].float()
    side_s = sides(full_batch, hidden_sd, n_prompt, scale)
    attribution = divide(sae, hidden_sd, gradient_sd, side_s, scale)
    return attribution._replace(log_odds=float(value.detach()), image_s=full_batch.modality_bs[0] == IMAGE)


def sides(full_batch: Batch, hidden_sd: Tensor, n_prompt: int, scale: Scale) -> Array:
    """int64 [s]: `side_s` of an Attribution.

    Args:
        hidden_sd: h. n_prompt: positions before the answer.
    """
    modality_s = np.array(full_batch.modality_bs[0])
    begin = n_prompt - int(modality_s[n_prompt - 1] == SPECIAL)
    modality_s[begin:] = TEXT
    modality_s = mark_sinks(modality_s, token_norms(hidden_sd), scale.sink_norm)
    side_s = np.where(modality_s <= IMAGE, modality_s, REST).astype(np.int64)
    side_s[begin:][side_s[begin:] == TEXT] = ANSWER
    return side_s


@torch.no_grad()
def divide(sae: SaeV, hidden_sd: Tensor, gradient_sd: Tensor, side_s: Array, scale: Scale) -> Attribution:
    """The parts of h·gradient; `log_odds` and `image_s` are still open."""
    rows = np.flatnonzero(side_s != REST)
    at = torch.from_numpy(rows).to(hidden_sd.device)
    hidden_td, gradient_td = hidden_sd[at].float(), gradient_sd[at].to(sae.device)
    events = sparse_features(sae, hidden_td, scale)
    offset_t = torch.nn.functional.pad(events.count_t.cumsum(0), (1, 0))
    token_e = torch.repeat_interleave(torch.arange(len(rows), device=sae.device), events.count_t)
    slope_e = slopes(gradient_td, sae.directions_fd, token_e, events.feature_e)
    stretch_t1 = sae.token_scale(hidden_td)
    if stretch_t1 is not None:
        slope_e = slope_e * stretch_t1[:, 0][token_e]
    part_e = (on_float64_device(events.z_e).double() * on_float64_device(slope_e).double()).cpu().numpy()
    rebuilt_td = sae.reconstruct(offset_t, events.feature_e, events.z_e, hidden_td)
    no_events = events.feature_e[:0], events.z_e[:0]
    bias_td = sae.reconstruct(torch.zeros_like(offset_t), *no_events, hidden_td)
    gradient_td = on_float64_device(gradient_td).double()
    error_g, bias_g = (
        np.bincount(side_s[rows], (on_float64_device(one_td).double() * gradient_td).sum(1).cpu().numpy(), len(SIDES))
        for one_td in (hidden_td.to(sae.device) - rebuilt_td, bias_td)
    )
    dot_s = (on_float64_device(hidden_sd).double() * on_float64_device(gradient_sd).double()).sum(1).cpu().numpy()
    return Attribution(
        0.0, side_s, side_s[:0] > 0, rows[token_e.cpu().numpy()], events.feature_e.cpu().numpy(),
        events.z_e.cpu().numpy(), part_e, error_g, bias_g, float(dot_s[side_s == REST].sum()), float(dot_s.sum()),
    )  # fmt: skip


def slopes(gradient_td: Tensor, directions_fd: Tensor, token_e: Tensor, feature_e: Tensor) -> Tensor:
    """float32 [e]: d_k·gradient of each event, for tokens [t, d] and directions [F, d]."""
    step = max(1, CHUNK_ELEMENTS // gradient_td.shape[1])
    pieces = [
        (gradient_td[tokens] * directions_fd[features].float()).sum(1)
        for tokens, features in zip(token_e.split(step), feature_e.split(step), strict=True)
    ]
    return torch.cat(pieces) if pieces else gradient_td.new_zeros(0)


def logits_and_hidden(
    mllm: Mllm, batch: Batch, keep: int, change: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """(logits of the last `keep` positions [b, keep, V], h after layer L [b, s, d], on which alone they depend)."""
    mllm.model.requires_grad_(False)  # gradients are taken of h alone
    leaves: list[Tensor] = []

    def take(h_bsd: Tensor) -> Tensor:
        with torch.no_grad():
            h_bsd = h_bsd if change is None else change(h_bsd)
        leaves.append(h_bsd.detach().requires_grad_())
        return leaves[0]

    keep_at = mllm.last_positions(batch.modality_bs.shape[1], keep)
    with forward_errors(), torch.enable_grad(), replace(mllm.decoder_layer(), mllm.layer, take):
        # The vocabulary is large: logits are computed where they are needed.
        output = mllm.model(**mllm.causal_inputs(batch), use_cache=False, logits_to_keep=keep_at)
    return output.logits[:, -keep:], leaves[0]
