"""Steering (METHOD, *Steering*): h ← h + Σ_k (t_k − z_k(h)) d_k at the hook layer, the default and the
steered text side by side, with the KL of the two models on the same prefix.

`generate` prepares the decoding and the model's own forward runs it, so caches and positions are each family's own;
the rows that it is run on are steer_rows', the next tokens steer_choose's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from precompute.errors import SaevxError
from precompute.live.steer_rows import DEFAULT, SHADOW, STEERED, AllRows, SharedRows, why_not_shared
from precompute.live.steer_sampling import Chooser, Event, KlEvent, TokenEvent
from precompute.model.hooks import attached
from precompute.model.loading import needs_all_layers
from precompute.model.mllm import IMAGE, TEXT, Batch, Mllm
from precompute.sae.sae import SaeV
from precompute.sae.subset import encoder_of

__all__ = [
    "DEFAULT", "SHADOW", "STEERED", "Chooser", "Done", "Event", "KlEvent", "Push", "Scope", "Steer", "TokenEvent",
    "steer",
]  # fmt: skip

WARN_RATIO = 0.5
Mode = Literal["set", "add", "ablate"]
Scope = Literal["image", "prompt", "generated"]


@dataclass(frozen=True)
class Push:
    """One feature's part in the steering."""

    feature: int
    mode: Mode
    strength: float
    """In units of the feature's p99.9; ignored by `ablate`."""
    p999: float
    """The feature's p99.9 on the store's data, in units of z."""


@dataclass(frozen=True)
class Done:
    """What the whole run did."""

    text: dict[str, str]
    mean_kl: float | None
    delta_ratio: float
    delta_ratio_mean: float
    warning: str | None
    capped: bool
    n_steered: int
    seconds: float


@dataclass
class Steer:
    """The change itself, as a function of the residuals of one row.

    Raises SaevxError for a feature that the SAE does not have, that is never active (it has no unit) or whose decoder
    row is zero."""

    sae: SaeV
    pushes: Sequence[Push]
    ratios: list[Tensor] = field(default_factory=list)
    """‖Δ‖/‖h‖ of every steered token, before the cap."""

    def __post_init__(self) -> None:
        for push in self.pushes:
            if not 0 <= push.feature < self.sae.n_features:
                raise SaevxError(f"There is no feature {push.feature}: choose one from 0 to {self.sae.n_features - 1}.")
            if not push.p999 > 0 and push.mode != "ablate" and push.strength:
                raise SaevxError(
                    f"Feature {push.feature} is never active here, so strength has no unit: choose another."
                )
        ids = [push.feature for push in self.pushes]
        if (reason := self.sae.without_direction(ids)) is not None:
            raise SaevxError(reason)
        if len(set(ids)) < len(ids):
            raise SaevxError("A feature stands twice in the list: name each feature once.")
        is_add_k = [push.mode == "add" for push in self.pushes]
        wanted_k = [0.0 if push.mode == "ablate" else push.strength * push.p999 for push in self.pushes]
        self.target_k = torch.tensor(wanted_k)
        self.clamped = [k for k, is_add in enumerate(is_add_k) if not is_add]
        """Pushes that ask for z; `add` does not."""
        self.encode = encoder_of(self.sae, torch.tensor([ids[k] for k in self.clamped], dtype=torch.long))
        self.directions_kd = self.sae.directions_fd[ids]

    def __call__(self, hidden_td: Tensor) -> Tensor:
        """h + Δ for tokens [t, d], in their dtype; where Δ is 0 the bits of h are left alone."""
        if not len(self.pushes) or not len(hidden_td):
            return hidden_td
        h_td = hidden_td.float()
        coefficient_tk = self.target_k.to(h_td.device).repeat(len(h_td), 1)
        if self.clamped:
            coefficient_tk[:, self.clamped] -= self.encode(h_td).to(h_td.device)
        delta_td = coefficient_tk @ self.directions_kd.to(h_td)
        scale_t1 = self.sae.token_scale(h_td)  # METHOD's c, where the SAE scales its input token by token
        if scale_t1 is not None:
            delta_td = delta_td * scale_t1.to(h_td.device)
        ratio_t = delta_td.norm(dim=-1) / h_td.norm(dim=-1).clamp_min(1e-12)
        self.ratios.append(ratio_t.cpu())
        delta_td = delta_td / ratio_t.clamp_min(1.0)[:, None]
        return torch.where(delta_td != 0, (h_td + delta_td).to(hidden_td.dtype), hidden_td)


