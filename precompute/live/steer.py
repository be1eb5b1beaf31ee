"""Steering (METHOD, *Steering*): h ← h + Σ_k (t_k − z_k(h)) d_k at the hook layer, the default and the
steered text in one batch, with the KL of the two models on the same prefix; of one candidate or of several.

`generate` prepares the decoding and the model's own forward runs it, so caches and positions are each family's own;
the rows that it runs on are in steer_rows.py, the choice of the next tokens in steer_sampling.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig

from precompute.errors import SaevxError
from precompute.live.frozen_attention import frozen_attention, why_not_frozen
from precompute.live.intervention import Intervention, Scope, Steer, prompt_scope
from precompute.live.steer_hook import SteerHook
from precompute.live.steer_rows import ROLES, AllRows, Role, SharedRows, why_not_shared
from precompute.live.steer_sampling import Channels, Event, TokenSampler
from precompute.model.batch import IMAGE, Batch
from precompute.model.hooks import remove_at_end
from precompute.model.loading import needs_all_layers
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV

WARN_RATIO = 0.5
AT_THIS_LENGTH = "a change this long often moves the answer in any direction, so run a random feature beside it."


@dataclass(frozen=True)
class Candidate:
    """One of several edits of the same prompt."""

    interventions: Sequence[Intervention]
    seed: int = 0
    control: int | None = None
    """A feature along whose direction the change lies instead, as long on every token; None: the change itself."""


@dataclass(frozen=True)
class Steering:
    """What is steered where, and how the two texts are written."""

    interventions: Sequence[Intervention] = ()
    scope: Sequence[Scope] = ("image", "prompt", "generated")
    """Parts of the text whose tokens are steered."""
    mask: Sequence[tuple[int, int, int]] | None = None
    """(view, row, column) of the patches to steer; None: all of them."""
    max_tokens: int = 48
    temperature: float = 0.0
    seed: int = 0
    sink_norm: tuple[float, float] | None = None
    """Norms above which a text, an image token is a sink and is not steered; None: no token is one."""
    control: int | None = None
    """As of a `Candidate`."""
    candidates: Sequence[Candidate] = ()
    """In place of `interventions`, `seed` and `control`, for `steer_candidates`."""
    target: Sequence[int] = ()
    """Tokens whose probability at the first step is reported."""
    eos: set[int] | None = None
    """Tokens that end a text; None: the model's and the tokenizer's own."""
    hooked: bool = True
    """False steers nothing in the very same batch, the control of the tests."""
    alternatives: int = 0
    """How many of the likeliest tokens of both models are reported with each token, of a single candidate."""
    frozen: bool = False
    """Whether the attention above the hook layer is that of the unchanged model on the same text."""
    share: bool | None = None
    """False runs all rows through every layer, True insists on sharing; None shares where the model can."""


@dataclass(frozen=True)
class Done:
    """The result of a steered generation."""

    text: dict[str, str]
    mean_kl: float | None
    delta_ratio: float
    delta_ratio_mean: float
    warning: str | None
    capped: bool
    n_steered: int
    seconds: float


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Without the model's own sampling defaults (penalties and the like), because raw logits are compared."""
    config = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = config


def rows_for(
    mllm: Mllm, batch: Batch, chosen_s: NDArray[np.bool_], steering: Steering, roles: Sequence[Role] = ROLES
) -> AllRows:
    """How the rows of this prompt run (steer_rows.py).

    Args:
        chosen_s: bool [s], prompt positions to steer.
        steering: `share` says whether rows share layers; with frozen attention none is packed behind another.
    """
    share = steering.share
    reason = "it is not wanted" if share is False else why_not_shared(mllm)
    if reason is not None:
        if share:
            raise SaevxError(f"The rows of a steered batch cannot share layers of this model: {reason}.")
        return AllRows(roles)
    length = len(chosen_s)
    first = int(chosen_s.argmax()) if chosen_s.any() else length - 1
    tail, n_edits = length - first, len({role.edit for role in roles if role.edit})
    window = getattr(mllm.model.config.get_text_config(), "sliding_window", None) or np.inf
    # Within an image attention may run both ways, but no position may attend to packed ones behind it. And packed
    # positions must not move others out of a sliding window.
    after_images = not (batch.modality_bs[0, first:] == IMAGE).any()
    is_short = 2 * tail <= length and n_edits * tail <= length
    pack = not steering.frozen and after_images and is_short and length + n_edits * tail < window
    return SharedRows(mllm.layer, length, first, pack=pack, roles=roles)


