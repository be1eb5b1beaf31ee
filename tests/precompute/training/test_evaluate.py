"""`saevx evaluate` against a plain reference: one pair at a time, token by token, everything in float64."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from precompute.data.images import open_image
from precompute.data.rows import read
from precompute.errors import SaevxError
from precompute.model.batch import IMAGE, SINK, TEXT, Batch, Pair
from precompute.model.mllm import Mllm
from precompute.options.evaluate import EvaluateOptions
from precompute.sae.sae import SaeV
from precompute.training import evaluate as evaluation
from precompute.training.evaluate import SharedModel, evaluate
from precompute.training.figures import runs_of
from precompute.utils.types import Array
from tests.helpers import tiny
from tests.helpers.in_process import saevx
from tests.helpers.tinies import Tiny

Maker = Callable[..., EvaluateOptions]
RUNS = runs_of(())
SINKS = 1.25
"""Low, so that the tiny model has sinks at all."""


@pytest.fixture
def options(tiny_files: Tiny) -> Maker:
    def make(**changed: Any) -> EvaluateOptions:
        given: dict[str, Any] = {
            "sae": str(tiny_files.sae), "data": str(tiny_files.data), "model": str(tiny_files.model),
            "batch_tokens": 150, "resamples": 40, "sinks": SINKS, "device": "cpu",
        }  # fmt: skip
        return EvaluateOptions(**{**given, **changed})

    return make


def naive(mllm: Mllm, sae: SaeV, source: Path, special: bool) -> list[dict[str, Any]]:
    """Per sample: summed cross-entropy of each run, number of targets, and of each token its kind, h, ĥ and z."""
    model = copy.deepcopy(mllm.model).double()
    layer = model.get_decoder().layers[mllm.layer]
    w_enc, b_enc, w_dec, b_dec = (
        getattr(sae.sae, name).detach().double().numpy() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    )

    def run(inputs: dict[str, Any], put: dict[int, Array]) -> tuple[Array, Array]:
        caught: list[Array] = []

        def hook(_module: Any, _args: Any, output: Any) -> Any:
            h_bsd = (output[0] if isinstance(output, tuple) else output).clone()
            caught.append(h_bsd[0].numpy().copy())
            for t, value_d in put.items():
                h_bsd[0, t] = torch.from_numpy(value_d)
            return (h_bsd, *output[1:]) if isinstance(output, tuple) else h_bsd

        handle = layer.register_forward_hook(hook)
        with torch.no_grad():
            logits = model(**inputs, use_cache=False).logits[0]
        handle.remove()
        return caught[0], logits.log_softmax(-1).numpy()

    samples = []
    for row in read(source).rows:
        batch = mllm.prepare([Pair(row.text, [open_image(path).image for path in row.images])])
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in batch.inputs.items()}
        inputs.pop("attention_mask")
        ids = inputs["input_ids"][0].tolist()
        kinds = batch.modality_bs[0].tolist()
        h_sd, logp = run(inputs, {})
        targets = [t for t, kind in enumerate(kinds) if t and kind == TEXT]  # sinks too are predicted
        samples.append({"ids": ids, "kinds": kinds, "targets": targets, "h": h_sd, "inputs": inputs, "logp": logp})

    for kind in (TEXT, IMAGE):
        norms = [np.linalg.norm(h) for s in samples for h, k in zip(s["h"], s["kinds"], strict=True) if k == kind]
        for s in samples:
            for t, h in enumerate(s["h"]):
                if s["kinds"][t] == kind and np.linalg.norm(h) > SINKS * np.median(norms):
                    s["kinds"][t] = SINK

    for s in samples:
        s["z"] = np.stack([np.maximum((h - b_dec) @ w_enc + b_enc, 0) for h in s["h"]])
        s["rebuilt"] = np.stack([z @ w_dec + b_dec for z in s["z"]])
        s["nll"] = {}
        for name in RUNS:
            what, _, part = name.partition("_")
            which = {"": (TEXT, IMAGE), "text": (TEXT,), "image": (IMAGE,)}[part]
            taken = [t for t, kind in enumerate(s["kinds"]) if kind in which or (special and not part)]
            put = {}
            if what != "original":
                put = {t: s["rebuilt"][t] if what == "patched" else np.zeros(tiny.D_MODEL) for t in taken}
            logp = run(s["inputs"], put)[1] if put else s["logp"]
            s["nll"][name] = -sum(logp[t - 1, s["ids"][t]] for t in s["targets"])
    return samples


def plain_figures(samples: list[dict[str, Any]]) -> dict[str, float]:
    """Every figure, from the samples as given (some perhaps several times)."""
    n = sum(len(s["targets"]) for s in samples)
    result = {f"cross_entropy.{run}": sum(s["nll"][run] for s in samples) / n for run in RUNS}
    for part, suffix in (("all", ""), ("text", "_text"), ("image", "_image")):
        zero, patched = (result[f"cross_entropy.{what}{suffix}"] for what in ("zero", "patched"))
        gap = zero - result["cross_entropy.original"]
        result[f"loss_recovered.{part}"] = (zero - patched) / gap if gap > 0 else float("nan")
    for name, which in (("both", (TEXT, IMAGE)), ("text", (TEXT,)), ("image", (IMAGE,))):
        own = [(s, t) for s in samples for t, kind in enumerate(s["kinds"]) if kind in which]
        h = np.stack([s["h"][t] for s, t in own])
        error = sum(float(((s["h"][t] - s["rebuilt"][t]) ** 2).sum()) for s, t in own)
        result[f"fvu.{name}"] = error / float(((h - h.mean(0)) ** 2).sum())
        result[f"l0.{name}"] = sum(int((s["z"][t] > 0).sum()) for s, t in own) / len(own)
    return result


@pytest.mark.parametrize("special", [False, True])
def test_every_figure_is_the_references(
    options: Maker, tiny_files: Tiny, whole: Mllm, saev: SaeV, special: bool
) -> None:
    result = evaluate(options(patch_special=special))
    samples = naive(whole, saev, tiny_files.data, special)
    right = plain_figures(samples)
    assert result["tokens"]["sink"] == sum(s["kinds"].count(SINK) for s in samples) > 0
    assert result["tokens"]["targets"] == sum(len(s["targets"]) for s in samples)
    for name, value in right.items():
        group, _, key = name.partition(".")
        got = result[group][key]
        assert (got is None) == bool(np.isnan(value)), name
        if got is not None:
            assert got["value"] == pytest.approx(value, rel=1e-4), name
    for m, name in ((TEXT, "text"), (IMAGE, "image")):
        fired = np.any([z > 0 for s in samples for z, k in zip(s["z"], s["kinds"], strict=True) if k == m], axis=0)
        assert result["dead"][name] == int((~fired).sum())
    assert any(result["loss_recovered"].values()), "zeros do harm somewhere, so there is something to recover"
    entropy = result["cross_entropy"]
    assert len({round(one["value"], 6) for one in entropy.values()}) == len(RUNS), "each run replaces other tokens"

    # The samples in the order of the pass are another one than the data's: compare the spread, not each draw.
    rng = np.random.default_rng(3)
    drawn = [plain_figures([samples[i] for i in rng.integers(0, len(samples), len(samples))]) for _ in range(60)]
    for name in ("cross_entropy.patched", "fvu.image", "l0.text"):
        group, _, key = name.partition(".")
        low, high = np.percentile([one[name] for one in drawn], [2.5, 97.5])
        got = result[group][key]
        assert got["low"] < got["value"] < got["high"]
        assert (got["high"] - got["low"]) / (high - low) == pytest.approx(1, abs=0.5)


def make_perfect(folder: Path) -> Path:
    """An SAE that gives back whatever it reads: ReLU(h) − ReLU(−h)."""
    from sae_lens import SAE

    eye = torch.eye(tiny.D_MODEL)
    sae = SAE.from_dict(
        {
            "architecture": "standard",
            "d_in": tiny.D_MODEL,
            "d_sae": 2 * tiny.D_MODEL,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": False,
            "normalize_activations": "none",
            "metadata": {"hook_name": f"model.layers.{tiny.LAYER}"},
        }
    )
    with torch.no_grad():
        sae.W_enc.copy_(torch.cat([eye, -eye], dim=1))
        sae.W_dec.copy_(torch.cat([eye, -eye], dim=0))
    sae.save_model(folder)
    return folder


def test_a_perfect_sae_recovers_everything(options: Maker, tmp_path: Path) -> None:
    result = evaluate(options(sae=str(make_perfect(tmp_path / "perfect")), patch_special=True))
    entropy = {name: one["value"] for name, one in result["cross_entropy"].items()}
    for name in ("patched", "patched_text", "patched_image"):
        assert entropy[name] == pytest.approx(entropy["original"], abs=1e-5)
    assert abs(entropy["zero"] - entropy["original"]) > 0.01
    assert all(one["value"] < 1e-9 for one in result["fvu"].values())
    for part in ("all", "text", "image"):
        suffix = "" if part == "all" else f"_{part}"
        better = entropy[f"zero{suffix}"] > entropy["original"]
        one = result["loss_recovered"][part]
        assert (one is not None) == better
        assert not better or one["value"] == pytest.approx(1, abs=1e-3)


def test_saes_may_share_what_does_not_depend_on_them(
    options: Maker, tiny_files: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same figures, from one loaded model and fewer runs of it."""
    other = str(make_perfect(tmp_path / "perfect"))
    alone = [evaluate(options(sae=sae)) for sae in (str(tiny_files.sae), other)]
    counts: list[int] = []
    losses = evaluation.losses

    def counted(mllm: Mllm, batch: Batch) -> Any:
        counts[-1] += 1
        return losses(mllm, batch)

    monkeypatch.setattr(evaluation, "losses", counted)
    shared = SharedModel()
    for sae, right in zip((str(tiny_files.sae), other), alone, strict=True):
        counts.append(0)
        assert evaluate(options(sae=sae), shared) == right
    n_batches = counts[0] // len(RUNS)
    assert counts == [len(RUNS) * n_batches, 3 * n_batches]  # all; patched, patched_text and patched_image


