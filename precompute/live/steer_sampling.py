"""The next token of both channels of a steered batch, and the events that report it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from precompute.live.steer_rows import CONTROL_ROW, DEFAULT, STEERED
from precompute.model.mllm import Mllm
from precompute.utils.tensors import exact

Channel = Literal["default", "steered"]
CHANNELS: tuple[tuple[int, Channel], ...] = ((DEFAULT, "default"), (STEERED, "steered"))


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
class TargetEvent:
    """Probability that the answer begins with one of the target tokens."""

    p_default: float
    p_steered: float


Event = TokenEvent | KlEvent | TargetEvent


class TokenSampler:
    """Chooses the next token of both channels and reports it to `emit`.

    In a step both channels add the same Gumbel noise, so that they differ only where their logits do.

    Args:
        eos: tokens that end a text.
    """

    def __init__(self, mllm: Mllm, emit: Callable[[Event], None], temperature: float, seed: int, eos: set[int]) -> None:
        self.mllm, self.emit, self.temperature, self.eos = mllm, emit, temperature, eos
        self.noise = torch.Generator().manual_seed(seed)
        self.ids: dict[int, list[int]] = {DEFAULT: [], STEERED: []}
        self.text = {DEFAULT: "", STEERED: ""}  # as far as it was reported
        self.live = [DEFAULT, STEERED]
        """Channels that have not ended."""
        self.kl: list[float] = []
        self.step = 0
        self.target: list[int] = []
        """Tokens whose probability at the first step is reported."""

    def choose(self, logits_rv: Tensor) -> Tensor:
        """int64 [r]: the next token of every row of logits [r, V]."""
        if self.temperature == 0:
            return logits_rv.argmax(dim=-1)
        uniform = torch.rand(logits_rv.shape[-1], generator=self.noise, dtype=torch.float64)
        gumbel_v = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
        wide_rv = exact(logits_rv).double()
        return (wide_rv / self.temperature + gumbel_v.to(wide_rv.device)).argmax(dim=-1)

    def piece(self, channel: int, token: int) -> str:
        """What this token adds to the channel's text."""
        self.ids[channel].append(token)
        text = self.written(channel)
        if text.endswith("\ufffd"):
            return ""  # bytes of an unfinished character
        added = text[len(self.text[channel]) :]
        self.text[channel] = text
        return added

    def written(self, channel: int) -> str:
        """All that the channel has written."""
        return self.mllm.text_of(self.ids[channel])

    def __call__(self, logits_rv: Tensor, row: Mapping[int, int]) -> dict[int, int]:
        """The token of each channel that was live.

        Args:
            logits_rv: float32 [r, V].
            row: index of each role's row in them.
        """
        logprob_rv = logits_rv.log_softmax(dim=-1)
        if self.target and not self.step:
            p_2 = [float(logprob_rv[row[channel], self.target].double().exp().sum()) for channel, _ in CHANNELS]
            self.emit(TargetEvent(*p_2))
        chosen_r = self.choose(logits_rv).tolist()
        token = {channel: chosen_r[row[channel]] for channel in self.live}
        for channel, name in CHANNELS:
            if channel not in token:
                continue
            one = token[channel]
            ended = one in self.eos
            text = "" if ended else self.piece(channel, one)
            self.emit(TokenEvent(name, text, float(logprob_rv[row[channel], one]), self.step))
            if channel == STEERED:
                self.compare(logprob_rv[row[STEERED]], logprob_rv[row[CONTROL_ROW]], one)
            if ended:
                self.live.remove(channel)
        self.step += 1
        return token

    def compare(self, steered_v: Tensor, control_v: Tensor, token: int) -> None:
        """Report the KL of the two models, from log-probabilities [V] on the same prefix."""
        kl = max(0.0, float((steered_v.exp() * (steered_v - control_v)).nan_to_num(0.0).sum()))
        self.kl.append(kl)
        self.emit(KlEvent(self.step, kl, float(control_v[token])))
