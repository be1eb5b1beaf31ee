"""Steering (METHOD, *Steering*): h ← h + Σ_k (t_k − z_k(h)) d_k at the hook layer, the default and the
steered text in one batch, with the KL of the two models on the same prefix.

`generate` prepares the decoding and the model's own forward runs it, so caches and positions are each family's own;
the rows that it runs on are in steer_rows.py, the choice of the next tokens in steer_sampling.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GenerationConfig

from precompute.errors import SaevxError
from precompute.live.intervention import Intervention, Scope, Steer, prompt_scope
from precompute.live.steer_rows import DEFAULT, STEERED, AllRows, SharedRows, why_not_shared
from precompute.live.steer_sampling import Event, TokenSampler
from precompute.model.batch import IMAGE, TEXT, Batch
from precompute.model.hooks import remove_at_end
from precompute.model.loading import needs_all_layers
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV

WARN_RATIO = 0.5


@dataclass(frozen=True)
class Steering:
    """What is steered where, and how the two texts are written."""

    interventions: Sequence[Intervention]
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
    """A feature along whose direction the change lies instead, as long on every token; None: the change itself."""
    target: Sequence[int] = ()
    """Tokens whose probability at the first step is reported."""
    eos: set[int] | None = None
    """Tokens that end a text; None: the model's and the tokenizer's own."""
    hooked: bool = True
    """False steers nothing in the very same batch, the control of the tests."""
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


@dataclass
class Hook:
    """Forward hook of the hook layer: rows that ran as one below it are separated, and `change` is applied to the
    STEERED row at the positions in scope.

    An attention sink, a token whose norm is above its modality's `sink_norm` (text, image), is not changed."""

    rows: AllRows
    change: Steer | None
    """None steers nothing: the control."""
    prompt_mask_s: Tensor
    """bool [s]: prompt positions in scope."""
    modality_s: Tensor
    """int64 [s]: modality of the prompt's tokens."""
    generated: bool
    sink_norm: tuple[float, float] | None
    seen: int = 0
    """Positions that have passed so far."""
    fired: int = 0
    skip: bool = False
    """The next position holds a special token."""

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        hidden_bsd: Tensor = output[0] if isinstance(output, tuple) else output
        index_n = self.in_scope(hidden_bsd)
        self.fired += 1
        changed = self.rows.expand_hidden(hidden_bsd)
        if self.change is not None and len(index_n):
            row, at = self.rows.steered_positions(index_n)
            if changed is hidden_bsd:
                changed = hidden_bsd.clone()
            changed[row, at] = self.change(hidden_bsd[self.rows.source, index_n])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def in_scope(self, hidden_bsd: Tensor) -> Tensor:
        """int64: the positions of this forward to steer; none where STEERED has ended."""
        n, length = hidden_bsd.shape[1], len(self.prompt_mask_s)
        begin, self.seen = self.seen, self.seen + n
        if begin >= length:
            mask_s = torch.full((n,), self.generated and not self.skip)
            modality_s = torch.full((n,), TEXT)
        else:
            mask_s, modality_s = self.prompt_mask_s[begin : self.seen], self.modality_s[begin : self.seen]
        if not self.rows.steers or not bool(mask_s.any()):
            return torch.zeros(0, dtype=torch.long)
        if self.sink_norm is not None:
            limit_s = torch.tensor(self.sink_norm)[(modality_s == IMAGE).long()]
            mask_s = mask_s & (hidden_bsd[self.rows.source].float().norm(dim=-1).cpu() <= limit_s)
        return mask_s.nonzero().flatten().to(hidden_bsd.device)


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """Without the model's own sampling defaults (penalties and the like), because raw logits are compared."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def rows_for(mllm: Mllm, batch: Batch, chosen_s: NDArray[np.bool_], share: bool | None) -> AllRows:
    """How the rows of this prompt run (steer_rows.py).

    Args:
        chosen_s: bool [s], prompt positions to steer.
        share: whether rows share layers; None: where the model allows it.
    """
    reason = "it is not wanted" if share is False else why_not_shared(mllm)
    if reason is not None:
        if share:
            raise SaevxError(f"The rows of a steered batch cannot share layers of this model: {reason}.")
        return AllRows()
    length = len(chosen_s)
    first = int(chosen_s.argmax()) if chosen_s.any() else length - 1
    longest = getattr(mllm.model.config.get_text_config(), "sliding_window", None) or np.inf
    # Within an image attention may run both ways, but no position may attend to packed ones behind it. And packed
    # positions must not move others out of a sliding window.
    after_images = not (batch.modality_bs[0, first:] == IMAGE).any()
    pack = after_images and 2 * (length - first) <= length and 2 * length - first < longest
    return SharedRows(mllm.layer, length, first, pack=pack)


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
    begin = time.monotonic()
    if len(batch.length_b) != 1:
        raise ValueError("steer wants one prompt; it makes the rows itself")
    o = steering
    change = Steer(sae, o.interventions, control=o.control)
    chosen_s = prompt_scope(batch, o.scope, o.mask)
    rows = rows_for(mllm, batch, chosen_s, o.share)
    modality_s = torch.from_numpy(np.asarray(batch.modality_bs[0]).astype(np.int64))
    hook = Hook(
        rows, change if o.hooked else None, torch.from_numpy(chosen_s), modality_s, "generated" in o.scope, o.sink_norm
    )
    sampler = TokenSampler(mllm, emit, o.temperature, o.seed, eos_ids(mllm) if o.eos is None else o.eos)
    sampler.target = list(o.target)
    inputs = rows.inputs(batch.inputs)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(mllm.dtype)
    if needs_all_layers(mllm.model.config.get_text_config()):
        # Asked for the last logits alone, such a model runs its upper layers on the last token alone, and the
        # prompt would pass the hook by.
        inputs["logits_to_keep"] = 0
    with plain_generation(mllm.model), rows_in(mllm, rows, hook), torch.inference_mode():
        mllm.model.generate(
            **inputs,
            generation_config=GenerationConfig(max_new_tokens=o.max_tokens, do_sample=False, use_cache=True),
            custom_generate=Decoding(mllm, rows, hook, sampler, o.max_tokens, stop),
        )
    return report(sampler, change, time.monotonic() - begin)


@contextmanager
def rows_in(mllm: Mllm, rows: AllRows, hook: Hook) -> Iterator[None]:
    """With the hook on its layer, and the inputs of the layers above fitted to the rows."""
    handles = [mllm.decoder_layer().register_forward_hook(hook)]
    if isinstance(rows, SharedRows):
        above = mllm.decoder.layers[mllm.layer + 1 :]
        handles += [layer.register_forward_pre_hook(rows.fit_layer_inputs, with_kwargs=True) for layer in above]
    with remove_at_end(*handles):
        yield


@dataclass
class Decoding:
    """The decoding loop that `generate` runs instead of its own, on the inputs that it has prepared."""

    mllm: Mllm
    rows: AllRows
    hook: Hook
    sampler: TokenSampler
    max_tokens: int
    stop: Callable[[], bool]

    def __call__(
        self, model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
        **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        special = set(self.mllm.tokenizer.all_special_ids)
        inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **kwargs)
        while True:
            out = model(**self.rows.expand_inputs(inputs), return_dict=True)
            if self.hook.fired <= self.sampler.step:
                raise SaevxError(
                    f"The steering hook fired {self.hook.fired} times in {self.sampler.step + 1} steps, the text is "
                    f"not steered: layer {self.mllm.layer} of this model does not run its forward in the usual way."
                )
            kwargs = model._update_model_kwargs_for_generation(out, kwargs)
            token = self.sampler(*self.rows.logits(out.logits))
            if self.sampler.step == self.max_tokens or not self.sampler.live or self.stop():
                return input_ids
            self.hook.skip = token.get(STEERED) in special
            ids = self.rows.next_inputs(token, self.sampler.live, out.past_key_values)
            ids_b1 = torch.tensor(ids, device=input_ids.device)[:, None]
            inputs = model.prepare_inputs_for_generation(ids_b1, next_sequence_length=1, **kwargs)


def eos_ids(mllm: Mllm) -> set[int]:
    """Tokens that end a text: the model's own list and the tokenizer's."""
    own = mllm.model.generation_config.eos_token_id
    ids = set(own if isinstance(own, list) else [own]) | {mllm.tokenizer.eos_token_id}
    return {int(token) for token in ids if token is not None}


def report(sampler: TokenSampler, change: Steer, seconds: float) -> Done:
    ratios = torch.cat(change.ratios) if change.ratios else torch.zeros(0)
    ratios = ratios[ratios > 0]
    largest = float(ratios.max()) if len(ratios) else 0.0
    capped = largest > 1.0
    warning = None
    if capped:
        warning = (
            f"‖Δ‖ reached {largest:.2f} ‖h‖ and was scaled down to ‖h‖: "
            "the text says more of the push than of the feature."
        )
    elif largest > WARN_RATIO:
        warning = (
            f"‖Δ‖ reached {largest:.2f} ‖h‖, above {WARN_RATIO}: "
            "such text may say more of the push than of the feature."
        )
    return Done(
        text={"default": sampler.written(DEFAULT), "steered": sampler.written(STEERED)},
        mean_kl=float(np.mean(sampler.kl)) if sampler.kl else None,
        delta_ratio=largest,
        delta_ratio_mean=float(ratios.mean()) if len(ratios) else 0.0,
        warning=warning,
        capped=capped,
        n_steered=len(ratios),
        seconds=seconds,
    )
