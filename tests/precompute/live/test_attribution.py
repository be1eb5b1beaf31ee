"""Why an answer: its attribution against finite differences and a loop, and the test of it against plain forwards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from precompute.errors import SaevxError
from precompute.live.answers import logprob_of, with_answer, word_numbers
from precompute.live.attribution import ANSWER, REST, Attribution
from precompute.live.intervention import Intervention
from precompute.live.trial import CHANGED, REMOVED, Fill, Prompt, Removal, random_removals, run_trial, word_class
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.sae.encode import Scale
from precompute.sae.sae import SaeV
from tests.helpers import families, tiny

SCALE = Scale(0, (np.inf, np.inf))
N = 5


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Prompt:
    folder: Path = tmp_path_factory.mktemp("attribution")
    mllm = Mllm.load(tiny.make_llava(folder / "model"), layer=tiny.LAYER, full=True, device="cpu", dtype="float32")
    sae = SaeV.load(str(tiny.make_sae(folder / "sae")), "cpu", layer=tiny.LAYER)
    return Prompt(mllm, sae, SCALE, Pair("a red dog", [tiny.picture(1)]))


@pytest.fixture(scope="module")
def ids(prompt: Prompt) -> list[int]:
    return prompt.answer(N)


@pytest.fixture(scope="module")
def one(prompt: Prompt, ids: list[int]) -> Attribution:
    return prompt.attribution(ids)


def hidden_of(prompt: Prompt, ids: list[int]) -> Tensor:
    """h [s, d] of the prompt and all tokens before the last."""
    return prompt.mllm.hidden(with_answer(prompt.batch, ids[:-1]))[0].clone()


def odds(prompt: Prompt, ids: list[int], h_sd: Tensor) -> float:
    """Log-odds of the last token with h in place of what the model has after layer L: a plain forward, float64."""

    def hook(_module: Any, _args: Any, output: Any) -> Any:
        return (h_sd[None], *output[1:]) if isinstance(output, tuple) else h_sd[None]

    mllm = prompt.mllm
    handle = mllm.decoder_layer().register_forward_hook(hook)
    with torch.inference_mode():
        inputs = mllm.causal_inputs(with_answer(prompt.batch, ids[:-1]))
        logits_v = mllm.model(**inputs, use_cache=False).logits[0, -1].double()
    handle.remove()
    p = float(logits_v.softmax(0)[ids[-1]])
    return float(np.log(p) - np.log1p(-p))


def test_the_answer_is_the_likeliest_token_each_time(prompt: Prompt, ids: list[int]) -> None:
    assert len(ids) == N
    for i in range(N):
        inputs = prompt.mllm.causal_inputs(with_answer(prompt.batch, ids[:i]))
        with torch.inference_mode():
            logits_v = prompt.mllm.model(**inputs, use_cache=False).logits[0, -1].double()
        assert int(logits_v.argmax()) == ids[i]
        assert prompt.logprobs(ids)[i] == pytest.approx(float(logits_v.log_softmax(0)[ids[i]]), abs=1e-5)


def test_the_parts_are_complete(one: Attribution) -> None:
    assert one.gap < 1e-5
    parts = one.part_e.sum() + one.error_g.sum() + one.bias_g.sum() + one.rest
    assert parts == pytest.approx(one.total, rel=1e-4, abs=1e-5)


def test_the_parts_against_finite_differences(prompt: Prompt, ids: list[int], one: Attribution) -> None:
    """A feature's part on each side is the slope of the log-odds as its z d is taken from h there, by central
    differences; features one token at a time, in a loop."""
    h_sd, sae, step = hidden_of(prompt, ids), prompt.sae, 1e-2
    assert one.log_odds == pytest.approx(odds(prompt, ids, h_sd), abs=1e-4)
    feature_n, part_n3 = one.by_feature()
    for i in [0, 1, len(feature_n) - 1]:
        for side in range(3):
            delta_sd = torch.zeros_like(h_sd)
            for s in np.flatnonzero(one.side_s == side).tolist():
                inner, k = sae.sae, int(feature_n[i])
                z = torch.relu((h_sd[s] - inner.b_dec) @ inner.W_enc[:, k] + inner.b_enc[k])
                delta_sd[s] = z * inner.W_dec[k]
            slope = (odds(prompt, ids, h_sd + step * delta_sd) - odds(prompt, ids, h_sd - step * delta_sd)) / (2 * step)
            assert part_n3[i, side] == pytest.approx(slope, rel=2e-2, abs=2e-4)


def test_the_error_and_the_bias_against_finite_differences(prompt: Prompt, ids: list[int], one: Attribution) -> None:
    h_sd, step = hidden_of(prompt, ids), 1e-2
    rebuilt_sd = prompt.sae.decode(prompt.sae.encode(h_sd)).clone()
    of_error_sd, of_bias_sd = h_sd - rebuilt_sd, prompt.sae.decode_zero_d.expand_as(h_sd)
    for side in range(3):
        on_side = torch.from_numpy(one.side_s == side)[:, None]
        for part_g, delta_sd in ((one.error_g, of_error_sd), (one.bias_g, of_bias_sd)):
            ends = [odds(prompt, ids, h_sd + sign * step * delta_sd * on_side) for sign in (1, -1)]
            assert part_g[side] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-2, abs=2e-4)


def test_the_kinds_of_tokens(prompt: Prompt, ids: list[int], one: Attribution) -> None:
    """The answer begins with the last position of the prompt, which belongs to the template and predicts its first
    token."""
    modality_s = prompt.batch.modality_bs[0]
    n = len(modality_s)
    assert one.side_s[n - 1 :].tolist() == [ANSWER] * N
    assert one.side_s[: n - 1].tolist() == [int(m) if m in (TEXT, IMAGE) else REST for m in modality_s[:-1]]
    sinks = Prompt(prompt.mllm, prompt.sae, Scale(0, (0.0, 0.0)), prompt.pair).attribution(ids)
    assert set(sinks.side_s) == {REST} and not len(sinks.part_e) and sinks.rest == pytest.approx(sinks.total)


def test_ablation_against_a_plain_forward(prompt: Prompt, ids: list[int], one: Attribution) -> None:
    h_sd = hidden_of(prompt, ids)
    chosen = one.by_feature()[0][:2].tolist()
    z_tf = prompt.sae.encode(h_sd)[:, chosen]
    delta_sd = z_tf @ prompt.sae.directions_fd[chosen] * torch.from_numpy(one.side_s != REST)[:, None]
    delta_sd *= (h_sd.norm(dim=1) / delta_sd.norm(dim=1).clamp_min(1e-9)).clamp_max(1)[:, None]  # the cap of steering
    assert prompt.log_odds(ids, chosen)[-1] == pytest.approx(odds(prompt, ids, h_sd - delta_sd), abs=1e-4)


def test_a_steered_answer_is_explained_as_it_was_steered(prompt: Prompt, ids: list[int]) -> None:
    add = Intervention(int(prompt.attribution(ids).by_feature()[0][0]), "add", 0.2, 1.0)
    steered = Prompt(prompt.mllm, prompt.sae, SCALE, prompt.pair, [add], ["image"])
    own = steered.attribution(ids)
    h_sd = hidden_of(prompt, ids)
    h_sd[torch.from_numpy(own.side_s == IMAGE)] += 0.2 * prompt.sae.directions_fd[add.feature]
    assert own.log_odds == pytest.approx(odds(prompt, ids, h_sd), abs=1e-4)
    assert own.total != pytest.approx(prompt.attribution(ids).total)


def test_patches_are_painted_in_their_own_pixels(prompt: Prompt) -> None:
    before = np.asarray(prompt.pair.images[0])
    fills: list[tuple[Fill, Any]] = [("zero", (0, 0, 0)), ("mean", None)]
    for fill, colour in fills:
        after = np.asarray(prompt.with_painted([0, 5], fill).pair.images[0])  # two of 4 × 4 patches
        changed_yx = (before != after).any(-1)
        height, width = changed_yx.shape[0] // 4, changed_yx.shape[1] // 4
        mask_yx = np.zeros_like(changed_yx)
        mask_yx[:height, :width] = mask_yx[height : 2 * height, width : 2 * width] = True
        assert not changed_yx[~mask_yx].any() and len(np.unique(after[mask_yx], axis=0)) == 1
        assert colour is None or tuple(after[mask_yx][0]) == colour
    assert prompt.with_painted([], "mean") is prompt


def test_a_trial_has_its_controls_beside_it(prompt: Prompt, ids: list[int], one: Attribution) -> None:
    feature_n = one.by_feature()[0]
    removal = Removal((int(feature_n[0]),), (3,), "zero")
    family = np.arange(prompt.sae.n_features)
    draws = random_removals(removal, feature_n.tolist(), family, 16, n_draws=2, seed=1)
    trial = run_trial(prompt, ids, removal, draws, N)
    np.testing.assert_allclose(trial.before_n, prompt.logprobs(ids))
    without_patch = prompt.with_painted([3], "zero")
    np.testing.assert_allclose(trial.removed.logprob_n, without_patch.logprobs(ids, removal.features))
    assert trial.removed.answer == without_patch.answer(N, removal.features)
    assert trial.no_image is not None
    np.testing.assert_allclose(trial.no_image.logprob_n, Prompt(*vars_of(prompt), Pair("a red dog")).logprobs(ids))
    for outcome, drawn in zip(trial.random, draws, strict=True):
        np.testing.assert_allclose(
            outcome.logprob_n, prompt.with_painted(drawn.patches, "zero").logprobs(ids, drawn.features)
        )
    text = Prompt(*vars_of(prompt), Pair("a red dog"))
    assert run_trial(text, ids, Removal(), [], 1).no_image is None


def vars_of(prompt: Prompt) -> tuple[Mllm, SaeV, Scale]:
    return prompt.mllm, prompt.sae, prompt.scale


def test_random_removals_are_as_many_and_others() -> None:
    family = np.array([0, 0, 2, 3, 4, 5, 6, 7])
    removal = Removal((0, 3), (1, 2), "mean")
    draws = random_removals(removal, [0, 1, 3, 4, 5, 6], family, 6, n_draws=20, seed=0)
    assert draws == random_removals(removal, [0, 1, 3, 4, 5, 6], family, 6, n_draws=20, seed=0)
    assert draws != random_removals(removal, [0, 1, 3, 4, 5, 6], family, 6, n_draws=20, seed=1)
    for one in draws:
        assert len(set(one.features)) == len(set(one.patches)) == 2 and one.fill == "mean"
        assert set(one.features) <= {4, 5, 6} and set(one.patches) <= {0, 3, 4, 5}
    (few,) = random_removals(Removal((0,), (0, 1)), [0], family, 2, n_draws=1, seed=0)
    assert few == Removal((), (0, 1))  # nothing else fires; all patches are chosen


def test_words_and_their_classes() -> None:
    assert word_numbers([" a", " straw", "berry", ",", " dog"]) == [0, 1, 1, 2, 3]
    assert [word_class(x) for x in (-REMOVED, -CHANGED, -0.69, 0.0, CHANGED)] == [
        "removed", "changed", "kept", "kept", "changed",
    ]  # fmt: skip
    assert logprob_of(np.array([0.0, 40.0])).tolist() == pytest.approx([-np.log(2), -np.exp(-40)], rel=1e-9)


def test_a_feature_that_does_not_exist_is_refused(prompt: Prompt, ids: list[int]) -> None:
    with pytest.raises(SaevxError, match="There is no feature 96"):
        prompt.log_odds(ids, [96])


@pytest.mark.parametrize("family", families.MULTIMODAL)
def test_every_family_is_explained(tmp_path: Path, prompt: Prompt, family: str) -> None:
    mllm = Mllm.load(families.MULTIMODAL[family](tmp_path), layer=tiny.LAYER, full=True, device="cpu", dtype="float32")
    one = Prompt(mllm, prompt.sae, SCALE, Pair("the red dog", [families.picture((257, 230))]))
    ids = one.answer(2)
    ids = ids if len(ids) == 2 else [5, 6]  # the random model of some family ends at once
    attribution, log_odds = one.attribution(ids), one.log_odds(ids)
    assert attribution.gap < 1e-4 and attribution.log_odds == pytest.approx(log_odds[-1], abs=1e-3)
    on_image = np.abs(attribution.by_feature()[1][:, IMAGE]).sum()
    assert np.abs(attribution.part_e).sum() > 0 and (on_image > 0 or family == "gemma4")  # its upper layers share keys
    painted = one.with_painted(range(sum(view.rows * view.cols for view in one.batch.views[0])), "mean")
    assert np.isfinite(painted.log_odds(ids)).all() and not np.allclose(painted.log_odds(ids), log_odds)
