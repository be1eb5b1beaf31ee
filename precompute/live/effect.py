"""The measured effect of a feature (METHOD, *Measured effect*): what ablating it where it fires does to the next tokens
of a caption, beside a random feature's direction of the same length."""

from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.live.engine import Scale
from precompute.live.intervention import Intervention, Steer
from precompute.live.steer_rows import why_not_shared
from precompute.model.batch import IMAGE, TEXT, Batch, Pair
from precompute.model.forward_errors import forward_errors
from precompute.model.hooks import replace
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from precompute.utils.tensors import on_float64_device
from precompute.utils.types import Array

UNCHANGED, ABLATED, CONTROL = 0, 1, 2
"""Rows of the batch in which a pair runs."""
N_PAIRS = 12
"""Pairs in which a feature is measured."""
MAX_PLACES = 64
"""Places of one pair whose next token is read, the first ones."""


class Change(NamedTuple):
    """What an intervention does to the next token: means over places, V tokens in the vocabulary."""

    probability_v: Array
    """float64 [V]: change of probability."""
    logprob_v: Array
    """float64 [V]: change of log-probability, in nats."""
    kl: float
    """KL(unchanged ‖ changed) in nats."""


class Effect(NamedTuple):
    """The effect of one feature."""

    before_v: Array
    """float64 [V]: mean probability of each token, unchanged."""
    ablation: Change
    control: Change
    n_pairs: int
    """Pairs in which it fires at or before a place."""
    n_places: int


def measure_effect(
    mllm: Mllm,
    sae: SaeV,
    manifest: dict[str, Any],
    pairs: Iterable[Pair],
    features: tuple[int, int],
    *,
    share: bool | None = None,
) -> Effect | None:
    """What ablating a feature does to the next token, in the mean over all places of the pairs.

    A place predicts a token of the text, or what follows it, and does not lie before the first token on which the
    feature fires. None where there is no place.

    Args:
        manifest: of the store, for its attention sinks.
        features: the one to ablate, and one whose direction is the control.
        share: False runs all three rows through every layer; None computes the layers up to L once, where the model
            allows it.

    Raises:
        SaevxError: either has no direction; the model refuses a pair.
    """
    ablation = Ablation(sae, *features, Scale.from_manifest(manifest).sink_norm)
    copies = 1 if share is None and why_not_shared(mllm) is None else 3
    total: Tensor | None = None
    kl_r, n_pairs, n_places = np.zeros(3), 0, 0
    for pair in pairs:
        logprob_rnv = next_tokens(mllm, mllm.prepare([pair] * copies), ablation)
        if logprob_rnv is None or not (n := logprob_rnv.shape[1]):
            continue
        # A token that a model rules out has −∞ before and after.
        change_rnv = (logprob_rnv - logprob_rnv[UNCHANGED]).nan_to_num(0.0)
        probability_rnv = logprob_rnv.exp()
        kl_r -= (probability_rnv[UNCHANGED] * change_rnv).sum((1, 2), dtype=torch.float64).cpu().numpy()
        sums = torch.stack([values.sum(1, dtype=torch.float64) for values in (probability_rnv, change_rnv)]).cpu()
        total = sums if total is None else total + sums
        n_pairs, n_places = n_pairs + 1, n_places + n
    if total is None:
        return None
    probability_rv, logprob_rv = (total / n_places).numpy()
    before_v = probability_rv[UNCHANGED]
    change, control = (
        Change(probability_rv[r] - before_v, logprob_rv[r], float(kl_r[r] / n_places)) for r in (ABLATED, CONTROL)
    )
    return Effect(before_v, change, control, n_pairs, n_places)


def strongest_samples(store: Store, feature: int) -> dict[str, int]:
    """id → row of the samples on which the feature is strongest, on text and on the image in turn, each once."""
    by_side = [store.examples.strongest([feature], side, N_PAIRS)[feature] for side in ("text", "image")]
    ids = dict.fromkeys(example["sample_id"] for example in chain(*zip_longest(*by_side)) if example is not None)
    return {sample_id: store.samples.row(sample_id) for sample_id in list(ids)[:N_PAIRS]}