def steer(
    mllm: Mllm,
    sae: SaeV,
    batch: Batch,
    steering: Steering,
    *,
    emit: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
) -> Done:
    """Write the default and the steered continuation of `batch`, one prompt prepared for generation.

    Args:
        emit: is called with every token and every KL. stop: ends both texts when it says so.

    Raises:
        SaevxError: features or patches that do not exist; the hook did not fire on every step.
    """
    o = steering
    options = replace(o, candidates=[Candidate(o.interventions, o.seed, o.control)])
    return steer_candidates(mllm, sae, batch, options, emit=lambda _, event: emit(event), stop=stop)[0]


def steer_candidates(
    mllm: Mllm,
    sae: SaeV,
    batch: Batch,
    steering: Steering,
    *,
    emit: Callable[[int, Event], None] = lambda candidate, event: None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Done]:
    """As `steer`, for several candidates at once. Each gets what it gets alone, up to floating-point noise; the prompt
    runs once to the hook layer.

    Args:
        emit: is called with the number of the candidate and its event.
    """
    begin = time.monotonic()
    if len(batch.length_b) != 1:
        raise ValueError("steer wants one prompt; it makes the rows itself")
    o = steering
    if o.frozen and (sentence := why_not_frozen(mllm)) is not None:
        raise SaevxError(sentence)
    # Candidates that differ by their seed alone share an edit; 0 is the unchanged model.
    keys = [(tuple(c.interventions), c.control) for c in o.candidates]
    edits = {key: Steer(sae, key[0], control=key[1]) for key in dict.fromkeys(keys)}
    edit_number = {key: i for i, key in enumerate(edits, 1)}
    seeds = [c.seed for c in o.candidates]
    channels = Channels.of_candidates([edit_number[key] for key in keys], seeds, alternatives=o.alternatives > 0)
    chosen_s = prompt_scope(batch, o.scope, o.mask)
    rows = rows_for(mllm, batch, chosen_s, o, channels.roles)
    steered_roles = [channels.roles[channels.writers[channel].role] for channel in channels.steered]
    modality_s = torch.from_numpy(np.asarray(batch.modality_bs[0]).astype(np.int64))
    hook = SteerHook(
        rows, list(edits.values()), steered_roles, torch.from_numpy(chosen_s), modality_s, "generated" in o.scope,
        o.sink_norm, o.hooked,
    )  # fmt: skip
    sampler = TokenSampler(mllm, channels, emit, o.temperature, eos_ids(mllm) if o.eos is None else o.eos)
    sampler.target, sampler.n_alternatives = list(o.target), o.alternatives
    with frozen_attention(mllm, rows) if o.frozen else nullcontext():
        decode(mllm, rows, hook, batch, Decoding(mllm, rows, hook, sampler, o.max_tokens, stop))
    seconds = time.monotonic() - begin
    return [report(sampler, candidate, ratios, seconds) for candidate, ratios in enumerate(hook.ratios)]


