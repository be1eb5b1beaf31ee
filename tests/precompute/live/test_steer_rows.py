"""Rows of a steered batch that share layers: the same tokens and logits as all rows through everything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from precompute.errors import SaevxError
from precompute.live import steer as steering
from precompute.live.intervention import Intervention
from precompute.live.steer import Steering, steer
from precompute.live.steer_rows import DEFAULT, ROLES, STEERED, AllRows, SharedRows, why_not_shared
from precompute.live.steer_sampling import Event, TokenEvent
from precompute.model.batch import IMAGE, Batch, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from tests.helpers import families, tiny
from tests.helpers.steering import SCOPES, STEPS, Run, same

NOT_SHARED = {"gemma4": "per_layer_input"}


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> SaeV:
    return SaeV.load(tiny.make_sae(tmp_path_factory.mktemp("rows") / "sae"))


FAMILIES = [*families.MULTIMODAL, *(f"{name} alone" for name in families.TEXT_ONLY)]
SHARING = pytest.mark.parametrize(
    "family", [one for one in FAMILIES if one.partition(" ")[0] not in NOT_SHARED], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Mllm]]:
    torch.set_num_threads(1)
    name, alone, _ = str(request.param).partition(" alone")
    folder = tmp_path_factory.mktemp(name)
    made = families.text_only(folder, name) if alone else families.MULTIMODAL[name](folder)
    yield name, Mllm.load(made, layer=tiny.LAYER, full=True, device="cpu")


def prompt(mllm: Mllm) -> Batch:
    pictures = [families.picture((257, 230))] if mllm.multimodal else []
    return mllm.prepare([Pair("the red dog", pictures)], generate=True)


def changes(sae: SaeV, size: float = 6.0) -> list[Intervention]:
    return [Intervention(5, "add", 1.0, size / float(sae.directions_fd[5].norm())), Intervention(7, "set", 0.5, 1.0)]


@pytest.mark.parametrize("scope", SCOPES)
def test_the_same_tokens_and_logits_in_every_family(family: tuple[str, Mllm], sae: SaeV, scope: str) -> None:
    name, mllm = family
    batch, options = prompt(mllm), {"scope": SCOPES[scope]}
    naive = Run(mllm, sae, batch, changes(sae), share=False, **options)
    assert {rows for rows, _ in naive.load[0] + naive.load[tiny.LAYER + 1]} == {len(ROLES)}
    reason = why_not_shared(mllm)
    if name in NOT_SHARED:
        assert reason is not None and NOT_SHARED[name] in reason
        same(Run(mllm, sae, batch, changes(sae), **options), naive)
        with pytest.raises(SaevxError, match="cannot share layers"):
            Run(mllm, sae, batch, changes(sae), share=True, **options)
        return
    assert reason is None
    shared = Run(mllm, sae, batch, changes(sae), share=True, **options)
    same(shared, naive)
    assert shared.load[0][0][0] == 1, "the prompt runs once to the hook layer"
    assert max(rows for rows, _ in shared.load[0]) <= 2 and max(rows for rows, _ in shared.load[tiny.LAYER + 1]) <= 3


@SHARING
def test_a_strong_push_parts_the_texts_and_rows_come(family: tuple[str, Mllm], sae: SaeV) -> None:
    """Also with noise; rows come when they are needed."""
    _, mllm = family
    seen = set()
    for feature, temperature in ((5, 0.0), (11, 0.0), (5, 0.5)):
        wanted = [Intervention(feature, "add", 1.0, 60.0 / float(sae.directions_fd[feature].norm()))]
        options = {"temperature": temperature, "seed": 3}
        shared, naive = (Run(mllm, sae, prompt(mllm), wanted, share=share, **options) for share in (True, False))
        same(shared, naive)
        seen |= {(below[0], above[0]) for below, above in zip(*shared.load.values(), strict=True)}
        default, steered = shared.ids(DEFAULT), shared.ids(STEERED)
        for step in range(1, STEPS):
            if temperature == 0:
                parted = default[:step] != steered[:step]
                assert (shared.load[0][step][0], shared.load[tiny.LAYER + 1][step][0]) == ((2, 3) if parted else (1, 2))
    assert {(1, 2), (2, 3)} <= seen, "the push is meant to be strong"


@SHARING
@pytest.mark.parametrize("channel", [DEFAULT, STEERED])
def test_a_channel_that_ends_takes_its_rows_along(family: tuple[str, Mllm], sae: SaeV, channel: int) -> None:
    _, mllm = family
    batch = prompt(mllm)
    wanted = changes(sae, 60.0)
    free = Run(mllm, sae, batch, wanted, share=False)
    ends = free.ids(channel)[1]
    shared, naive = (Run(mllm, sae, batch, wanted, share=share, eos={ends}) for share in (True, False))
    same(shared, naive)
    for step in range(1, len(shared.load[0])):
        live = {e.channel for e in shared.events if isinstance(e, TokenEvent) and e.step == step}
        rows = shared.load[0][step][0], shared.load[tiny.LAYER + 1][step][0]
        if len(live) == 1:
            assert rows == ((1, 1) if live == {"default"} else (1, 2))


@pytest.mark.parametrize("scope", SCOPES)
def test_add_at_strength_0_changes_no_bit(family: tuple[str, Mllm], sae: SaeV, scope: str) -> None:
    _, mllm = family
    batch, nothing = prompt(mllm), [Intervention(5, "add", 0.0, 1.0)]
    hooked, bare = (Run(mllm, sae, batch, nothing, scope=SCOPES[scope], hooked=h) for h in (True, False))
    assert hooked.events == bare.events and hooked.done.n_steered == 0
    for one, other in zip(hooked.logits, bare.logits, strict=True):
        assert all(torch.equal(one[role], other[role]) for role in range(len(ROLES)))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Mllm:
    torch.set_num_threads(1)
    folder = tiny.make_llava(tmp_path_factory.mktemp("rows") / "model")
    return Mllm.load(folder, layer=tiny.LAYER, full=True, device="cpu")


def test_a_short_tail_is_packed_behind_the_default_row(llava: Mllm, sae: SaeV) -> None:
    """One row, as many positions more as can differ; where a picture is steered, STEERED has a row of its own."""
    batch = prompt(llava)
    length = batch.modality_bs.shape[1]
    text = length - 1 - int((batch.modality_bs[0] == 0)[::-1].argmax())
    n_text = int((batch.modality_bs[0] == 0).sum())
    for scope, wanted in {"generated": (1, length + 1), "all": (2, length), "image": (2, length)}.items():
        run = Run(llava, sae, batch, changes(sae), scope=SCOPES[scope])
        assert run.load[0][0] == (1, length) and run.load[tiny.LAYER + 1][0] == wanted
    run = Run(llava, sae, batch, changes(sae), scope=SCOPES["prompt"])
    assert run.load[tiny.LAYER + 1][0] == (1, length + length - (text - n_text + 1))


def test_a_picture_that_sees_both_ways_is_not_packed(tmp_path: Path, sae: SaeV) -> None:
    """Gemma 3: what stands before a steered patch sees it."""
    mllm = Mllm.load(families.gemma3(tmp_path), layer=tiny.LAYER, full=True, device="cpu")
    batch = prompt(mllm)
    last = int((batch.modality_bs[0] == IMAGE).nonzero()[0][-1])
    chosen_s = torch.zeros(batch.modality_bs.shape[1], dtype=torch.bool).numpy()
    chosen_s[last] = True
    rows = steering.rows_for(mllm, batch, chosen_s, Steering())
    assert isinstance(rows, SharedRows) and not rows.packed
    mask = [(0, 3, 3)]
    shared, naive = (Run(mllm, sae, batch, changes(sae), scope=("image",), mask=mask, share=s) for s in (True, False))
    same(shared, naive)


@pytest.mark.parametrize("family_name", ["gemma3", "mistral alone"])
@pytest.mark.parametrize("window", [200, 8])
def test_a_tail_is_packed_where_the_window_holds_it(
    tmp_path: Path, sae: SaeV, family_name: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, alone, _ = family_name.partition(" alone")
    folder = families.text_only(tmp_path, name) if alone else families.MULTIMODAL[name](tmp_path)
    mllm = Mllm.load(folder, layer=tiny.LAYER, full=True, device="cpu")
    monkeypatch.setattr(mllm.model.config.get_text_config(), "sliding_window", window)
    pictures = [families.picture((257, 230))] if mllm.multimodal else []
    batch = mllm.prepare([Pair("the red dog on the left of a big blue cat", pictures)], generate=True)
    shared, naive = (
        Run(mllm, sae, batch, changes(sae), scope=("generated",), max_tokens=24, share=share) for share in (True, False)
    )
    assert shared.load[tiny.LAYER + 1][0][0] == (1 if window == 200 else 2)
    same(shared, naive)


def test_deepstack_features_behind_the_hook_layer_are_not_shared(tmp_path: Path, sae: SaeV) -> None:
    """Qwen3-VL adds them to all rows at once, between layers."""
    mllm = Mllm.load(families.qwen3_vl(tmp_path), layer=0, full=True, device="cpu")
    assert "layers up to 0" in str(why_not_shared(mllm))
    batch = prompt(mllm)
    assert type(steering.rows_for(mllm, batch, steering.prompt_scope(batch, ("image",), None), Steering())) is AllRows
    assert steer(mllm, sae, batch, Steering(changes(sae), max_tokens=2)).n_steered > 0


def test_other_layers_or_attention_are_not_shared(llava: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    config = llava.model.config.get_text_config()
    monkeypatch.setattr(config, "layer_types", ["full_attention", "linear_attention"] * 2, raising=False)
    assert "layers of linear_attention" in str(why_not_shared(llava))
    monkeypatch.undo()
    monkeypatch.setattr(config, "_attn_implementation_internal", "flex_attention")
    assert "flex_attention" in str(why_not_shared(llava))


def test_it_stops_when_nobody_listens(llava: Mllm, sae: SaeV) -> None:
    events: list[Event] = []
    wanted = Steering(changes(sae), max_tokens=100)
    steer(llava, sae, prompt(llava), wanted, emit=events.append, stop=lambda: len(events) > 8)
    assert max(event.step for event in events) == 2


def test_several_prompts_are_refused(llava: Mllm, sae: SaeV) -> None:
    with pytest.raises(ValueError, match="one prompt"):
        steer(llava, sae, llava.prepare([Pair("a dog")] * 3, generate=True), Steering([]))


def test_the_inputs_of_all_rows_are_those_of_the_prompt_thrice(family: tuple[str, Mllm]) -> None:
    _, mllm = family
    pictures = [families.picture((257, 230))] if mllm.multimodal else []
    thrice = mllm.prepare([Pair("the red dog", pictures)] * 3, generate=True).inputs
    made = AllRows().inputs(prompt(mllm).inputs)
    assert made.keys() == thrice.keys() and all(torch.equal(made[name], one) for name, one in thrice.items())
