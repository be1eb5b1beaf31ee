"""A steered run with everything that a test compares, and the comparison of two of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from precompute.live import steer as steering
from precompute.live.intervention import Intervention, Scope
from precompute.live.steer import Candidate, Done, Steering, steer_candidates
from precompute.live.steer_sampling import Event, KlEvent, TokenEvent, TokenSampler
from precompute.model.batch import Batch
from precompute.model.hooks import remove_at_end
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


class Recorded:
    """What a candidate wrote: its events, and each step's logits of its roles."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.logits: list[dict[int, torch.Tensor]] = []
        self.done: Done

    def tokens(self, channel: str) -> list[str]:
        return [e.text for e in self.events if isinstance(e, TokenEvent) and e.channel == channel]

    def ids(self, role: int) -> list[int]:
        return [int(step[role].argmax()) for step in self.logits if role in step]


def record(mllm: Mllm, sae: SaeV, batch: Batch, candidates: Sequence[Candidate], **options: Any) -> list[Recorded]:
    """Steer several candidates at once."""
    runs = [Recorded() for _ in candidates]

    class Watched(TokenSampler):
        def __call__(self, logits_rv: torch.Tensor, row: Mapping[int, int]) -> dict[int, int]:
            for i, run in enumerate(runs):
                writer = self.channels.writers[self.channels.steered[i]]
                roles = self.channels.writers[self.channels.default[i]].role, writer.role, writer.other
                at = {number: row[role] for number, role in enumerate(roles) if role is not None and role in row}
                run.logits.append({number: logits_rv[r].clone() for number, r in at.items()})
            return super().__call__(logits_rv, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steering, "TokenSampler", Watched)
        run_steering = Steering(**{"max_tokens": STEPS, "eos": set(), "candidates": candidates, **options})
        report = steer_candidates(mllm, sae, batch, run_steering, emit=lambda i, event: runs[i].events.append(event))
    for run, done_event in zip(runs, report, strict=True):
        run.done = done_event
    return runs


class Run(Recorded):
    """A run of one candidate, and how many rows × positions each layer saw."""

    def __init__(self, mllm: Mllm, sae: SaeV, batch: Batch, interventions: list[Intervention], **options: Any) -> None:
        self.load: dict[int, list[tuple[int, int]]] = {0: [], tiny.LAYER + 1: []}
        handles = [
            mllm.decoder.layers[layer].register_forward_pre_hook(
                lambda module, args, layer=layer: self.load[layer].append(tuple(args[0].shape[:2]))
            )
            for layer in self.load
        ]
        candidate = Candidate(interventions, options.pop("seed", 0), options.pop("control", None))
        with remove_at_end(*handles):
            (run,) = record(mllm, sae, batch, [candidate], **options)
        self.events, self.logits, self.done = run.events, run.logits, run.done


def same(run: Recorded, naive: Recorded) -> None:
    """The same but for what float arithmetic in another order leaves."""
    assert [type(e) for e in run.events] == [type(e) for e in naive.events]
    for a, b in zip(run.events, naive.events, strict=True):
        if isinstance(a, TokenEvent) and isinstance(b, TokenEvent):
            assert (a.channel, a.text, a.step) == (b.channel, b.text, b.step)
            assert a.logprob == pytest.approx(b.logprob, abs=1e-3)
        elif isinstance(a, KlEvent) and isinstance(b, KlEvent):
            assert (a.kl, a.logprob_default) == pytest.approx((b.kl, b.logprob_default), abs=1e-3)
    for logits_a, logits_b in zip(run.logits, naive.logits, strict=True):
        for role, logits_v in logits_a.items():
            torch.testing.assert_close(logits_v, logits_b[role], rtol=1e-3, atol=1e-3)
    assert run.done.text == naive.done.text
    assert run.done.n_steered == naive.done.n_steered
    assert run.done.delta_ratio == pytest.approx(naive.done.delta_ratio, rel=1e-3)
    assert run.done.delta_ratio_mean == pytest.approx(naive.done.delta_ratio_mean, rel=1e-3)