@dataclass
class Hook:
    """Forward hook of the hook layer: the rows part here, and `change` is applied to the STEERED one wherever the
    scope says.

    Sinks are special: a token whose norm passes its modality's `sink_norm` (text, image) is left alone."""

    rows: AllRows
    change: Steer | None
    """None steers nothing: the control."""
    prompt_mask_s: Tensor
    """[s] bool: prompt positions in scope."""
    modality_s: Tensor
    generated: bool
    sink_norm: tuple[float, float] | None
    seen: int = 0
    """Positions that went through so far."""
    fired: int = 0
    skip: bool = False
    """The next position holds a special token."""

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        hidden_bsd: Tensor = output[0] if isinstance(output, tuple) else output
        index_n = self.in_scope(hidden_bsd)
        self.fired += 1
        changed = self.rows.spread(hidden_bsd)
        if self.change is not None and len(index_n):
            row, at = self.rows.place(index_n)
            if changed is hidden_bsd:
                changed = hidden_bsd.clone()
            changed[row, at] = self.change(hidden_bsd[self.rows.source, index_n])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    def in_scope(self, hidden_bsd: Tensor) -> Tensor:
        """The positions to steer of those that are on their way; none where STEERED has ended."""
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
    """The model's own sampling defaults (penalties and the like) set aside: raw logits are compared."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def prompt_scope(batch: Batch, scope: Sequence[Scope], mask: Sequence[tuple[int, int, int]] | None) -> np.ndarray:
    """[s] bool of prompt positions to steer, from the batch's only distinct row. `mask` narrows `image` to
    patches (view, row, col). "Generated" begins at the last prompt position, which
    predicts the first new token."""
    modality_s = np.asarray(batch.modality_bs[0])
    chosen = np.zeros(len(modality_s), dtype=bool)
    if "prompt" in scope:
        chosen |= modality_s == TEXT
    if "image" in scope:
        image = np.flatnonzero(modality_s == IMAGE)
        if mask is None:
            chosen[image] = True
        else:
            starts = np.cumsum([0, *(view.rows * view.cols for view in batch.views[0])])
            for view, row, col in mask:
                if not 0 <= view < len(batch.views[0]):
                    raise SaevxError(f"The image has no view {view}: choose one from 0 to {len(batch.views[0]) - 1}.")
                grid = batch.views[0][view]
                if not (0 <= row < grid.rows and 0 <= col < grid.cols):
                    raise SaevxError(f"View {view} has {grid.rows} × {grid.cols} patches: no row {row}, column {col}.")
                chosen[image[starts[view] + row * grid.cols + col]] = True
    if "generated" in scope:
        chosen[-1] = True
    return chosen


def check_scope(batch: Batch, scope: Sequence[Scope], mask: Sequence[tuple[int, int, int]] | None) -> None:
    """Raises SaevxError where there is nothing to steer: an empty mask, a mask without an image, a scope without a
    token, a patch that is not there."""
    if mask is not None and "image" in scope:
        if not batch.views[0]:
            raise SaevxError("There is no image for the mask: send one, or leave the mask out.")
        if not len(mask):
            raise SaevxError("The mask is empty: mark a patch, or leave the mask out to steer all of them.")
    if not prompt_scope(batch, scope, mask).any():
        lacking = {"image": "no image", "prompt": "no word in the prompt"}
        reason = " and ".join(lacking[name] for name in scope if name in lacking)
        raise SaevxError(f"There is nothing to steer in this scope, as there is {reason}: choose another scope.")


def rows_for(mllm: Mllm, batch: Batch, chosen_s: np.ndarray, share: bool | None) -> AllRows:
    """How the rows of this prompt run; see steer_rows.

    Args:
        chosen_s: prompt positions to steer.
        share: None where the model allows it.
    """
    reason = "it is not wanted" if share is False else why_not_shared(mllm)
    if reason is not None:
        if share:
            raise SaevxError(f"The rows of a steered batch cannot share layers of this model: {reason}.")
        return AllRows()
    length = len(chosen_s)
    first = int(chosen_s.argmax()) if chosen_s.any() else length - 1
    longest = getattr(mllm.model.config.get_text_config(), "sliding_window", None) or np.inf
    # Within a picture attention may run both ways: what is packed must be seen by nothing before it. And packed
    # positions must not push others out of a sliding window.
    behind = not (batch.modality_bs[0, first:] == IMAGE).any()
    pack = behind and 2 * (length - first) <= length and 2 * length - first < longest
    return SharedRows(mllm.layer, length, first, pack=pack)


def steer(
    mllm: Mllm,
    sae: SaeV,
    batch: Batch,
    pushes: Sequence[Push],
    *,
    scope: Sequence[Scope] = ("image", "prompt", "generated"),
    mask: Sequence[tuple[int, int, int]] | None = None,
    max_tokens: int = 48,
    temperature: float = 0.0,
    seed: int = 0,
    sink_norm: tuple[float, float] | None = None,
    eos: set[int] | None = None,
    hooked: bool = True,
    share: bool | None = None,
    emit: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
) -> Done:
    """Write the default and the steered continuation of `batch`, one prompt prepared for generation.

    Args:
        eos: tokens that end a text; None is the model's and the tokenizer's own.
        hooked: False steers nothing in the very same batch, the control of the tests.
        share: False runs all rows through every layer, True insists on sharing; None shares where the model can.

    Raises:
        SaevxError: features or patches that do not exist; the hook did not fire on every step.
    """
    begin = time.monotonic()
    if len(batch.length_b) != 1:
        raise ValueError("steer wants one prompt; it makes the rows itself")
    change = Steer(sae, pushes)
    chosen_s = prompt_scope(batch, scope, mask)
    rows = rows_for(mllm, batch, chosen_s, share)
    modality_s = torch.from_numpy(np.asarray(batch.modality_bs[0]).astype(np.int64))
    hook = Hook(
        rows, change if hooked else None, torch.from_numpy(chosen_s), modality_s, "generated" in scope, sink_norm
    )
    chooser = Chooser(mllm, emit, temperature, seed, eos_ids(mllm) if eos is None else eos)
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
            generation_config=GenerationConfig(max_new_tokens=max_tokens, do_sample=False, use_cache=True),
            custom_generate=Decoding(mllm, rows, hook, chooser, max_tokens, stop),
        )
    return report(chooser, change, time.monotonic() - begin)


@contextmanager
def rows_in(mllm: Mllm, rows: AllRows, hook: Hook) -> Iterator[None]:
    """The hook on its layer, and the layers above it fitted to the rows."""
    handles = [mllm.decoder_layer().register_forward_hook(hook)]
    if isinstance(rows, SharedRows):
        above = mllm.decoder.layers[mllm.layer + 1 :]
        handles += [layer.register_forward_pre_hook(rows.fit, with_kwargs=True) for layer in above]
    with attached(*handles):
        yield


@dataclass
class Decoding:
    """The loop that `generate` is to run instead of its own, on what it has prepared of the prompt."""

    mllm: Mllm
    rows: AllRows
    hook: Hook
    chooser: Chooser
    max_tokens: int
    stop: Callable[[], bool]

    def __call__(
        self, model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
        **kwargs: Any,
    ) -> Tensor:  # fmt: skip
        special = set(self.mllm.tokenizer.all_special_ids)
        inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **kwargs)
        while True:
            out = model(**self.rows.widen(inputs), return_dict=True)
            if self.hook.fired <= self.chooser.step:
                raise SaevxError(
                    f"The steering hook fired {self.hook.fired} times in {self.chooser.step + 1} steps, the text is "
                    f"not steered: layer {self.mllm.layer} of this model does not run its forward in the usual way."
                )
            kwargs = model._update_model_kwargs_for_generation(out, kwargs)
            token = self.chooser(*self.rows.logits(out.logits))
            if self.chooser.step == self.max_tokens or not self.chooser.live or self.stop():
                return input_ids
            self.hook.skip = token.get(STEERED) in special
            ids = self.rows.go_on(token, self.chooser.live, out.past_key_values)
            ids_b1 = torch.tensor(ids, device=input_ids.device)[:, None]
            inputs = model.prepare_inputs_for_generation(ids_b1, next_sequence_length=1, **kwargs)


def eos_ids(mllm: Mllm) -> set[int]:
    """Tokens that end a text: the model's own list and the tokenizer's."""
    own = mllm.model.generation_config.eos_token_id
    ids = set(own if isinstance(own, list) else [own]) | {mllm.tokenizer.eos_token_id}
    return {int(token) for token in ids if token is not None}


def report(chooser: Chooser, change: Steer, seconds: float) -> Done:
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
        text={"default": chooser.whole(DEFAULT), "steered": chooser.whole(STEERED)},
        mean_kl=float(np.mean(chooser.kl)) if chooser.kl else None,
        delta_ratio=largest,
        delta_ratio_mean=float(ratios.mean()) if len(ratios) else 0.0,
        warning=warning,
        capped=capped,
        n_steered=len(ratios),
        seconds=seconds,
    )
