"""METHOD, *Steering*, on a tiny LLaVA with random weights: what the hook does, and where."""

from pathlib import Path

import numpy as np
import pytest
import torch

from precompute.errors import SaevxError
from precompute.live import steer as steering
from precompute.live.intervention import Intervention, Scope, Steer
from precompute.live.steer import Done, Steering, steer
from precompute.live.steer_rows import CONTROL_ROW, DEFAULT, STEERED
from precompute.live.steer_sampling import Channels, Event, KlEvent, TargetEvent, TokenEvent
from precompute.model.batch import IMAGE, SPECIAL, TEXT, Batch, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from tests.helpers import tiny

PAIR = Pair(text="a red dog", images=[tiny.picture(3)])
STEPS = 8


@pytest.fixture(scope="module")
def mllm(tmp_path_factory: pytest.TempPathFactory) -> Mllm:
    torch.set_num_threads(1)
    folder = tiny.make_llava(tmp_path_factory.mktemp("steer") / "model")
    return Mllm.load(folder, layer=tiny.LAYER, full=True, device="cpu")


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> SaeV:
    return SaeV.load(tiny.make_sae(tmp_path_factory.mktemp("steer") / "sae"))


@pytest.fixture(scope="module")
def batch(mllm: Mllm) -> Batch:
    return mllm.prepare([PAIR], generate=True)


class Run:
    """A run with every event, every step's logits, and h of every position before and after the hook; of all rows,
    so none is shared."""

    def __init__(self, mllm: Mllm, sae: SaeV, batch: Batch, changes: list[Intervention], **options: object) -> None:
        self.events: list[Event] = []
        self.logits: list[torch.Tensor] = []
        self.before: list[torch.Tensor] = []
        self.after: list[torch.Tensor] = []
        layers = mllm.decoder.layers
        handles = [
            mllm.model.get_output_embeddings().register_forward_hook(
                lambda m, a, out: self.logits.append(out[:, -1].clone())
            ),
            # The layer's own norm-free output, seen before and after the steering hook.
            layers[mllm.layer].register_forward_hook(lambda m, a, out: self.before.append(hidden(out))),
            layers[mllm.layer + 1].register_forward_pre_hook(lambda m, a: self.after.append(a[0].clone())),
        ]
        try:
            wanted = Steering(changes, **{"max_tokens": STEPS, "share": False, **options})  # type: ignore[arg-type]
            self.done: Done = steer(mllm, sae, batch, wanted, emit=self.events.append)
        finally:
            for handle in handles:
                handle.remove()
        self.h = torch.cat(self.before, dim=1)
        self.steered_h = torch.cat(self.after, dim=1)

    @property
    def changed(self) -> np.ndarray:
        """[3, s] bool: where the hook changed h."""
        return (self.h != self.steered_h).any(dim=-1).numpy()

    def tokens(self, channel: str) -> list[TokenEvent]:
        return [e for e in self.events if isinstance(e, TokenEvent) and e.channel == channel]

    @property
    def kl(self) -> list[KlEvent]:
        return [e for e in self.events if isinstance(e, KlEvent)]


def hidden(output: object) -> torch.Tensor:
    return (output[0] if isinstance(output, tuple) else output).clone()  # type: ignore[union-attr]


def active_feature(mllm: Mllm, sae: SaeV, batch: Batch) -> tuple[int, float]:
    """A feature that fires on the prompt, and its largest value there."""
    h_td = mllm.hidden(batch)[0]
    largest_f = sae.encode(h_td[torch.from_numpy(batch.modality_bs[0] != SPECIAL)]).max(dim=0).values
    return int(largest_f.argmax()), float(largest_f.max())