def generation_inputs(mllm: Mllm, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What `generate` takes, from the inputs of a prepared batch."""
    inputs = dict(inputs)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(mllm.dtype)
    if needs_all_layers(mllm.model.config.get_text_config()):
        # Asked for the last logits alone, such a model runs its upper layers on the last token alone, and the
        # prompt would pass the hook by.
        inputs["logits_to_keep"] = 0
    return inputs


def decode(mllm: Mllm, rows: AllRows, hook: SteerHook, batch: Batch, decoding: Decoding) -> None:
    """Run the model over a prompt and what is written after it."""
    inputs = generation_inputs(mllm, rows.inputs(batch.inputs))
    config = GenerationConfig(max_new_tokens=decoding.max_tokens, do_sample=False, use_cache=True)
    with plain_generation(mllm.model), rows_in(mllm, rows, hook), torch.inference_mode():
        mllm.model.generate(**inputs, generation_config=config, custom_generate=decoding)


@contextmanager
def rows_in(mllm: Mllm, rows: AllRows, hook: SteerHook) -> Iterator[None]:
    """With the hook on its layer, and the inputs of the layers above fitted to the rows."""
    handles = [mllm.decoder_layer().register_forward_hook(hook)]
    if isinstance(rows, SharedRows):
        layers = mllm.decoder.layers[mllm.layer + 1 :]
        handles += [layer.register_forward_pre_hook(rows.fit_layer_inputs, with_kwargs=True) for layer in layers]
    with remove_at_end(*handles):
        yield


@dataclass
class Decoding:
    """The decoding loop that `generate` runs instead of its own, on the inputs that it has prepared."""

    mllm: Mllm
    rows: AllRows
    hook: SteerHook
    sampler: TokenSampler
    max_tokens: int
    stop: Callable[[], bool]

    def __call__(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> Tensor:
        special_ids = set(self.mllm.tokenizer.all_special_ids)
        inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **kwargs)
        while True:
            output = model(**self.rows.expand_inputs(inputs), return_dict=True)
            if self.hook.n_calls <= self.sampler.step:
                raise SaevxError(
                    f"The steering hook fired {self.hook.n_calls} times in {self.sampler.step + 1} steps, the text is "
                    f"not steered: layer {self.mllm.layer} of this model does not run its forward in the usual way."
                )
            kwargs = model._update_model_kwargs_for_generation(output, kwargs)
            token = self.sampler(*self.rows.logits(output.logits))
            if self.sampler.step == self.max_tokens or not self.sampler.live or self.stop():
                return input_ids
            self.hook.skip = {channel for channel, token_id in token.items() if token_id in special_ids}
            ids = self.rows.next_inputs(token, self.sampler.live, output.past_key_values)
            ids_b1 = torch.tensor(ids, device=input_ids.device)[:, None]
            inputs = model.prepare_inputs_for_generation(ids_b1, next_sequence_length=1, **kwargs)


def eos_ids(mllm: Mllm) -> set[int]:
    """Tokens that end a text: the model's own list and the tokenizer's."""
    token_ids = mllm.model.generation_config.eos_token_id
    ids = set(token_ids if isinstance(token_ids, list) else [token_ids]) | {mllm.tokenizer.eos_token_id}
    return {int(token) for token in ids if token is not None}


def report(sampler: TokenSampler, candidate: int, parts: Sequence[Tensor], seconds: float) -> Done:
    """Of a candidate. Args: ‖Δ‖/‖h‖ of its steered tokens, float32 [t] per forward."""
    ratios = torch.cat(list(parts)) if parts else torch.zeros(0)
    ratios = ratios[ratios > 0]
    max_ratio = float(ratios.max()) if len(ratios) else 0.0
    is_capped, warning = max_ratio > 1.0, None
    if is_capped:
        warning = f"‖Δ‖ reached {max_ratio:.2f} ‖h‖ and was scaled down to ‖h‖: {AT_THIS_LENGTH}"
    elif max_ratio > WARN_RATIO:
        warning = f"‖Δ‖ reached {max_ratio:.2f} ‖h‖, above {WARN_RATIO}: {AT_THIS_LENGTH}"
    return Done(
        text={
            "default": sampler.new_text(sampler.channels.default[candidate]),
            "steered": sampler.new_text(sampler.channels.steered[candidate]),
        },
        mean_kl=float(np.mean(sampler.kl[candidate])) if sampler.kl[candidate] else None,
        delta_ratio=max_ratio,
        delta_ratio_mean=float(ratios.mean()) if len(ratios) else 0.0,
        warning=warning,
        capped=is_capped,
        n_steered=len(ratios),
        seconds=seconds,
    )