def test_transfer_into_the_text_model(options: Maker, tmp_path: Path) -> None:
    """An SAE of the multimodal model, put into a text-only one: data without images, or with them left out."""
    llama = str(tiny.make_llama(tmp_path / "llama"))
    result = evaluate(options(model=llama, text_alone=True))
    assert result["model"]["family"] == "text-only" and result["tokens"]["image"] == 0
    assert result["cross_entropy"]["zero"] == result["cross_entropy"]["zero_text"]
    assert result["cross_entropy"]["zero_image"] is None and result["cross_entropy"]["patched_image"] is None
    assert all(result[group]["image"] is None for group in ("loss_recovered", "fvu", "l0"))
    rows = [{"id": row.sample_id, "text": row.text} for row in read(options().data).rows]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = evaluate(options(model=llama, data=str(tmp_path / "text.jsonl")))
    assert again["cross_entropy"] == result["cross_entropy"] and again["fvu"] == result["fvu"]
    with pytest.raises(SaevxError, match="--text-alone leaves them out"):
        evaluate(options(model=llama))


def test_the_smallest_hashes_are_taken(options: Maker) -> None:
    subset = evaluate(options(max_samples=7))
    assert subset["data"]["n_samples"] == 7
    assert evaluate(options(max_samples=7, batch_tokens=400))["cross_entropy"]["original"]["value"] == pytest.approx(
        subset["cross_entropy"]["original"]["value"], rel=1e-5
    )


