"""One row that a model cannot be shown is set aside; it never ends a run, whichever command meets it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from precompute.data.records import Row
from precompute.data.rows import read
from precompute.errors import PairError
from precompute.model.batch import Batch, Pair
from precompute.model.loader import load_batch
from precompute.model.mllm import Mllm
from precompute.options.evaluate import EvaluateOptions
from precompute.options.precompute import PrecomputeOptions
from precompute.options.score import ScoreOptions
from precompute.options.train import TrainOptions
from precompute.pipeline import precompute
from precompute.scoring.new_data import score_data
from precompute.store.reader import Store
from precompute.training.evaluate import evaluate
from precompute.training.train import train
from tests.helpers import families, tiny

STRIPS = {"wide": (2100, 10), "tall": (5, 1200)}
"""Longer than 200 : 1, which Qwen's own resizing answers with an exception."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve pairs, two strips among them."""
    folder = tiny.make_data(tmp_path / "data", 12)
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    for name, size in STRIPS.items():
        Image.new("RGB", size).save(folder / f"{name}.png")
        lines.insert(4, json.dumps({"file_name": f"{name}.png", "text": "a red dog", "id": name}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_sae(tmp_path_factory.mktemp("sae"))


@pytest.mark.parametrize("family", ["llava", "qwen2.5-vl", "qwen3-vl", "gemma4"])
def test_a_strip_ends_no_command(tmp_path: Path, data: Path, sae: Path, family: str) -> None:
    torch.set_num_threads(1)
    model = families.MULTIMODAL[family](tmp_path / "model")
    given: dict[str, Any] = {"data": str(data), "model": str(model), "device": "cpu"}
    store = Store.open(precompute(PrecomputeOptions(**given, sae=str(sae), out=tmp_path / "store", ds=10)))
    assert store.manifest["data"]["n_samples"] == 12 and store.manifest["data"]["n_quarantined"] == 2
    scored = score_data(
        ScoreOptions(data=str(data), store=tmp_path / "store", out=tmp_path / "scores.jsonl", device="cpu")
    )
    assert len(scored.read_text().splitlines()) == 12
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "scores.quarantine.jsonl").read_text().splitlines()]
    assert len(reasons) == 2 and all("strip" in reason for reason in reasons)
    result = evaluate(EvaluateOptions(**given, sae=str(sae)))
    assert (result["data"]["n_samples"], result["data"]["n_set_aside"]) == (12, 2)
    out = train(TrainOptions(
        **given, layer=2, out=tmp_path / "trained", steps=2, batch_size=32, buffer_tokens=256, expansion=2,
    ))  # fmt: skip
    assert (out / "cfg.json").is_file()


class PickyMllm(Mllm):
    """Takes every pair alone, and no two of them together."""

    def prepare(self, pairs: Sequence[Pair], *, generate: bool = False) -> Batch:
        if len(pairs) > 1:
            raise PairError("the model's processor refuses it (ragged)")
        return super().prepare(pairs, generate=generate)


def test_a_batch_that_is_refused_as_a_whole_is_run_in_parts(tmp_path: Path) -> None:
    mllm = PickyMllm.load(tiny.make_llava(tmp_path / "model"), layer=0, device="cpu")
    rows = read(tiny.make_data(tmp_path / "data", 4)).rows
    bad = Row(9, "bad", "two <image> here", rows[0].images, {}, "here")
    parts = load_batch(mllm, [*rows, bad])
    assert [one.rows for one in parts] == [[row] for row in rows]
    assert [one.sample_id for part in parts for one in part.rejected_rows] == ["bad"]
    assert all(one.batch is not None for one in parts)
