"""`saevx train` on the tiny model: the log, the folder it leaves, and a killed run that goes on."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from precompute.data.batches import Batching, plan_rows
from precompute.data.rows import read
from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, TEXT
from precompute.model.calibration import calibrate_data
from precompute.model.loader import load_batch, without_images
from precompute.model.mllm import Mllm
from precompute.options.train import TrainOptions
from precompute.sae.sae import SaeV
from precompute.training import train as training
from precompute.training.activation_stream import Meter, Stream, batches
from precompute.training.train import cut_texts, train
from tests.helpers import tiny
from tests.helpers.in_process import saevx, sums
from tests.helpers.tinies import Tiny

Maker = Callable[..., TrainOptions]


@pytest.fixture
def options(tiny_files: Tiny, tmp_path: Path) -> Maker:
    def make(**changed: Any) -> TrainOptions:
        given: dict[str, Any] = {
            "data": str(tiny_files.data), "model": str(tiny_files.model), "out": tmp_path / "sae",
            "layer": tiny.LAYER, "expansion": 2, "steps": 12, "batch_size": 64, "lr": 3e-3, "buffer_tokens": 300,
            "batch_tokens": 150, "log_every": 4, "checkpoint_every": 5, "dead_window": 6, "device": "cpu",
        }  # fmt: skip
        return TrainOptions(**{**given, **changed})

    return make


class Killed(BaseException):
    """As a signal ends a run: no handler of the code's own sees it."""


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
@pytest.mark.parametrize("after", [3, 7, 11])
def test_a_killed_run_gives_the_same_bytes(
    options: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, after: int
) -> None:
    """Killed before the first checkpoint, in the middle of a fill, and in the middle of a line of the log."""
    more: dict[str, Any] = {"architecture": architecture, "k": 8, "sinks": 1.3}
    whole = sums(train(options(out=tmp_path / "whole", **more)))
    assert set(whole) == {"cfg.json", "sae_weights.safetensors", "training.json"}

    killed = options(out=tmp_path / "killed", **more)
    update = Meter.update

    def die(self: Meter, output: Any, modality_t: Any, step: int) -> None:
        update(self, output, modality_t, step)
        if step > after:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Meter, "update", die)
        train(killed)
    saved = training.checkpoints(killed.part)
    assert [path.name for path in saved] == ([f"checkpoint-{after // 5 * 5:08d}"] if after > 5 else [])
    torch.rand(7)  # whatever else has used the global generator
    assert sums(train(killed)) == whole
    assert not killed.part.exists()


@pytest.mark.parametrize("architecture", ["standard", "topk", "batchtopk", "jumprelu"])
def test_a_checkpoint_is_a_saelens_folder(options: Maker, monkeypatch: pytest.MonkeyPatch, architecture: str) -> None:
    """It loads, and makes of raw h what the SAE in training makes of scaled h."""
    h_td = torch.randn(40, tiny.D_MODEL, generator=torch.Generator().manual_seed(0)) * 5
    seen: list[tuple[SaeV, torch.Tensor, torch.Tensor]] = []
    checkpoint = training.checkpoint

    def look(part: Path, trainer: Any, *rest: Any) -> None:
        checkpoint(part, trainer, *rest)
        with torch.inference_mode():
            acts_tf, hidden_pre = trainer.sae.encode_with_hidden_pre(trainer.activation_scaler(h_td))
            if architecture == "batchtopk":  # in training the batch decides, afterwards the threshold it has learnt
                acts_tf = torch.where(hidden_pre > trainer.sae.topk_threshold, hidden_pre, 0.0)
            rebuilt_td = trainer.activation_scaler.unscale(trainer.sae.decode(acts_tf))
        seen.append((SaeV.load(training.checkpoints(part)[-1]), acts_tf, rebuilt_td))

    monkeypatch.setattr(training, "checkpoint", look)
    train(options(architecture=architecture, k=8, steps=7))
    [(saved, acts_tf, rebuilt_td)] = seen
    assert saved.layer == tiny.LAYER and saved.hook == f"model.language_model.layers.{tiny.LAYER}"
    found_tf = saved.encode(h_td)
    torch.testing.assert_close(saved.decode(found_tf), rebuilt_td, rtol=1e-3, atol=1e-3)
    assert 0 < int((acts_tf > 0).sum()) < acts_tf.numel() and torch.equal(found_tf > 0, acts_tf > 0)
    if architecture != "topk":  # whose units are those of its decoder's norms
        torch.testing.assert_close(found_tf, acts_tf, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "matryoshka-batchtopk"])
