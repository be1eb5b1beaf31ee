"""The forward hook at layer L that steers the rows of a batch. What it does to h is `Steer` in intervention.py."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from precompute.live.intervention import Steer
from precompute.live.steer_rows import AllRows, Role
from precompute.model.batch import IMAGE, TEXT


@dataclass
class SteerHook:
    """Gives each row its own h, where several ran as one up to layer L, and applies each edit to its rows at the
    positions in scope.

    An attention sink, a token whose norm is above its modality's `sink_norm` (text, image), is not changed."""

    rows: AllRows
    edits: Sequence[Steer]
    """By number, from 1."""
    candidates: Sequence[Role]
    """The steered role of each candidate."""
    prompt_mask_s: Tensor
    """bool [s]: prompt positions in scope."""
    modality_s: Tensor
    """int64 [s]: modality of the prompt's tokens."""
    generated: bool
    sink_norm: tuple[float, float] | None
    hooked: bool = True
    """False steers nothing: the control."""
    n_seen: int = 0
    """Positions that have passed so far."""
    n_calls: int = 0
    skip: set[int] = field(default_factory=set)
    """Channels whose next position holds a special token."""
    ratios: list[list[Tensor]] = field(default_factory=list)
    """Of each candidate, float32 [t] per forward: ‖Δ‖/‖h‖ of every steered token, before the cap."""

    def __post_init__(self) -> None:
        self.ratios = [[] for _ in self.candidates]

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        hidden_bsd: Tensor = output[0] if isinstance(output, tuple) else output
        n = hidden_bsd.shape[1]
        begin, self.n_seen = self.n_seen, self.n_seen + n
        self.n_calls += 1
        new_hidden = self.rows.expand_hidden(hidden_bsd)
        for number, row in enumerate(self.rows.rows):
            if not row.edit or not self.hooked or row.channel not in self.rows.live:
                continue
            hidden_sd = hidden_bsd[self.rows.source_index(row)]
            index_n = self.in_scope(hidden_sd, begin, row.channel)
            if not len(index_n):
                continue
            if new_hidden is hidden_bsd:
                new_hidden = hidden_bsd.clone()
            edit, at = self.edits[row.edit - 1], self.rows.positions(number, index_n)
            new_hidden[at] = edit(hidden_sd[index_n])
            for ratios, role in zip(self.ratios, self.candidates, strict=True):
                if edit.ratios and self.rows.at(role) == number:
                    ratios.append(edit.ratios[-1])
        return (new_hidden, *output[1:]) if isinstance(output, tuple) else new_hidden

    def in_scope(self, hidden_sd: Tensor, begin: int, channel: int) -> Tensor:
        """int64: the positions to steer, of those from `begin` that this forward brings."""
        n, length = len(hidden_sd), len(self.prompt_mask_s)
        if begin >= length:
            mask_s = torch.full((n,), self.generated and channel not in self.skip)
            modality_s = torch.full((n,), TEXT)
        else:
            mask_s, modality_s = self.prompt_mask_s[begin : begin + n], self.modality_s[begin : begin + n]
        if self.sink_norm is not None and bool(mask_s.any()):
            limit_s = torch.tensor(self.sink_norm)[(modality_s == IMAGE).long()]
            mask_s = mask_s & (hidden_sd.float().norm(dim=-1).cpu() <= limit_s)
        return mask_s.nonzero().flatten().to(hidden_sd.device)
