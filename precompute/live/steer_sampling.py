"""The next token of every channel of a steered batch, and the events that report it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor

from precompute.live.steer_rows import Role
from precompute.model.mllm import Mllm
from precompute.utils.tensors import on_float64_device

Name = Literal["default", "steered"]
NAMES: tuple[Name, Name] = ("default", "steered")


class Likely(NamedTuple):
    """A token that a model may write next."""

    token: int
    logprob: float


@dataclass(frozen=True)
class TokenEvent:
    """A token of one channel; `text` is what it adds to the channel, "" while a character is incomplete."""

    channel: Name
    text: str
    logprob: float
    step: int
    other_logprob: float | None = None
    """What the other model gives this token on the same prefix, where alternatives are wanted."""
    alternatives: dict[Name, list[Likely]] | None = None
    """The likeliest tokens of both models on this prefix."""


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


class Writer(NamedTuple):
    """Who writes a channel."""

    role: int
    """Number of the role whose logits decide."""
    other: int | None
    """Number of the role of the other model on the same text, where there is one."""
    seed: int


@dataclass
class Channels:
    """The channels and roles of k candidates. Those of one seed have the unchanged model's text in common."""

    writers: list[Writer] = field(default_factory=list)
    """Of each channel."""
    roles: list[Role] = field(default_factory=list)
    default: list[int] = field(default_factory=list)
    """Of each candidate: the channel of the unchanged model."""
    steered: list[int] = field(default_factory=list)
    """Of each candidate: the channel of the edited model."""

    @classmethod
    def of_candidates(cls, edits: Sequence[int], seeds: Sequence[int], *, alternatives: bool = False) -> Self:
        """Args: the edit of each candidate, from 1; its seed; whether the edit of a seed's first candidate also reads
        the default text, for alternatives."""
        channels, of_seed = cls(), dict[int, int]()
        for edit, seed in zip(edits, seeds, strict=True):
            if is_new := seed not in of_seed:
                of_seed[seed] = channels.add(0, seed)
            channels.default.append(of_seed[seed])
            channels.steered.append(channels.add(edit, seed))
            channels.add_reader(0, channels.steered[-1])
            if is_new and alternatives:
                channels.add_reader(edit, of_seed[seed])
        return channels

    def add(self, edit: int, seed: int) -> int:
        """A channel more, and the role that writes it."""
        self.writers.append(Writer(len(self.roles), None, seed))
        self.roles.append(Role(edit, len(self.writers) - 1))
        return len(self.writers) - 1

    def add_reader(self, edit: int, channel: int) -> None:
        """A role more, which reads a channel that another writes."""
        self.writers[channel] = self.writers[channel]._replace(other=len(self.roles))
        self.roles.append(Role(edit, channel))