def test_every_architecture_leaves_a_folder_that_loads(options: Maker, architecture: str) -> None:
    made = train(options(architecture=architecture, k=4, steps=6, save_dtype="bfloat16"))
    loaded = SaeV.load(made)
    assert loaded.n_features == 2 * tiny.D_MODEL
    report = json.loads((made / "training.json").read_text())
    assert report["sae"]["sha256"] == loaded.sha256
    assert [one["step"] for one in report["log"]] == [4, 6]


def test_training_learns_and_logs_both_modalities(options: Maker) -> None:
    report = json.loads((train(options(steps=60, preset="sae-v", l1=0.5, log_every=1)) / "training.json").read_text())
    log = report["log"]
    assert report["options"]["architecture"] == "standard" and report["options"]["preset"] == "sae-v"
    assert [one["tokens"] for one in log] == [64 * step for step in range(1, 61)]
    for name in ("text", "image", "both"):
        first, last = (np.mean([one["fvu"][name] for one in part]) for part in (log[:10], log[-10:]))
        assert 0 < last < 0.8 * first
        assert all(0 < one["l0"][name] <= 2 * tiny.D_MODEL for one in log)
    assert all(one["dead"]["both"] <= min(one["dead"]["text"], one["dead"]["image"]) for one in log)
    assert log[0]["lr"] == pytest.approx(3e-3) and log[-1]["lr"] < 1e-3, "it falls over the last fifth"
    assert log[0]["losses"]["l1_loss"] < log[20]["losses"]["l1_loss"], "λ is reached over the first steps"


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
@pytest.mark.parametrize("scaling", ["expected_average_only_in", "none", "layer_norm"])
def test_training_starts_at_the_mean_of_what_the_sae_sees(
    options: Maker, monkeypatch: pytest.MonkeyPatch, architecture: str, scaling: str
) -> None:
    """b_dec against the mean over the buffer token by token, and the encoder is the decoder's transpose."""
    starts: dict[str, tuple[Any, Stream, float]] = {}

    def look(trainer: Any, stream: Stream, *_: Any) -> None:
        starts[bias] = (copy.deepcopy(trainer.sae), stream, trainer.activation_scaler.scaling_factor or 1.0)
        raise Killed

    monkeypatch.setattr(training, "fit", look)
    for bias in ("mean", "zero"):
        with pytest.raises(Killed):
            train(options(architecture=architecture, k=8, decoder_bias=bias, out=options().out.with_name(bias),
                          sae_option=[f"normalize_activations={scaling}"]))  # fmt: skip
    sae, stream, scale = starts["mean"]
    assert (scale != 1) == (scaling == "expected_average_only_in")
    seen_td = stream.hidden_td.double().numpy() * scale
    if scaling == "layer_norm":
        seen_td = (seen_td - seen_td.mean(1, keepdims=True)) / seen_td.std(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(sae.b_dec.detach().numpy(), seen_td.mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(sae.W_enc, sae.W_dec.T, rtol=0, atol=0)
    assert not starts["zero"][0].b_dec.any()


def test_at_the_mean_the_first_step_explains_more(options: Maker) -> None:
    """The decoder need not carry the mean of h: the error starts near the variance, not near the mean square."""
    fvu = {}
    for bias in (None, "zero"):
        out = train(options(decoder_bias=bias, steps=1, log_every=1, out=options().out.with_name(f"sae-{bias}")))
        report = json.loads((out / "training.json").read_text())
        assert report["options"]["decoder_bias"] == (bias or "mean")
        fvu[bias] = report["log"][0]["fvu"]["both"]
    assert fvu[None] < 1.1 and fvu["zero"] > 1.2 * fvu[None]


def make_stream(mllm: Mllm, tiny_files: Tiny, *, multiple: float | None, pictures: bool = True) -> Stream:
    data = read(tiny_files.data) if pictures else without_images(read(tiny_files.data))
    data, plan = plan_rows(mllm, data, "data", Batching(150, seed=0))
    sink_norm = calibrate_data(mllm, data, plan, multiple).sink_norm
    return Stream(mllm, (data, plan), sink_norm, size=200, batch_size=50, seed=0)


def test_rows_without_a_picture_are_learnt_as_text(options: Maker, tiny_files: Tiny, tmp_path: Path) -> None:
    lines = (tiny_files.data / "metadata.jsonl").read_text().splitlines()
    folder = tmp_path / "mixed"
    shutil.copytree(tiny_files.data, folder)
    alone = [json.dumps({"id": f"text-{i}", "text": f"a red dog and {i} balls"}) for i in range(20)]
    (folder / "metadata.jsonl").write_text("\n".join([*lines, *alone]) + "\n")
    report = json.loads((train(options(data=str(folder))) / "training.json").read_text())
    assert report["data"]["n_samples"] == len(lines) + 20 and report["data"]["n_set_aside"] == 0


def test_the_buffer_holds_every_counted_token_once_an_epoch(mllm: Mllm, tiny_files: Tiny) -> None:
    """Against the pairs one by one: no special token, no sink, nothing lost, and in another order each epoch."""
    stream = make_stream(mllm, tiny_files, multiple=1.2)
    right: list[tuple[int, bytes]] = []
    n_sinks = 0
    for row in stream.data.rows:
        (one,) = load_batch(mllm, [row])
        assert one.batch is not None
        h_sd = mllm.hidden(one.batch)[0]
        for h_d, kind in zip(h_sd, one.batch.modality_bs[0].tolist(), strict=True):
            if kind in (TEXT, IMAGE):
                if float(h_d.norm()) > stream.sink[kind]:
                    n_sinks += 1
                else:
                    right.append((kind, h_d.numpy().round(3).tobytes()))
    assert n_sinks > 10
    served: list[tuple[int, bytes]] = []
    while len(served) + 50 <= len(right):
        hidden_td, modality_t = next(stream)
        assert len(hidden_td) == 50 and hidden_td.dtype == torch.float32
        served += [(int(m), h.numpy().round(3).tobytes()) for m, h in zip(modality_t, hidden_td, strict=True)]
    assert {kind for kind, _ in served[:50]} == {TEXT, IMAGE}

    # Padding moves the last bits, so compare by the numbers; a fill may run into the next epoch.
    def rows(result: list[tuple[int, bytes]]) -> np.ndarray:
        return np.stack([np.r_[kind, np.frombuffer(raw, np.float32)] for kind, raw in result])

    distance = np.abs(rows(served)[:, None] - rows(right)[None]).max(axis=2)
    assert (distance.min(axis=1) < 0.01).all(), "only counted tokens"
    first = next(iter(make_stream(mllm, tiny_files, multiple=1.2)))[0]
    again = make_stream(mllm, tiny_files, multiple=1.2)
    assert torch.equal(next(again)[0], first)
    while again.epoch < 1:
        next(again)
    orders = []
    for epoch in (0, 1):
        source = batches(again.data.rows, again.plan, again.seed, epoch, 0)
        orders.append([[row.index for row in next(source)] for _ in again.plan.batches])
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


def test_text_alone_never_sees_a_picture(mllm: Mllm, tiny_files: Tiny) -> None:
    stream = make_stream(mllm, tiny_files, multiple=None, pictures=False)
    for _ in range(6):
        assert set(next(stream)[1].tolist()) == {TEXT}


def test_a_restored_stream_goes_on_as_it_would_have(mllm: Mllm, tiny_files: Tiny) -> None:
    stream = make_stream(mllm, tiny_files, multiple=None)
    for _ in range(9):
        next(stream)
    state = stream.state()
    ahead = [next(stream) for _ in range(12)]
    again = make_stream(mllm, tiny_files, multiple=None)
    again.restore(state)
    for hidden_td, modality_t in ahead:
        other_td, other_t = next(again)
        assert torch.equal(hidden_td, other_td) and np.array_equal(modality_t, other_t)


def test_long_texts_are_cut_to_the_context(mllm: Mllm, tmp_path: Path) -> None:
    tiny.picture(0).save(tmp_path / "a.png")
    rows = [{"text": " the dog" * 300}, {"text": " the dog" * 300, "file_name": "a.png"}, {"text": " a cat"}]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({**row, "image": "a.png"}) + "\n" for row in rows))
    data = read(tmp_path / "text.jsonl")
    planned, _ = plan_rows(mllm, data, "data", Batching(500, seed=0))
    assert planned.rejected_rows, "longer than the model's own context"
    for context in (60, 4096):
        short = cut_texts(data, mllm, context)
        remaining, _ = plan_rows(mllm, short, "data", Batching(500, seed=0))
        assert len(remaining.rows) == 3 and short.rows[2] == data.rows[2]
        assert data.rows[0].text.startswith(short.rows[0].text) and " dog" in short.rows[0].text
        (one,) = load_batch(mllm, remaining.rows)
        assert one.batch is not None
        assert min(context, 256) - 30 < one.batch.length_b[0] <= min(context, 256)


