"""Steering with frozen attention, against a plain forward that moves the values with the unsteered weights."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from precompute.errors import SaevxError
from precompute.live.frozen_attention import why_not_frozen
from precompute.live.intervention import Intervention, Steer, prompt_scope
from precompute.live.steer import Steering, steer
from precompute.live.steer_rows import DEFAULT, STEERED
from precompute.model.batch import Batch, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from tests.helpers import families, tiny
from tests.helpers.steering import STEPS, Run, same


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> SaeV:
    return SaeV.load(tiny.make_sae(tmp_path_factory.mktemp("frozen") / "sae"))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Mllm:
    torch.set_num_threads(1)
    return Mllm.load(
        families.MULTIMODAL["llava"](tmp_path_factory.mktemp("llava")), layer=tiny.LAYER, full=True, device="cpu"
    )


def prompt(mllm: Mllm) -> Batch:
    pictures = [families.picture((257, 230))] if mllm.multimodal else []
    return mllm.prepare([Pair("the red dog", pictures)], generate=True)


def changes(sae: SaeV, size: float = 6.0) -> list[Intervention]:
    return [Intervention(5, "add", 1.0, size / float(sae.directions_fd[5].norm()))]


class Watched:
    """The eager attention of Llama: remembers the weights of each layer, or moves the values with remembered ones."""

    def __init__(self) -> None:
        self.weights: dict[int, torch.Tensor] = {}
        self.replay = False
        self.plain = modeling_llama.eager_attention_forward

    def __call__(self, module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        out, weights = self.plain(module, query, key, value, mask, **options)
        if not self.replay:
            self.weights[module.layer_idx] = weights
        elif module.layer_idx > tiny.LAYER:
            weights = self.weights[module.layer_idx]
            out = weights @ modeling_llama.repeat_kv(value, module.num_key_value_groups)
            out = out.transpose(1, 2).contiguous()
        return out, weights


@pytest.fixture
def watched(llava: Mllm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    before = llava.model.config.get_text_config()._attn_implementation
    llava.model.set_attn_implementation("eager")
    watched = Watched()
    monkeypatch.setattr(modeling_llama, "eager_attention_forward", watched)
    yield watched
    llava.model.set_attn_implementation(before)


@pytest.mark.parametrize("share", [None, False])
def test_logits_are_those_of_the_unsteered_weights(
    llava: Mllm, sae: SaeV, watched: Watched, share: bool | None
) -> None:
    """The whole steered text in one forward, no cache: once as it is, then with Δ and the weights of the first."""
    batch, scope = prompt(llava), ("image", "prompt")
    run = Run(llava, sae, batch, changes(sae), scope=scope, frozen=True, share=share)
    written = torch.tensor([run.ids(STEERED)[:-1]])
    ids = torch.cat([batch.inputs["input_ids"], written], dim=1)
    inputs = {**batch.inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    at = torch.from_numpy(prompt_scope(batch, scope, None)).nonzero().flatten()
    edit = Steer(sae, changes(sae))

    def add(_module: Any, _args: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[0, at] = edit(hidden[0, at])
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    with torch.inference_mode():
        llava.model(**inputs)
        watched.replay = True
        handle = llava.decoder_layer().register_forward_hook(add)
        logits_sv = llava.model(**inputs).logits[0]
        handle.remove()
        watched.replay = False
    first = batch.inputs["input_ids"].shape[1] - 1
    free = Run(llava, sae, batch, changes(sae), scope=scope, share=share)
    for step in range(STEPS):
        torch.testing.assert_close(run.logits[step][STEERED], logits_sv[first + step], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(run.logits[0][STEERED], free.logits[0][STEERED], atol=1e-4)
    assert torch.equal(run.logits[0][DEFAULT], free.logits[0][DEFAULT])


def test_the_weights_of_a_steered_row_are_those_of_the_unsteered_one(llava: Mllm, sae: SaeV, watched: Watched) -> None:
    for frozen in (True, False):
        Run(llava, sae, prompt(llava), changes(sae), frozen=frozen, share=False, max_tokens=1)
        above = [w for layer, w in watched.weights.items() if layer > tiny.LAYER]
        equal = [torch.equal(w[1], w[2]) for w in above]  # steered, and the unsteered model on the same text
        assert above and all(equal) == frozen


@pytest.mark.parametrize("family", [*families.MULTIMODAL, *(f"{name} alone" for name in families.TEXT_ONLY)])
def test_every_family_freezes_or_says_why_not(tmp_path: Path, sae: SaeV, family: str) -> None:
    torch.set_num_threads(1)
    name, alone, _ = family.partition(" alone")
    made = families.text_only(tmp_path, name) if alone else families.MULTIMODAL[name](tmp_path)
    mllm = Mllm.load(made, layer=tiny.LAYER, full=True, device="cpu")
    assert why_not_frozen(mllm) is None
    batch = prompt(mllm)
    frozen = Run(mllm, sae, batch, changes(sae), frozen=True)
    same(frozen, Run(mllm, sae, batch, changes(sae), frozen=True, share=False))
    free = Run(mllm, sae, batch, changes(sae))
    assert not torch.allclose(frozen.logits[0][STEERED], free.logits[0][STEERED], atol=1e-5)
    still = Run(mllm, sae, batch, [Intervention(5, "add", 0.0, 1.0)], frozen=True)
    for step in still.logits:
        torch.testing.assert_close(step[STEERED], step[DEFAULT], rtol=1e-5, atol=1e-5)  # strength 0 is no steering


def test_attention_that_cannot_be_frozen_is_refused(llava: Mllm, sae: SaeV, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where one projection makes keys and values."""
    attention = llava.decoder.layers[tiny.LAYER + 1].self_attn
    monkeypatch.setattr(attention, "v_proj", None)
    with pytest.raises(SaevxError, match=r"cannot be frozen.*leave `attention` at free"):
        steer(llava, sae, prompt(llava), Steering(changes(sae), frozen=True))
    fused = SimpleNamespace(decoder=SimpleNamespace(layers=[torch.nn.Linear(2, 2)] * 3), layer=0)
    assert why_not_frozen(fused) is not None  # type: ignore[arg-type]
