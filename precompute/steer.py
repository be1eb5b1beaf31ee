"""Steering (METHOD, *Steering*): h ← h + Σ_k (t_k − z_k(h)) d_k at the hook layer, the default and the
steered text side by side, with the KL of the two models on the same prefix.

Three rows of one batch: `DEFAULT` writes by itself, `STEERED` is hooked, `SHADOW` is the unsteered model fed
the steered text. `generate` does the decoding, so caches and positions are each model family's own.
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
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from precompute.errors import SaevxError
from precompute.model import IMAGE, TEXT, Batch, Mllm, entwined
from precompute.sae import SaeV

DEFAULT, STEERED, SHADOW = 0, 1, 2
WARN_RATIO = 0.5
Channel = Literal["default", "steered"]
CHANNELS: tuple[tuple[int, Channel], ...] = ((DEFAULT, "default"), (STEERED, "steered"))
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
class TokenEvent:
    """A token of one channel; `text` is what it adds to the channel, "" while a character is incomplete."""

    channel: Channel
    text: str
    logprob: float
    step: int


@dataclass(frozen=True)
class KlEvent:
    """KL(steered ‖ unsteered) in nats over the next token, both models on the steered prefix."""

    step: int
    kl: float
    logprob_default: float
    """What the unsteered model gives the token that the steered one wrote."""


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


Event = TokenEvent | KlEvent


@dataclass
class Steer:
    """The change itself, as a function of the residuals of one row.

    Raises SaevxError for a feature that the SAE does not have or that is never active (it has no unit)."""

    sae: SaeV
    pushes: Sequence[Push]
    ratios: list[Tensor] = field(default_factory=list)
    """‖Δ‖/‖h‖ of every steered token, before the cap."""

    def __post_init__(self) -> None:
        for push in self.pushes:
            if not 0 <= push.feature < self.sae.n_features:
                raise SaevxError(f"The SAE has features 0 to {self.sae.n_features - 1}, not {push.feature}.")
            if not push.p999 > 0 and push.mode != "ablate" and push.strength:
                raise SaevxError(
                    f"Feature {push.feature} is never active here, so strength has no unit: choose another."
                )
        ids = [push.feature for push in self.pushes]
        if len(set(ids)) < len(ids):
            raise SaevxError("A feature stands twice in the list: name each feature once.")
        self.ids = torch.tensor(ids, dtype=torch.long)
        self.is_add = torch.tensor([push.mode == "add" for push in self.pushes])
        self.target = torch.tensor(
            [0.0 if push.mode == "ablate" else push.strength * push.p999 for push in self.pushes]
        )

    def __call__(self, hidden_td: Tensor) -> Tensor:
        """h + Δ for tokens [t, d], in their dtype; where Δ is 0 the bits of h are left alone."""
        if not len(self.ids) or not len(hidden_td):
            return hidden_td
        h_td = hidden_td.float()
        ids, is_add = self.ids.to(h_td.device), self.is_add.to(h_td.device)
        coefficient_tk = self.target.to(h_td.device).expand(len(h_td), -1)
        if not bool(is_add.all()):
            # z is the SAE's full output: which features a TopK selects depends on all of them.
            z_tk = self.sae.encode(h_td)[:, ids].to(h_td.device)
            coefficient_tk = torch.where(is_add, coefficient_tk, coefficient_tk - z_tk)
        directions_kd = self.sae.directions_fd[ids.to(self.sae.directions_fd.device)].to(h_td)
        delta_td = coefficient_tk @ directions_kd
        scale_t1 = self.sae.token_scale(h_td)  # METHOD's c, where the SAE scales its input token by token
        if scale_t1 is not None:
            delta_td = delta_td * scale_t1.to(h_td.device)
        ratio_t = delta_td.norm(dim=-1) / h_td.norm(dim=-1).clamp_min(1e-12)
        self.ratios.append(ratio_t.cpu())
        delta_td = delta_td / ratio_t.clamp_min(1.0)[:, None]
        return torch.where(delta_td != 0, (h_td + delta_td).to(hidden_td.dtype), hidden_td)


@dataclass
class Hook:
    """Forward hook of the hook layer: applies `steer` to the STEERED row wherever the scope says.

    Sinks are special: a token whose norm passes its modality's `sink_norm` (text, image) is left alone."""

    steer: Steer
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
        n = hidden_bsd.shape[1]
        at = torch.arange(self.seen, self.seen + n)
        length = len(self.prompt_mask_s)
        inside = at < length
        place = at.clamp_max(length - 1)
        mask = torch.where(inside, self.prompt_mask_s[place], torch.tensor(self.generated and not self.skip))
        modality = torch.where(inside, self.modality_s[place], torch.tensor(TEXT))
        self.seen += n
        self.fired += 1
        if self.sink_norm is not None and bool(mask.any()):
            limit = torch.tensor(self.sink_norm)[(modality == IMAGE).long()]
            mask &= hidden_bsd[STEERED].float().norm(dim=-1).cpu() <= limit
        index = mask.nonzero().flatten().to(hidden_bsd.device)
        if not len(index):
            return output
        changed = hidden_bsd.clone()
        changed[STEERED, index] = self.steer(hidden_bsd[STEERED, index])
        return (changed, *output[1:]) if isinstance(output, tuple) else changed


