"""What the log-probability of a caption's word owes to the features of the patches: activation times gradient."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from precompute.live.attribution import logits_and_hidden, slopes
from precompute.model.batch import IMAGE, TEXT, Batch
from precompute.model.mllm import Mllm
from precompute.sae.encode import EncodedBatch, Scale
from precompute.sae.sae import SaeV
from precompute.utils.types import Array


def attributions(
    sae: SaeV,
    batch: Batch,
    encoded_batch: EncodedBatch,
    logprobs: tuple[Tensor, Tensor],
    word_masks: Sequence[Array],
    scale: Scale,
) -> list[Array]:
    """Σ_p Σ_k z_pk · d_k·∂ log p(token) / ∂h_p over a pair's patches: of the features that are active on the token
    itself, and of all. float64 [t, 2] for each pair, NaN for tokens that are not wanted.

    Args:
        encoded_batch: the batch encoded. logprobs: of `token_logprobs`. word_masks: of each pair, bool [t] over its
            text tokens.
    """
    logprob_bs, hidden_bsd = logprobs
    text = [np.flatnonzero(modality_s == TEXT) for modality_s in batch.modality_bs]
    columns = [at[mask & (at > 0)] for at, mask in zip(text, word_masks, strict=True)]
    result = [np.full((len(at), 2), np.nan) for at in text]
    events = [patch_events(encoded_batch, batch, b, scale) for b in range(len(text))]
    directions_fd = sae.directions_fd.detach().float().cpu()
    for j in range(max((len(at) for at in columns), default=0)):
        rows = [b for b, at in enumerate(columns) if j < len(at)]
        # Pairs of a batch do not see each other: one backward pass does for a token of each.
        total = torch.stack([logprob_bs[b, int(columns[b][j])] for b in rows]).sum()
        (gradient_bsd,) = torch.autograd.grad(total, hidden_bsd, retain_graph=True)
        for b in rows:
            position_e, feature_e, z_e = events[b]
            at_e = torch.from_numpy(position_e), torch.from_numpy(feature_e)
            owed_e = z_e * slopes(gradient_bsd[b].float().cpu(), directions_fd, *at_e).double().numpy()
            own_e = np.isin(feature_e, token_features(encoded_batch, b, int(columns[b][j])))
            result[b][np.searchsorted(text[b], columns[b][j])] = owed_e[own_e].sum(), owed_e.sum()
    return result


def token_logprobs(mllm: Mllm, batch: Batch) -> tuple[Tensor, Tensor]:
    """(log p of each token given those before it [b, s], 0 before any text; h after layer L [b, s, d], on which they
    depend)."""
    text_s = (batch.modality_bs == TEXT).any(0)
    first, n = max(1, int(np.argmax(text_s))), len(text_s)
    logits_bsv, hidden_bsd = logits_and_hidden(mllm, batch, n - first + 1)
    logits_bsv = logits_bsv[:, :-1].float()
    chosen_bs = logits_bsv.gather(2, batch.inputs["input_ids"][:, first:, None]).squeeze(2)
    return torch.nn.functional.pad(chosen_bs - logits_bsv.logsumexp(2), (first, 0)), hidden_bsd


def patch_events(encoded_batch: EncodedBatch, batch: Batch, b: int, scale: Scale) -> tuple[Array, Array, Array]:
    """(position in the pair int64, feature int64, z float64) of what fires on the patches of pair b, each [e]."""
    t, e = encoded_batch.slices(b)
    position_e = np.repeat(np.arange(t.stop - t.start), np.diff(encoded_batch.offset_t[t.start : t.stop + 1]))
    on_patch = batch.modality_bs[b][position_e] == IMAGE
    z_e = encoded_batch.value_e[e].astype(np.float64) * 2.0**-scale.log2
    return position_e[on_patch], encoded_batch.feature_e[e][on_patch], z_e[on_patch]


def token_features(encoded_batch: EncodedBatch, b: int, position: int) -> Array:
    """Features that are active on a token of pair b, int64."""
    t = int(encoded_batch.start_b[b]) + position
    return encoded_batch.feature_e[encoded_batch.offset_t[t] : encoded_batch.offset_t[t + 1]]


WAYS = {
    "own-mean": "mean over the words, features of the word's own token",
    "own-min": "smallest of the words, features of the word's own token",
    "all-mean": "mean over the words, all features of the patches",
    "all-min": "smallest of the words, all features of the patches",
}


def scores(attribution_t2: Array) -> dict[str, float]:
    """Of a caption, by WAYS; 0 without any word. Args: float64 [t, 2], NaN where not wanted."""
    owed_t2 = attribution_t2[~np.isnan(attribution_t2[:, 0])]
    if not len(owed_t2):
        return dict.fromkeys(WAYS, 0.0)
    return {
        f"{name}-{how}": float(reduce(owed_t2[:, i]))
        for i, name in enumerate(("own", "all"))
        for how, reduce in (("mean", np.mean), ("min", np.min))
    }
