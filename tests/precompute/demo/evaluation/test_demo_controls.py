"""The controls of the demo that take a pass or a training of their own, at the scale of the tiny model."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from precompute.demo.evaluation.controls import DemoControls, train_control, untrained_model, verdicts_of
from precompute.errors import SaevxError
from precompute.experiments.report.features import controls_part
from precompute.model.mllm import Mllm
from tests.helpers import tiny
from tests.helpers.tinies import Tiny


def test_an_untrained_model_and_the_verdicts_of_another_store(tiny_files: Tiny, tmp_path: Path) -> None:
    for name in ("model", "sae", "data"):
        shutil.copytree(getattr(tiny_files, name), tmp_path / "demo" / name)
    o = DemoControls(demo=tmp_path / "demo", work=tmp_path / "work", out=tmp_path / "out.json")
    own, other = (Mllm.load(path, layer=tiny.LAYER, device="cpu") for path in (tiny_files.model, untrained_model(o)))
    weights = own.model.state_dict()
    differing = [name for name, one in other.model.state_dict().items() if not torch.equal(one, weights[name])]
    assert len(differing) > len(weights) / 2 and other.tokenizer.get_vocab() == own.tokenizer.get_vocab()

    exchanged = verdicts_of(o, "exchanged", lambda: (o.demo / "model", o.demo / "sae"), shuffle=True)["exchanged"]
    assert (
        sum(exchanged["verdicts"].values())
        == json.loads((o.work / "exchanged-store" / "manifest.json").read_text())["sae"]["n_features"]
    )
    rendered = controls_part({"exchanged": exchanged})
    assert f"| images exchanged before the pass | {exchanged['tested']} |" in rendered
    assert rendered.count("not run") == 2
    with pytest.raises(SaevxError, match="how the demo's SAE-V was trained"):
        train_control(o, "frozen", o.demo / "model", freeze_decoder=True)