def test_the_command(tiny_files: Tiny, tmp_path: Path) -> None:
    report = [tiny_files.sae, tiny_files.data, "--model", tiny_files.model, "--device", "cpu", "--max-samples", 6]
    printed = saevx("evaluate", *report)
    assert printed.status == 0, printed.err
    saved = saevx("evaluate", *report, "--out", tmp_path / "evaluation.json")
    assert saved.status == 0 and saved.out == ""
    assert (tmp_path / "evaluation.json").read_text() == printed.out
    result = json.loads(printed.out)
    assert result["sae"]["n_features"] == tiny.N_FEATURES and result["data"]["n_samples"] == 6
    assert str(tiny_files.model.parent) not in printed.out, "no path of this machine"
    wrong = saevx("evaluate", *report, "--layer", 9)
    assert wrong.status == 1 and "layers 0 to 3" in wrong.err


def test_files_of_two_models_in_one_folder_are_a_sentence(options: Maker, tiny_files: Tiny, tmp_path: Path) -> None:
    """The processor cuts images into other patches than the tower: the model's own code fails over it."""
    folder = shutil.copytree(tiny_files.model, tmp_path / "model")
    processor = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**processor, "patch_size": 10**7}))
    with pytest.raises(SaevxError, match=r"cannot be run \(.*\): its files do not belong together, so download all of"):
        evaluate(options(model=str(folder), max_samples=2))
