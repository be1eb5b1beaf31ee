"""The measured effect against two plain forwards, one token at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from precompute.errors import SaevxError
from precompute.live.effect import MAX_PLACES, Effect, measure_effect
from precompute.live.steer_rows import why_not_shared
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from tests.helpers import families, tiny

MANIFEST: dict[str, Any] = {"scale_log2": 0, "sinks": {"multiple": None, "median_norm": {"text": 1.0, "image": 1.0}}}


class Engine(NamedTuple):
    mllm: Mllm
    sae: SaeV


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder: Path = tmp_path_factory.mktemp("effect")
    mllm = Mllm.load(tiny.make_llava(folder / "model"), layer=tiny.LAYER, full=True, device="cpu", dtype="float32")
    return Engine(mllm, SaeV.load(str(tiny.make_sae(folder / "sae")), "cpu", layer=tiny.LAYER))


PAIRS = [Pair("a red dog on the left", [tiny.picture(1)]), Pair("two cats", [tiny.picture(2)]), Pair("the big ball")]


def z_of(sae: SaeV, h_sd: Tensor, feature: int) -> Tensor:
    """float32 [s]: the feature's activation by its own formula."""
    inner = sae.sae
    return torch.relu((h_sd - inner.b_dec) @ inner.W_enc[:, feature] + inner.b_enc[feature])


def logprobs(engine: Engine, inputs: dict[str, Tensor], delta_sd: Tensor | None) -> tuple[Tensor, Tensor]:
    """h [s, d], and float64 [s, V] of the next token with something added to it."""
    seen = []

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        h_bsd = output[0] if isinstance(output, tuple) else output
        seen.append(h_bsd[0].clone())
        changed = h_bsd if delta_sd is None else h_bsd + delta_sd
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = engine.mllm.decoder_layer().register_forward_hook(hook)
    with torch.inference_mode():
        logits_sv = engine.mllm.model(**inputs, use_cache=False).logits[0]
    handle.remove()
    return seen[0], logits_sv.double().log_softmax(-1)


def naive(engine: Engine, pairs: list[Pair], feature: int, control: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Log-probabilities at each place: unchanged, ablated, control."""
    d_fd = engine.sae.directions_fd.float()
    for pair in pairs:
        batch = engine.mllm.prepare([pair])
        kind = batch.modality_bs[0].tolist()
        inputs = engine.mllm.causal_inputs(batch)
        h_sd, before_sv = logprobs(engine, inputs, None)
        z_s = z_of(engine.sae, h_sd, feature) * torch.tensor([one in (TEXT, IMAGE) for one in kind])
        ablated_sv = logprobs(engine, inputs, -z_s[:, None] * d_fd[feature])[1]
        length_s = z_s * d_fd[feature].norm()
        control_sv = logprobs(engine, inputs, -length_s[:, None] * d_fd[control] / d_fd[control].norm())[1]
        fires = [s for s, z in enumerate(z_s.tolist()) if z > 0]
        for s in range(len(kind)):
            predicts = kind[s] == TEXT or (s + 1 < len(kind) and kind[s + 1] == TEXT)
            if fires and s >= fires[0] and predicts:
                yield before_sv[s], ablated_sv[s], control_sv[s]


def measured(engine: Engine, pairs: list[Pair], feature: int, control: int) -> Effect | None:
    return measure_effect(engine.mllm, engine.sae, MANIFEST, pairs, (feature, control))


@pytest.mark.parametrize("share", [None, False])
@pytest.mark.parametrize("feature, control", [(0, 1), (5, 17), (41, 3), (60, 2)])
def test_it_is_what_plain_forwards_say(engine: Engine, feature: int, control: int, share: bool | None) -> None:
    places = list(naive(engine, PAIRS, feature, control))
    assert why_not_shared(engine.mllm) is None
    effect = measure_effect(engine.mllm, engine.sae, MANIFEST, PAIRS, (feature, control), share=share)
    assert effect is not None and effect.n_places == len(places)
    before, *others = (torch.stack(rows).numpy() for rows in zip(*places, strict=True))
    np.testing.assert_allclose(effect.before_v, np.exp(before).mean(0), atol=1e-6)
    for change, after in zip((effect.ablation, effect.control), others, strict=True):
        np.testing.assert_allclose(change.probability_v, (np.exp(after) - np.exp(before)).mean(0), atol=1e-6)
        np.testing.assert_allclose(change.logprob_v, (after - before).mean(0), atol=1e-4)
        assert change.kl == pytest.approx((np.exp(before) * (before - after)).sum(-1).mean(), abs=1e-5)
        assert change.kl > 0


def test_a_feature_that_never_fires_has_no_effect(engine: Engine) -> None:
    fires = {k for k in range(tiny.N_FEATURES) if list(naive(engine, PAIRS[2:], k, 0))}
    silent = next(k for k in range(tiny.N_FEATURES) if k not in fires)
    assert measured(engine, PAIRS[2:], silent, 0) is None
    assert measured(engine, [Pair("", [tiny.picture(1)])], next(iter(fires)), 0) is None  # nothing to predict


def test_sinks_are_left_as_they_are(engine: Engine) -> None:
    feature = next(k for k in range(tiny.N_FEATURES) if list(naive(engine, PAIRS, k, 0)))
    everything = {**MANIFEST, "sinks": {"multiple": 1e-6, "median_norm": {"text": 1.0, "image": 1.0}}}
    assert measure_effect(engine.mllm, engine.sae, everything, PAIRS, (feature, 0)) is None


def test_long_texts_are_read_up_to_a_limit(engine: Engine) -> None:
    pair = Pair("dog cat " * 50)
    feature = next(k for k in range(tiny.N_FEATURES) if len(list(naive(engine, [pair], k, 0))) > MAX_PLACES)
    effect = measured(engine, [pair], feature, 0)
    assert effect is not None and effect.n_places == MAX_PLACES


def test_a_feature_without_direction_is_refused(engine: Engine) -> None:
    weights = engine.sae.sae.W_dec
    row = weights[7].clone()
    with torch.no_grad():
        weights[7] = 0
    try:
        with pytest.raises(SaevxError, match="no direction"):
            measured(engine, PAIRS, 3, 7)
    finally:
        with torch.no_grad():
            weights[7] = row


@pytest.mark.parametrize("family", families.MULTIMODAL)
def test_shared_layers_change_nothing_in_any_family(tmp_path: Path, engine: Engine, family: str) -> None:
    mllm = Mllm.load(families.MULTIMODAL[family](tmp_path), layer=tiny.LAYER, full=True, device="cpu", dtype="float32")
    pairs = [Pair("the red dog", [families.picture((257, 230))])]
    feature = int(engine.sae.encode(mllm.hidden(mllm.prepare(pairs))[0]).sum(0).argmax())
    shared, apart = (
        measure_effect(mllm, engine.sae, MANIFEST, pairs, (feature, (feature + 1) % tiny.N_FEATURES), share=share)
        for share in (None, False)
    )
    assert shared is not None and apart is not None and shared.n_places == apart.n_places > 0
    for one, other in zip((shared.ablation, shared.control), (apart.ablation, apart.control), strict=True):
        np.testing.assert_allclose(one.probability_v, other.probability_v, atol=1e-6)
        assert one.kl == pytest.approx(other.kl, rel=1e-2, abs=1e-6) and one.kl > 0