class Chooser(LogitsProcessor):
    """Chooses the next token of every row, tells `emit`, and leaves `generate` no other choice.

    Both channels add the same Gumbel noise of a step, so that they part only where their logits do."""

    def __init__(
        self,
        mllm: Mllm,
        emit: Callable[[Event], None],
        temperature: float,
        seed: int,
        eos: set[int],
        hook: Hook | None,
    ) -> None:
        self.mllm, self.emit, self.temperature, self.eos, self.hook = mllm, emit, temperature, eos, hook
        self.noise = torch.Generator().manual_seed(seed)
        self.special = set(mllm.tokenizer.all_special_ids)
        self.ids: dict[int, list[int]] = {DEFAULT: [], STEERED: []}
        self.text = {DEFAULT: "", STEERED: ""}  # as far as it was told
        self.ended = {DEFAULT: False, STEERED: False}
        self.kl: list[float] = []
        self.step = 0

    def choose(self, logits_bv: Tensor) -> Tensor:
        """The next token of the two channels [2]."""
        if self.temperature == 0:
            return logits_bv[:SHADOW].argmax(dim=-1)
        uniform = torch.rand(logits_bv.shape[-1], generator=self.noise, dtype=torch.float64)
        gumbel_v = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
        return (logits_bv[:SHADOW].double() / self.temperature + gumbel_v.to(logits_bv.device)).argmax(dim=-1)

    def piece(self, row: int, token: int) -> str:
        """What this token adds to the row's text."""
        self.ids[row].append(token)
        whole = self.whole(row)
        if whole.endswith("\ufffd"):
            return ""  # bytes of an unfinished character
        added = whole[len(self.text[row]) :]
        self.text[row] = whole
        return added

    def whole(self, row: int) -> str:
        """All that the row has written."""
        text: str = self.mllm.tokenizer.decode(self.ids[row], skip_special_tokens=True)
        return text

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logprob_bv = scores.float().log_softmax(dim=-1)
        chosen = self.choose(scores).tolist()
        for row, channel in CHANNELS:
            if self.ended[row]:
                continue
            token = chosen[row]
            text = "" if token in self.eos else self.piece(row, token)
            logprob = float(logprob_bv[row, token])
            self.emit(TokenEvent(channel, text, logprob, self.step))
            if row == STEERED:
                self.compare(logprob_bv, token)
            self.ended[row] = token in self.eos
        if self.hook is not None:
            self.hook.skip = chosen[STEERED] in self.special
        self.step += 1
        forced = torch.full_like(scores, float("-inf"))
        for row, token in ((DEFAULT, chosen[0]), (STEERED, chosen[1]), (SHADOW, chosen[1])):
            forced[row, token] = 0.0
        return forced

    def compare(self, logprob_bv: Tensor, token: int) -> None:
        steered_v, shadow_v = logprob_bv[STEERED], logprob_bv[SHADOW]
        kl = max(0.0, float((steered_v.exp() * (steered_v - shadow_v)).nan_to_num(0.0).sum()))
        self.kl.append(kl)
        self.emit(KlEvent(self.step, kl, float(shadow_v[token])))


class Stop(StoppingCriteria):
    """Ends the generation when nobody listens any more."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self.asked = asked

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        return torch.full((len(input_ids),), self.asked(), dtype=torch.bool, device=input_ids.device)


@contextmanager
def plain_generation(model: Any) -> Iterator[None]:
    """The model's own sampling defaults (penalties and the like) set aside: raw logits are compared."""
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def prompt_scope(
    batch: Batch, scope: Sequence[Scope], mask: Sequence[tuple[int, int, int]] | None
) -> np.ndarray:
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
                    raise SaevxError(f"The picture has views 0 to {len(batch.views[0]) - 1}, not {view}.")
                grid = batch.views[0][view]
                if not (0 <= row < grid.rows and 0 <= col < grid.cols):
                    raise SaevxError(
                        f"View {view} has {grid.rows} × {grid.cols} patches: no row {row}, column {col}."
                    )
                chosen[image[starts[view] + row * grid.cols + col]] = True
    if "generated" in scope:
        chosen[-1] = True
    return chosen


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
    hooked: bool = True,
    emit: Callable[[Event], None] = lambda event: None,
    stop: Callable[[], bool] = lambda: False,
) -> Done:
    """Write the default and the steered continuation of `batch` (a prompt, prepared for generation, thrice).

    `hooked=False` runs the very same batch without the hook, the control of the tests. Raises SaevxError for
    features or patches that do not exist, and if the hook did not fire on every step.
    """
    begin = time.monotonic()
    change = Steer(sae, pushes)
    modality_s = torch.from_numpy(np.asarray(batch.modality_bs[0]).astype(np.int64))
    chosen = torch.from_numpy(prompt_scope(batch, scope, mask))
    hook = Hook(change, chosen, modality_s, "generated" in scope, sink_norm)
    eos = eos_ids(mllm)
    chooser = Chooser(mllm, emit, temperature, seed, eos, hook)
    handle = mllm.decoder_layer().register_forward_hook(hook) if hooked else None
    pad = mllm.tokenizer.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=sorted(eos) or None,
        pad_token_id=pad if pad is not None else (min(eos) if eos else 0),
        use_cache=True,
    )
    inputs: dict[str, Any] = dict(batch.inputs)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(mllm.dtype)
    if entwined(mllm.model.config.get_text_config()):
        # Asked for the last logits alone, such a model runs its upper layers on the last token alone, and the
        # prompt would pass the hook by.
        inputs["logits_to_keep"] = 0
    try:
        with plain_generation(mllm.model), torch.inference_mode():
            mllm.model.generate(
                **inputs,
                generation_config=settings,
                logits_processor=[chooser],
                stopping_criteria=[Stop(stop)],
            )
    finally:
        if handle is not None:
            handle.remove()
    if hooked and hook.fired < chooser.step:
        raise SaevxError(
            f"The steering hook fired {hook.fired} times in {chooser.step} steps, the text is not steered: "
            f"layer {mllm.layer} of this model does not run its forward in the usual way."
        )
    return report(chooser, change, time.monotonic() - begin)


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