def choose_control(store: Store, sae: SaeV, feature: int, seed: int = 0) -> int | None:
    """A random feature that is not dead, has a direction and is of another family; None where there is none."""
    family = store.features.family
    is_alive = store.features.max_by_modality.max(axis=1) > 0
    candidates = np.flatnonzero(is_alive & (family != family[feature]))
    order = np.random.default_rng([seed, feature]).permutation(candidates).tolist()
    return next((k for k in order if sae.missing_direction_reason([k]) is None), None)


class Ablation:
    """On the row ABLATED h → h − z d (METHOD, *Steering*, `ablate`); on the row CONTROL a step as long, token by token,
    against the direction of another feature."""

    def __init__(self, sae: SaeV, feature: int, control: int, sink_norm: tuple[float, float]) -> None:
        self.steer = Steer(sae, [Intervention(feature, "ablate", 0.0, 0.0)])
        Steer(sae, [Intervention(control, "ablate", 0.0, 0.0)])  # refuses one without a direction
        direction_d = sae.directions_fd[control].float()
        self.unit_d = direction_d / direction_d.norm()
        self.sink_norm = sink_norm
        self.first: int | None = None
        """First position on which the feature fires, of the pair that ran last."""

    def __call__(self, hidden_bsd: Tensor, modality_s: Array) -> Tensor:
        """h of the three rows, of which there may be one yet; an attention sink or special token is not changed."""
        if len(hidden_bsd) == 1:
            hidden_bsd = hidden_bsd.repeat(3, 1, 1)
        limit_s = np.where(modality_s == IMAGE, self.sink_norm[1], self.sink_norm[0])
        norm_s = hidden_bsd[ABLATED].float().norm(dim=-1).cpu().numpy()
        at = torch.from_numpy(np.flatnonzero(np.isin(modality_s, (TEXT, IMAGE)) & (norm_s <= limit_s)))
        at = at.to(hidden_bsd.device)
        before_td = hidden_bsd[ABLATED, at]
        after_td = self.steer(before_td)
        length_t1 = (after_td.float() - before_td.float()).norm(dim=-1, keepdim=True)
        control_td = hidden_bsd[CONTROL, at].float() - length_t1 * self.unit_d.to(length_t1.device)
        hidden_bsd[ABLATED, at] = after_td
        hidden_bsd[CONTROL, at] = torch.where(length_t1 > 0, control_td.to(hidden_bsd.dtype), hidden_bsd[CONTROL, at])
        fires = at[length_t1[:, 0] > 0]
        self.first = int(fires[0]) if len(fires) else None
        return hidden_bsd


def next_tokens(mllm: Mllm, batch: Batch, ablation: Ablation) -> Tensor | None:
    """float32 [3, n, V]: log-probabilities of the next token of a pair, at its n places. The batch holds the pair
    once or three times; None where it has no text or the feature does not fire."""
    modality_s = np.asarray(batch.modality_bs[0])
    text = np.flatnonzero(modality_s == TEXT)
    if not len(text):
        return None
    first = max(0, int(text[0]) - 1)
    keep = len(modality_s) - first
    last = mllm.last_positions(len(modality_s), keep)
    change = replace(mllm.decoder_layer(), mllm.layer, lambda hidden_bsd: ablation(hidden_bsd, modality_s))
    with change, forward_errors(), torch.inference_mode():
        logits_rnv = mllm.model(**mllm.causal_inputs(batch), use_cache=False, logits_to_keep=last).logits[:, -keep:]
        if ablation.first is None:
            return None
        places = [p - first for p in np.union1d(text - 1, text).tolist() if p >= max(first, ablation.first)]
        return on_float64_device(logits_rnv[:, places[:MAX_PLACES]]).float().log_softmax(dim=-1)
