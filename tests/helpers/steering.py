"""A steered run with everything that a test compares, and the comparison of two of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from precompute.live import steer as steering
from precompute.live.intervention import Intervention, Scope
from precompute.live.steer import Done, Steering, steer
from precompute.live.steer_sampling import Event, KlEvent, TokenEvent, TokenSampler
from precompute.model.batch import Batch
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from tests.helpers import tiny

STEPS = 6
SCOPES: dict[str, tuple[Scope, ...]] = {
    "all": ("image", "prompt", "generated"),
    "image": ("image",),
    "prompt": ("prompt",),
    "generated": ("generated",),
}


class Run:
    """A steered run: its events, each step's logits of every role, and how many rows × positions each layer saw."""

    def __init__(self, mllm: Mllm, sae: SaeV, batch: Batch, wanted: list[Intervention], **options: Any) -> None:
        events: list[Event] = []
        logits: list[dict[int, torch.Tensor]] = []

        class Watched(TokenSampler):
            def __call__(self, logits_rv: torch.Tensor, row: Mapping[int, int]) -> dict[int, int]:
                logits.append({role: logits_rv[at].clone() for role, at in row.items()})
                return super().__call__(logits_rv, row)

        self.load: dict[int, list[tuple[int, int]]] = {0: [], tiny.LAYER + 1: []}
        handles = [
            mllm.decoder.layers[layer].register_forward_pre_hook(
                lambda module, args, layer=layer: self.load[layer].append(tuple(args[0].shape[:2]))  # type: ignore[misc]
            )
            for layer in self.load
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steering, "TokenSampler", Watched)
            try:
                changes = Steering(wanted, **{"max_tokens": STEPS, "eos": set(), **options})
                self.done: Done = steer(mllm, sae, batch, changes, emit=events.append)
            finally:
                for handle in handles:
                    handle.remove()
        self.events, self.logits = events, logits

    def tokens(self, channel: str) -> list[str]:
        return [e.text for e in self.events if isinstance(e, TokenEvent) and e.channel == channel]

    def ids(self, role: int) -> list[int]:
        return [int(step[role].argmax()) for step in self.logits if role in step]


def same(shared: Run, naive: Run) -> None:
    """The same but for what float arithmetic in another order leaves."""
    assert [type(e) for e in shared.events] == [type(e) for e in naive.events]
    for a, b in zip(shared.events, naive.events, strict=True):
        if isinstance(a, TokenEvent) and isinstance(b, TokenEvent):
            assert (a.channel, a.text, a.step) == (b.channel, b.text, b.step)
            assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
        elif isinstance(a, KlEvent) and isinstance(b, KlEvent):
            assert (a.kl, a.logprob_default) == pytest.approx((b.kl, b.logprob_default), abs=1e-3)
    for one, other in zip(shared.logits, naive.logits, strict=True):
        for role, logits_v in one.items():
            torch.testing.assert_close(logits_v, other[role], rtol=1e-3, atol=1e-3)
    assert shared.done.text == naive.done.text
    assert shared.done.n_steered == naive.done.n_steered
    assert shared.done.delta_ratio == pytest.approx(naive.done.delta_ratio, rel=1e-3)
    assert shared.done.delta_ratio_mean == pytest.approx(naive.done.delta_ratio_mean, rel=1e-3)