def test_add_at_strength_0_changes_no_bit(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    changes = [Intervention(5, "add", 0.0, 1.0)]
    hooked, bare = Run(mllm, sae, batch, changes), Run(mllm, sae, batch, changes, hooked=False)
    assert len(hooked.logits) == len(bare.logits) == STEPS
    for a, b in zip(hooked.logits, bare.logits, strict=True):
        assert torch.equal(a, b)
    assert hooked.events == bare.events
    assert hooked.done.delta_ratio == 0 and hooked.done.n_steered == 0


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_without_a_change_both_channels_say_the_same(mllm: Mllm, sae: SaeV, batch: Batch, temperature: float) -> None:
    run = Run(mllm, sae, batch, [], temperature=temperature, seed=4)
    assert run.done.text["default"] == run.done.text["steered"]
    # Rows of one batch may differ in their last bits, as kernels and thread counts have it.
    assert [e.kl for e in run.kl] == pytest.approx([0.0] * len(run.kl), abs=1e-5) and run.kl


def test_the_delta_is_the_methods(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    """h + Σ (t_k − z_k(h)) d_k against a float64 reference that decodes, clamps and adds the error back."""
    feature, top = active_feature(mllm, sae, batch)
    changes = [
        Intervention(feature, "ablate", 9.0, top),
        Intervention(7, "set", 0.02, 2.0),
        Intervention(9, "add", -0.01, 3.0),
    ]
    change = Steer(sae, changes)
    h_td = mllm.hidden(batch)[0]
    z_tf = sae.encode(h_td)
    wanted_tf = z_tf.clone()
    wanted_tf[:, feature] = 0
    wanted_tf[:, 7] = 0.04
    wanted_tf[:, 9] += -0.03
    error_td = h_td.double() - sae.decode(z_tf).double()
    reference_td = sae.decode(wanted_tf).double() + error_td
    delta_td = reference_td - h_td
    norm_t = delta_td.norm(dim=-1) / h_td.double().norm(dim=-1)
    assert (norm_t < 1).any() and (norm_t > 1).any(), "both sides of the cap should be seen"
    reference_td = h_td + delta_td / norm_t.clamp_min(1)[:, None]
    torch.testing.assert_close(change(h_td).double(), reference_td, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cat(change.ratios).double(), norm_t, rtol=1e-3, atol=1e-4)


def test_a_topk_sae_steers_with_its_full_output(tmp_path: Path, mllm: Mllm, batch: Batch) -> None:
    topk = SaeV.load(tiny.make_sae(tmp_path / "sae", architecture="topk"))
    h_td = mllm.hidden(batch)[0]
    z_tf = topk.encode(h_td)
    feature = int((z_tf > 0).sum(dim=0).argmax())
    unselected = z_tf[:, feature] == 0
    assert unselected.any() and not unselected.all()
    steered_td = Steer(topk, [Intervention(feature, "ablate", 0, 1.0)])(h_td)
    assert torch.equal(steered_td[unselected], h_td[unselected])
    assert (steered_td[~unselected] != h_td[~unselected]).any(dim=-1).all()


@pytest.mark.parametrize(
    "scope",
    [("image",), ("prompt",), ("generated",), ("image", "generated"), ("image", "prompt", "generated")],
)
def test_only_the_scope_of_the_steered_row_changes(
    mllm: Mllm, sae: SaeV, batch: Batch, scope: tuple[Scope, ...]
) -> None:
    run = Run(mllm, sae, batch, [Intervention(5, "add", 0.5, 1.0)], scope=scope)
    changed = run.changed
    assert not changed[DEFAULT].any() and not changed[CONTROL_ROW].any()
    modality_s = batch.modality_bs[0]
    n = len(modality_s)
    wanted = np.zeros(changed.shape[1], dtype=bool)
    wanted[:n] |= ("image" in scope) & (modality_s == IMAGE)
    wanted[:n] |= ("prompt" in scope) & (modality_s == TEXT)
    if "generated" in scope:
        special = set(mllm.tokenizer.all_special_ids)
        ids = mllm.tokenizer(run.done.text["steered"], add_special_tokens=False)["input_ids"]
        assert not special & set(ids)
        wanted[n - 1 :] = True
    assert (changed[STEERED] == wanted).all()
    assert run.done.n_steered == wanted.sum()


def test_a_painted_mask_steers_only_its_patches(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    run = Run(mllm, sae, batch, [Intervention(5, "add", 0.5, 1.0)], scope=("image",), mask=[(0, 0, 1), (0, 3, 3)])
    image = np.flatnonzero(batch.modality_bs[0] == IMAGE)
    assert np.flatnonzero(run.changed[STEERED]).tolist() == [image[1], image[15]]
    for wrong in ([(1, 0, 0)], [(0, 4, 0)], [(0, 0, 4)]):
        with pytest.raises(SaevxError, match=r"row|view"):
            steer(mllm, sae, batch, Steering([], scope=("image",), mask=wrong, max_tokens=1))


def test_sinks_are_left_alone(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    norm_s = mllm.hidden(batch)[0].norm(dim=-1).numpy()
    text = np.flatnonzero(batch.modality_bs[0] == TEXT)
    limit = float(np.median(norm_s[text]))
    run = Run(mllm, sae, batch, [Intervention(5, "add", 0.5, 1.0)], scope=("prompt",), sink_norm=(limit, limit))
    assert np.flatnonzero(run.changed[STEERED]).tolist() == text[norm_s[text] <= limit].tolist()
    assert 0 < run.done.n_steered < len(text)


def test_the_change_is_capped_at_the_size_of_h_and_says_so(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    run = Run(mllm, sae, batch, [Intervention(5, "add", 50.0, 10.0)])
    delta = (run.steered_h - run.h)[STEERED].norm(dim=-1)
    assert torch.all(delta <= run.h[STEERED].norm(dim=-1) * 1.001) and float(delta.max()) > 0
    assert run.done.capped and run.done.delta_ratio > 1 and "scaled down" in str(run.done.warning)
    length = float(sae.directions_fd[5].norm())
    typical = float(run.h[STEERED, np.flatnonzero(batch.modality_bs[0] == TEXT)].norm(dim=-1).mean())
    gentle = Run(mllm, sae, batch, [Intervention(5, "add", 1.0, 0.7 * typical / length)], scope=("prompt",))
    assert not gentle.done.capped and 0.5 < gentle.done.delta_ratio < 1 and gentle.done.warning


def test_a_control_changes_h_as_much_along_a_random_feature(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    feature, largest = active_feature(mllm, sae, batch)
    changes = [Intervention(feature, "add", 1.5, largest)]
    other = (feature + 1) % sae.n_features
    runs = [Run(mllm, sae, batch, changes, scope=("image",), control=control) for control in (None, other)]
    deltas = [(run.steered_h - run.h)[STEERED, : batch.length_b[0]] for run in runs]
    lengths = [delta_sd.norm(dim=-1) for delta_sd in deltas]
    assert torch.allclose(*lengths, atol=1e-4) and float(lengths[0].max()) > 0
    at = lengths[1] > 1e-3
    cosine = torch.nn.functional.cosine_similarity(deltas[1][at], sae.directions_fd[other].float()[None], dim=-1)
    assert torch.allclose(cosine, torch.ones_like(cosine), atol=1e-4)
    assert runs[1].done.delta_ratio == pytest.approx(runs[0].done.delta_ratio, rel=1e-5)


def test_the_probability_of_a_target_is_that_of_the_first_step(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    feature, largest = active_feature(mllm, sae, batch)
    run = Run(mllm, sae, batch, [Intervention(feature, "add", 2.0, largest)], target=[30, 40])
    (event,) = [one for one in run.events if isinstance(one, TargetEvent)]
    p_rv = run.logits[0].double().softmax(dim=-1)
    assert event.p_default == pytest.approx(float(p_rv[DEFAULT, [30, 40]].sum()), rel=1e-5)
    assert event.p_steered == pytest.approx(float(p_rv[STEERED, [30, 40]].sum()), rel=1e-5)
    assert event.p_default != event.p_steered


def test_kl_compares_both_models_on_the_steered_prefix(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    """Step by step against the unhooked model run afresh on prompt + steered text, without a cache."""
    run = Run(mllm, sae, batch, [Intervention(5, "add", 1.0, 8.0)])
    assert run.done.text["default"] != run.done.text["steered"]
    chosen = [int(step[STEERED].argmax()) for step in run.logits]
    assert max(e.kl for e in run.kl) > 0
    assert run.done.mean_kl == pytest.approx(np.mean([e.kl for e in run.kl]))
    inputs = {k: v[:1] for k, v in batch.inputs.items() if k != "attention_mask"}
    with torch.inference_mode():
        for step, event in enumerate(run.kl):
            prefix = torch.tensor([chosen[:step]], dtype=torch.long)
            ids = torch.cat([inputs["input_ids"], prefix], dim=1)
            plain = mllm.model(**{**inputs, "input_ids": ids}).logits[0, -1].double().log_softmax(-1)
            steered = run.logits[step][STEERED].double().log_softmax(-1)
            kl = float((steered.exp() * (steered - plain)).sum())
            assert event.kl == pytest.approx(kl, rel=1e-3, abs=1e-5)
            assert event.logprob_default == pytest.approx(float(plain[chosen[step]]), rel=1e-3, abs=1e-4)
            assert run.tokens("steered")[step].logprob == pytest.approx(
                float(steered[chosen[step]]), rel=1e-3, abs=1e-4
            )


def test_the_same_seed_gives_the_same_noise_to_both_rows(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    changes = [Intervention(5, "add", 0.05, 1.0)]
    first, again = (Run(mllm, sae, batch, changes, temperature=1.0, seed=11) for _ in range(2))
    other = Run(mllm, sae, batch, changes, temperature=1.0, seed=12)
    assert first.events == again.events
    assert first.done.text["default"] != other.done.text["default"]
    # A slight push leaves most tokens alone under common noise; independent noise would agree on 1 in 50.
    same = [a.text == b.text for a, b in zip(first.tokens("default"), first.tokens("steered"), strict=False)]
    assert sum(same) >= len(same) / 2
    # Gumbel-max draws from the softmax: the first token follows the model's own probabilities.
    prob_v = first.logits[0][DEFAULT].double().softmax(-1)
    sampler = steering.TokenSampler(mllm, Channels.of_candidates([1], [0]), lambda candidate, event: None, 1.0, set())
    drawn = torch.stack([sampler.choose(first.logits[0][[DEFAULT]], [0])[0] for _ in range(4000)])
    top = int(prob_v.argmax())
    share = float((drawn == top).double().mean())
    assert abs(share - float(prob_v[top])) < 4 * (float(prob_v[top]) / 4000) ** 0.5 + 1e-3


def test_greedy_is_what_generate_writes(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    run = Run(mllm, sae, batch, [Intervention(5, "add", 1.0, 8.0)])
    one = {k: v[:1] for k, v in batch.inputs.items()}
    ids = mllm.model.generate(**one, do_sample=False, max_new_tokens=STEPS, pad_token_id=0)
    written = mllm.tokenizer.decode(ids[0, one["input_ids"].shape[1] :], skip_special_tokens=True)
    assert run.done.text["default"] == written
    streamed = "".join(e.text for e in run.tokens("default"))
    assert written.startswith(streamed) and set(written[len(streamed) :]) <= {"\ufffd"}


def test_it_stops_when_nobody_listens(mllm: Mllm, sae: SaeV, batch: Batch) -> None:
    run_events: list[Event] = []
    query = []

    def stop() -> bool:
        query.append(1)
        return len(query) >= 3

    steer(mllm, sae, batch, Steering([], max_tokens=100), emit=run_events.append, stop=stop)
    assert max(e.step for e in run_events) == 2


def test_a_hook_that_did_not_fire_is_an_error(
    mllm: Mllm, sae: SaeV, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = torch.nn.Identity()
    monkeypatch.setattr(mllm, "decoder_layer", lambda: unused)
    with pytest.raises(SaevxError, match="fired 0 times"):
        steer(mllm, sae, batch, Steering([Intervention(5, "add", 1.0, 1.0)], max_tokens=2))


@pytest.mark.parametrize(
    "changes,words",
    [
        ([Intervention(96, "add", 1.0, 1.0)], "from 0 to 95"),
        ([Intervention(3, "add", 1.0, 0.0)], "never active"),
        ([Intervention(3, "add", 1.0, 1.0), Intervention(3, "set", 1.0, 1.0)], "twice"),
    ],
)
def test_wrong_features_are_told(sae: SaeV, changes: list[Intervention], words: str) -> None:
    with pytest.raises(SaevxError, match=words):
        Steer(sae, changes)


def test_text_alone_can_be_steered_too(tmp_path: Path, sae: SaeV) -> None:
    llama = Mllm.load(tiny.make_llama(tmp_path / "llama"), layer=tiny.LAYER, full=True, device="cpu")
    batch = llama.prepare([Pair(text="the blue cat")], generate=True)
    changes = [Intervention(5, "add", 0.0, 1.0)]
    a, b = Run(llama, sae, batch, changes), Run(llama, sae, batch, changes, hooked=False)
    assert all(torch.equal(x, y) for x, y in zip(a.logits, b.logits, strict=True))
    assert Run(llama, sae, batch, [Intervention(5, "add", 1.0, 8.0)]).done.n_steered > 0


def test_bfloat16_weights_keep_the_no_op_exact(tmp_path: Path, sae: SaeV) -> None:
    half = Mllm.load(tiny.make_llava(tmp_path / "model"), layer=tiny.LAYER, full=True, device="cpu", dtype="bfloat16")
    batch = half.prepare([PAIR], generate=True)
    changes = [Intervention(5, "add", 0.0, 1.0)]
    a, b = Run(half, sae, batch, changes), Run(half, sae, batch, changes, hooked=False)
    assert a.events == b.events and all(torch.equal(x, y) for x, y in zip(a.logits, b.logits, strict=True))
