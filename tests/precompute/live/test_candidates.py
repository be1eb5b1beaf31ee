"""Several candidates at once: each gets the tokens and logits of a run of its own."""

from pathlib import Path

import pytest
import torch

from precompute.errors import SaevxError
from precompute.live.intervention import Intervention
from precompute.live.steer import Candidate, Steering, steer, steer_candidates
from precompute.live.steer_sampling import TokenEvent
from precompute.model.batch import Batch, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from tests.helpers import families, tiny
from tests.helpers.steering import SCOPES, Run, record, same


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> SaeV:
    return SaeV.load(tiny.make_sae(tmp_path_factory.mktemp("candidates") / "sae"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Mllm:
    torch.set_num_threads(1)
    folder = tiny.make_llava(tmp_path_factory.mktemp("candidates") / "model")
    return Mllm.load(folder, layer=tiny.LAYER, full=True, device="cpu")


def prompt(mllm: Mllm, text: str = "the red dog") -> Batch:
    return mllm.prepare([Pair(text, [families.picture((257, 230))] if mllm.multimodal else [])], generate=True)


def candidates(sae: SaeV) -> list[Candidate]:
    """Weak and strong edits, one of them twice, a control, and two seeds."""

    def add(feature: int, size: float) -> list[Intervention]:
        return [Intervention(feature, "add", 1.0, size / float(sae.directions_fd[feature].norm()))]

    strong = add(11, 60.0)
    return [
        Candidate(add(5, 1.0)), Candidate(strong), Candidate(strong), Candidate(strong, control=7),
        Candidate(strong, seed=3), Candidate([Intervention(5, "ablate", 0.0, 1.0)], seed=3), Candidate([]),
    ]  # fmt: skip


def naive(mllm: Mllm, sae: SaeV, batch: Batch, one: Candidate, **options: object) -> Run:
    return Run(mllm, sae, batch, list(one.interventions), seed=one.seed, control=one.control, share=False, **options)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("scope", ["all", "generated"])
def test_each_gets_what_it_gets_alone(llava: Mllm, sae: SaeV, scope: str, temperature: float) -> None:
    """Also where they are packed, where texts part at different steps, and where some end."""
    batch = prompt(llava)
    options = {"scope": SCOPES[scope], "temperature": temperature}
    free = naive(llava, sae, batch, candidates(sae)[1], **options)
    for eos in (set(), {free.ids(1)[2]}):
        runs = record(llava, sae, batch, candidates(sae), eos=eos, **options)
        for run, one in zip(runs, candidates(sae), strict=True):
            same(run, naive(llava, sae, batch, one, eos=eos, **options))
    assert len({run.done.text["steered"] for run in runs}) > 2
    assert runs[1].events == runs[2].events


def test_models_that_cannot_share_run_all_rows(tmp_path: Path, sae: SaeV) -> None:
    gemma = Mllm.load(families.MULTIMODAL["gemma4"](tmp_path), layer=tiny.LAYER, full=True, device="cpu")
    batch = prompt(gemma)
    for run, one in zip(record(gemma, sae, batch, candidates(sae)), candidates(sae), strict=True):
        same(run, naive(gemma, sae, batch, one))


def test_the_prompt_is_shared_and_equal_rows_run_once(llava: Mllm, sae: SaeV) -> None:
    seen: dict[int, list[tuple[int, int]]] = {0: [], tiny.LAYER + 1: []}
    handles = [
        llava.decoder.layers[layer].register_forward_pre_hook(
            lambda module, args, layer=layer: seen[layer].append(tuple(args[0].shape[:2]))
        )
        for layer in seen
    ]
    batch = prompt(llava)
    try:
        record(llava, sae, batch, candidates(sae))
    finally:
        for handle in handles:
            handle.remove()
    length = batch.modality_bs.shape[1]
    assert seen[0][0] == (1, length)
    assert seen[tiny.LAYER + 1][0] == (1 + 5, length), "the unchanged model, and five different edits"


def test_alternatives_are_those_of_both_models_on_the_same_prefix(llava: Mllm, sae: SaeV) -> None:
    batch = prompt(llava)
    wanted = candidates(sae)[1].interventions

    def tokens(n: int, share: bool | None = None) -> list[TokenEvent]:
        events: list[TokenEvent] = []
        steer(
            llava,
            sae,
            batch,
            Steering(wanted, max_tokens=5, alternatives=n, share=share),
            emit=lambda event: events.append(event) if isinstance(event, TokenEvent) else None,
        )
        return events

    events, reference = tokens(3), tokens(3, share=False)
    assert [e.text for e in tokens(0)] == [e.text for e in events] == [e.text for e in reference]
    run = Run(llava, sae, batch, list(wanted), max_tokens=5, share=False)
    for event, other in zip(events, reference, strict=True):
        assert event.alternatives and other.alternatives and event.other_logprob is not None
        assert event.other_logprob == pytest.approx(other.other_logprob, abs=1e-3)
        for name, likely in event.alternatives.items():
            assert [one.token for one in likely] == [one.token for one in other.alternatives[name]]
            logprobs = [one.logprob for one in other.alternatives[name]]
            assert [one.logprob for one in likely] == pytest.approx(logprobs, abs=1e-3)
        # Of the run without alternatives: row 0 is the unchanged model on its text, 1 the steered one, 2 the unchanged
        # one on the steered text.
        rows = (1, 2) if event.channel == "steered" else (0,)
        for role in rows:
            top = run.logits[event.step][role].log_softmax(-1).topk(3)
            likely = event.alternatives["steered" if role == 1 else "default"]
            assert [one.token for one in likely] == top.indices.tolist()
    assert any(e.alternatives["default"] != e.alternatives["steered"] for e in events if e.alternatives)


def test_one_wrong_candidate_is_told(llava: Mllm, sae: SaeV) -> None:
    wrong = [*candidates(sae), Candidate([Intervention(96, "add", 1.0, 1.0)])]
    with pytest.raises(SaevxError, match="from 0 to 95"):
        steer_candidates(llava, sae, prompt(llava), Steering(max_tokens=1, candidates=wrong))