class TokenSampler:
    """Chooses the next token of every channel and reports it to `emit`, candidate by candidate.

    In a step the channels of one seed add the same Gumbel noise, so that they differ only where their logits do.

    Args:
        emit: takes the number of the candidate and its event.
        eos: tokens that end a text.
    """

    def __init__(
        self, mllm: Mllm, channels: Channels, emit: Callable[[int, Event], None], temperature: float, eos: set[int]
    ) -> None:
        self.mllm, self.channels, self.emit, self.temperature, self.eos = mllm, channels, emit, temperature, eos
        self.noise = {writer.seed: torch.Generator().manual_seed(writer.seed) for writer in channels.writers}
        n = len(channels.writers)
        self.ids: list[list[int]] = [[] for _ in range(n)]
        self.text = [""] * n  # as far as it was reported
        self.live = list(range(n))
        """Channels that have not ended."""
        self.kl: list[list[float]] = [[] for _ in channels.steered]
        self.step = 0
        self.target: list[int] = []
        """Tokens whose probability at the first step is reported."""
        self.n_alternatives = 0
        """How many of the likeliest tokens are reported at each step."""

    def choose(self, logits_cv: Tensor, seeds: Sequence[int]) -> Tensor:
        """int64 [c]: the next token of each channel. Args: logits [c, V], and the seed of each."""
        if self.temperature == 0:
            return logits_cv.argmax(dim=-1)
        gumbel = {}
        for seed, generator in self.noise.items():
            uniform = torch.rand(logits_cv.shape[-1], generator=generator, dtype=torch.float64)
            gumbel[seed] = -torch.log(-torch.log(uniform.clamp(1e-300, 1 - 1e-16)))
        wide_cv = on_float64_device(logits_cv).double() / self.temperature
        rows = [row_v + gumbel[seed].to(row_v.device) for row_v, seed in zip(wide_cv, seeds, strict=True)]
        return torch.stack([row_v.argmax() for row_v in rows])

    def piece(self, channel: int, token: int) -> str:
        """What this token adds to the channel's text."""
        self.ids[channel].append(token)
        text = self.new_text(channel)
        if text.endswith("\ufffd"):
            return ""  # bytes of an unfinished character
        new_text = text[len(self.text[channel]) :]
        self.text[channel] = text
        return new_text

    def new_text(self, channel: int) -> str:
        """All that the channel has written."""
        return self.mllm.text_of(self.ids[channel])

    def __call__(self, logits_rv: Tensor, row: Mapping[int, int]) -> dict[int, int]:
        """The token of each channel that was live.

        Args:
            logits_rv: float32 [r, V].
            row: index in them of each role, by its number.
        """
        logprob_rv = logits_rv.log_softmax(dim=-1)
        writers = [self.channels.writers[channel] for channel in self.live]
        token_ids = self.choose(logits_rv[[row[w.role] for w in writers]], [w.seed for w in writers]).tolist()
        token = dict(zip(self.live, token_ids, strict=True))
        pieces = {c: "" if t in self.eos else self.piece(c, t) for c, t in token.items()}
        logprobs = {number: logprob_rv[r] for number, r in row.items()}
        for candidate, pair in enumerate(zip(self.channels.default, self.channels.steered, strict=True)):
            pair_writers = [self.channels.writers[channel] for channel in pair]
            if self.target and not self.step:
                p_2 = [float(logprobs[w.role][self.target].double().exp().sum()) for w in pair_writers]
                self.emit(candidate, TargetEvent(*p_2))
            for channel, name in zip(pair, NAMES, strict=True):
                if channel in token:
                    fields = self.likely(channel, token[channel], logprobs)
                    self.emit(candidate, TokenEvent(name, pieces[channel], **fields))
            channel, writer = pair[1], pair_writers[1]
            if channel in token and writer.other is not None:
                self.compare(candidate, logprobs[writer.role], logprobs[writer.other], token[channel])
        self.live = [c for c in self.live if token[c] not in self.eos]
        self.step += 1
        return token

    def likely(self, channel: int, token: int, logprob_of: Mapping[int, Tensor]) -> dict[str, Any]:
        """How likely a channel's token is, as a `TokenEvent` has it; with alternatives where they are wanted.

        Args:
            logprob_of: log-probabilities [V] of each role.
        """
        writer = self.channels.writers[channel]
        fields: dict[str, Any] = {"logprob": float(logprob_of[writer.role][token]), "step": self.step}
        if not self.n_alternatives or writer.other is None:
            return fields
        roles = [writer.role, writer.other]
        if self.channels.roles[writer.role].edit:
            roles.reverse()
        alternatives = {name: self.likeliest(logprob_of[role]) for name, role in zip(NAMES, roles, strict=True)}
        return {**fields, "other_logprob": float(logprob_of[writer.other][token]), "alternatives": alternatives}

    def likeliest(self, logprob_v: Tensor) -> list[Likely]:
        """The likeliest tokens, first ones first. Args: float32 [V]."""
        top = logprob_v.topk(min(self.n_alternatives, len(logprob_v)))
        return [Likely(*entry) for entry in zip(top.indices.tolist(), top.values.tolist(), strict=True)]

    def compare(self, candidate: int, steered_v: Tensor, control_v: Tensor, token: int) -> None:
        """Report the KL of the two models, from log-probabilities [V] on the same prefix."""
        kl = max(0.0, float((steered_v.exp() * (steered_v - control_v)).nan_to_num(0.0).sum()))
        self.kl[candidate].append(kl)
        self.emit(candidate, KlEvent(self.step, kl, float(control_v[token])))