def test_other_options_do_not_go_on_with_an_unfinished_run(options: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Meter, "update", die)
        train(options())
    with pytest.raises(SaevxError, match="other data, model or options"):
        train(options(seed=1))
    assert train(options()).is_dir()
    with pytest.raises(SaevxError, match="exists already"):
        train(options())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"layer": 9}, "layers 0 to 3"),
        ({"batch_size": 301}, "--buffer-tokens"),
        ({"sae_option": ["nonsense=1"]}, "no option nonsense: choose among"),
        ({"sae_option": ["l1_coefficient"]}, "NAME=VALUE"),
        ({"architecture": "matryoshka-batchtopk", "widths": [9, 3], "k": 8}, "SAELens refuses"),
        ({"sae_option": ["normalize_activations=covariance_whitening"]}, "Whitening"),
        *(({"sae_option": [f"l1_coefficient={v}"]}, "SAELens' l1_coefficient cannot be") for v in ("x", "NaN", "[1]")),
        ({"sae_option": ["apply_b_dec_to_input=maybe"]}, "SAELens' apply_b_dec_to_input cannot be 'maybe'"),
        *(
            ({"sae_option": [f"{name}=1"]}, f"--sae-option cannot set {name}, which other options and the model decide")
            for name in ("d_in", "d_sae", "device", "architecture", "hook", "model_name", "metadata")
        ),
        ({"architecture": "topk", "k": 10_000}, "-k 10000 is more than the [0-9]+ features that the SAE has: lower it"),
        ({"expansion": 1e-6}, "--expansion 1e-06 leaves no feature of 32 dimensions: raise it"),
        ({"expansion": 1e300}, r"--expansion 1e\+300 takes .* and this machine has .*: lower it"),
        ({"expansion": 1e9}, r"--expansion 1e\+09 takes .* GB, and this machine has .* GB: lower it"),
        ({"buffer_tokens": 2**50}, r"--buffer-tokens .* takes .* GB, and this machine has .* GB: lower it"),
    ],
)
def test_wrong_options_are_told_in_a_sentence(options: Maker, changed: dict[str, Any], message: str) -> None:
    made = options(**changed)
    with pytest.raises(SaevxError, match=message):
        train(made)
    assert not made.part.exists(), "nothing stands in the way of the next try"


