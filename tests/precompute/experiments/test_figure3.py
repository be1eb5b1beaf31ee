"""`saevx experiment figure3` in tiny sizes on the tests' demo model: what is sure whatever the sizes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precompute.demo.training import adapter_data
from precompute.demo.training.shared_passes import Remembering
from precompute.errors import SaevxError
from precompute.experiments.figure3 import run as figure3
from precompute.experiments.figure3.data import Data, make_base
from precompute.experiments.figure3.language import change
from precompute.experiments.figure3.run import SAES, SETTINGS, Results, run
from precompute.experiments.options import Figure3Options
from precompute.model.batch import TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.options.train import TrainOptions
from precompute.training.train import train
from tests.helpers import tiny
from tests.helpers.demo import Demo
from tests.helpers.tinies import Tiny


class Killed(BaseException):
    """As a signal ends a run: no handler of the code's own sees it."""


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_killed_run_goes_on_and_a_finished_one_does_nothing(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    o = Figure3Options(
        demo=demo.root, work=tmp_path / "work", out=tmp_path / "results" / "figure3.jsonl", seeds=[0], tokens=600,
        n_plain=3, n_test=2, n_test_plain=1, expansion=0.5, batch_size=64, resamples=20, device="cpu",
    )  # fmt: skip
    monkeypatch.setattr(adapter_data, "PLAIN_PROMPTS", adapter_data.PLAIN_PROMPTS[:4])  # no more texts than are taken
    evaluate = figure3.evaluate
    trained: list[str] = []

    def watched(options: Any, *more: Any) -> Path:
        trained.append(options.out.name)
        return train(options, *more)

    monkeypatch.setattr(figure3, "train", watched)

    def die(options: Any, shared: Any) -> Any:
        if (Path(options.sae).name, Path(options.data).name) == ("sae-v-0", "test-pairs"):
            raise Killed
        return evaluate(options, shared)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(figure3, "evaluate", die)
        run(o)
    before = o.out.read_text(encoding="utf-8")
    assert [line["line"] for line in read(o.out)] == [
        "run", "language-model", *["training", *["evaluation"] * 3] * 2, "training", *["evaluation"] * 2,
    ]  # fmt: skip
    o.out.write_text(before + '{"line": "evaluation", "sae"', encoding="utf-8")  # killed in the middle of a line
    run(o)
    after = o.out.read_text(encoding="utf-8")
    assert after.startswith(before) and trained == [f"{sae}-0" for sae in SAES]
    run(o)
    assert o.out.read_text(encoding="utf-8") == after and len(trained) == 3

    assert str(tmp_path) not in after and str(demo.root) not in after
    check_lines(o)
    check_data(o)
    for other in ({"out": tmp_path / "other.jsonl"}, {"work": tmp_path / "other"}):
        with pytest.raises(SaevxError, match="other options"):
            run(o.model_copy(update={"l1": 1.0, **other}))


def check_lines(o: Figure3Options) -> None:
    """What the lines of a finished file say agrees."""
    header, language, *lines = read(o.out)
    assert header["command"] == "saevx experiment figure3" and header["options"]["tokens"] == 600
    for one in (language["all"], language["captions"], language["plain"]):
        assert one["change"]["value"] == pytest.approx(one["mllm"]["value"] - one["base"]["value"], abs=1e-3)
    assert language["all"]["n_texts"] == language["captions"]["n_texts"] + language["plain"]["n_texts"]
    # The SAE-V saw pictures, the others never did.
    assert {one["sae"]: one["l0"]["image"] is not None for one in lines if one["line"] == "training"} == {
        "sae-base": False,
        "sae-mllm": False,
        "sae-v": True,
    }
    assert [(one["sae"], one["setting"]) for one in lines if one["line"] == "evaluation"] == [
        (sae, setting) for sae in SAES for setting in SETTINGS
    ]
    entropy = {(one["sae"], one["setting"]): one["cross_entropy"] for one in lines if one["line"] == "evaluation"}
    for (sae, setting), result in entropy.items():
        assert result["zero"]["value"] > result["original"]["value"] > 0
        # Neither depends on the SAE: the same models, layer and texts stand behind all lines of a setting.
        for name in ("zero", "original"):
            assert result[name] == entropy["sae-base", setting][name], (sae, setting)
        assert (result["patched_image"] is None) == (setting != "mllm-pairs")
    assert language["all"]["base"]["value"] == pytest.approx(
        entropy["sae-v", "base-text"]["original"]["value"], abs=1e-3
    )
    assert language["all"]["mllm"]["value"] == pytest.approx(
        entropy["sae-v", "mllm-text"]["original"]["value"], abs=1e-3
    )


def check_data(o: Figure3Options) -> None:
    """Nothing that is measured was learnt from."""
    data = Data.at(o.work / "data")
    learnt = {row["text"] for path in (data.text, data.alone, data.pairs / "metadata.jsonl") for row in read(path)}
    measured = {row["text"] for path in (data.test_text, data.test_pairs / "metadata.jsonl") for row in read(path)}
    assert len(measured) == 3 and not learnt & measured
    report = json.loads((o.work / "sae-v-0" / "training.json").read_text(encoding="utf-8"))
    n_pairs, n_alone = len(read(data.pairs / "metadata.jsonl")), len(read(data.alone))
    assert n_alone == n_pairs + o.n_plain
    assert (report["data"]["n_samples"], report["data"]["n_set_aside"]) == (n_pairs + n_alone, 0)


def test_a_remembering_model_trains_the_same_saes(tiny_files: Tiny, tmp_path: Path) -> None:
    """To the byte, and the second seed runs no batch of its own."""
    given: dict[str, Any] = {
        "data": str(tiny_files.data), "model": str(tiny_files.model), "layer": tiny.LAYER, "expansion": 2, "steps": 6,
        "batch_size": 64, "lr": 3e-3, "buffer_tokens": 384, "batch_tokens": 150, "device": "cpu",
    }  # fmt: skip
    model = Remembering.load(tiny_files.model, layer=tiny.LAYER, device="cpu")
    n_known = []
    for seed in (0, 1):
        plain = train(TrainOptions(**given, seed=seed, out=tmp_path / f"plain-{seed}"))
        again = train(TrainOptions(**given, seed=seed, out=tmp_path / f"again-{seed}"), model)
        n_known.append(len(model.hidden_of))
        for name in ("cfg.json", "sae_weights.safetensors", "training.json"):
            assert (plain / name).read_bytes() == (again / name).read_bytes()
    assert n_known[0] == n_known[1] > 3
    weights = [(tmp_path / f"plain-{seed}" / "sae_weights.safetensors").read_bytes() for seed in (0, 1)]
    assert weights[0] != weights[1]


def test_both_models_are_shown_the_same_tokens(demo: Demo, tmp_path: Path) -> None:
    pairs = [Pair("a red dog"), Pair("The history of tea {{ messages }}")]
    base, mllm = (Mllm.load(path, layer=16, device="cpu") for path in (make_base(tmp_path / "base"), demo.model))
    ours, theirs = base.prepare(pairs), mllm.prepare(pairs)
    assert ours.inputs["input_ids"].tolist() == theirs.inputs["input_ids"].tolist()
    assert np.array_equal(ours.modality_bs, theirs.modality_bs) and (ours.modality_bs == TEXT).sum() > 8
    assert not base.multimodal and mllm.multimodal


def test_the_change_is_paired_by_text() -> None:
    """Against a plain loop; texts that differ much from each other do not widen the interval of the change."""
    rng = np.random.default_rng(5)
    n_tokens = rng.integers(3, 30, 40).astype(float)
    base_n2 = np.stack([rng.uniform(0, 9, 40) * n_tokens, n_tokens], 1)
    mllm_n2 = base_n2 + np.array([0.5, 0.0]) * n_tokens[:, None]
    result = change(base_n2, mllm_n2, 200)
    assert result["base"]["value"] == pytest.approx(sum(nll for nll, _ in base_n2) / sum(n_tokens))
    for name in ("value", "low", "high"):
        assert result["change"][name] == pytest.approx(0.5)
    assert result["base"]["high"] - result["base"]["low"] > 0.5
    drawn = []
    for picked in np.random.default_rng(0).integers(0, 40, (200, 40)):
        drawn.append(sum(base_n2[i][0] for i in picked) / sum(base_n2[i][1] for i in picked))
    assert [result["base"]["low"], result["base"]["high"]] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())


def test_wrong_input_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match="holds no demo: run `saevx demo"):
        run(Figure3Options(demo=tmp_path, work=tmp_path / "work", out=tmp_path / "out.jsonl"))
    wrong = tmp_path / "out.jsonl"
    wrong.write_text("no JSON\n")
    with pytest.raises(SaevxError, match="no result file of this experiment"):
        Results(wrong, {})