def test_a_frozen_decoder_stays_as_it_was_drawn(options: Maker, tmp_path: Path) -> None:
    short, long = (
        SaeV.load(train(options(out=tmp_path / str(steps), steps=steps, freeze_decoder=True))).sae for steps in (2, 12)
    )
    torch.testing.assert_close(short.W_dec, long.W_dec)
    assert not torch.allclose(short.W_enc, long.W_enc, atol=1e-3)
    learnt = SaeV.load(train(options())).sae
    assert not torch.allclose(learnt.W_dec, long.W_dec, atol=1e-3)


def test_the_command(tiny_files: Tiny, tmp_path: Path) -> None:
    made = saevx(
        "train", tiny_files.data, "--model", tiny_files.model, "--out", tmp_path / "sae", "--layer", 1,
        "--modality", "text", "--preset", "sae-v", "--expansion", 2, "--steps", 5, "--batch-size", 20,
        "--sae-option", "lp_norm=1.0", "--sae-option", "decoder_init_norm=0.2",
        "--buffer-tokens", 40, "--device", "cpu",
    )  # fmt: skip
    assert made.status == 0, made.err
    assert made.out.strip() == str(tmp_path / "sae")
    report = json.loads((tmp_path / "sae" / "training.json").read_text())
    assert report["options"] | {"l1": 5.0, "lr": 5e-5, "modality": "text", "steps": 5} == report["options"]
    assert report["log"][-1]["fvu"]["image"] is None and report["log"][-1]["dead"]["image"] == 2 * tiny.D_MODEL
    assert str(tiny_files.model.parent) not in json.dumps(report), "no path of this machine"
    again = saevx("train", tiny_files.data, "--model", tiny_files.model, "--out", tmp_path / "sae", "--layer", 1)
    assert again.status == 1 and "exists already" in again.err
