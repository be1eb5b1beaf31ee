"""Texts that are run once more without their images, as a control: what is stored, against plain lines."""

import json

import numpy as np
import pytest
import torch

from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.pipeline import Pipeline
from precompute.store.making.unfinished import Collected
from tests.helpers.tinies import Maker, Tiny, collected, pass_options


@pytest.fixture(scope="module")
def run(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[Collected, Pipeline]:
    out = tmp_path_factory.mktemp("collect") / "store"
    job = Pipeline(pass_options(tiny_files.root, out=out, batch_tokens=150, shard_samples=8, ds=10))
    manifest = job.collect()
    return Collected(job.part, manifest), job


def test_texts_without_their_images_are_run_apart(run: tuple[Collected, Pipeline]) -> None:
    """Reference (b) again: the same batches without any image, features and their maxima in float64."""
    data, job = run
    weights = {name: tensor.double() for name, tensor in job.session.sae.sae.state_dict().items()}
    rows, plan = job.session.data_and_plan
    number = {record["index"]: row for row, record in enumerate(data.samples[i] for i in range(data.n_samples))}
    assert data.has_alone
    stored = data.maxima_alone(np.arange(data.n_samples)).toarray()
    for batch in plan.batches:
        both = [rows.rows[i] for i in batch if data.sample["n_text"][number[rows.rows[i].index]]]
        both = [row for row in both if row.images]
        made = job.session.mllm.prepare([Pair(row.text, []) for row in both])
        assert "pixel_values" not in made.inputs and (made.modality_bs != IMAGE).all()
        hidden_bsd = job.session.mllm.hidden(made).double()
        z_bsf = torch.relu((hidden_bsd - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).numpy()
        z_bsf[made.modality_bs != TEXT] = 0
        for row, z_sf in zip(both, z_bsf, strict=True):
            np.testing.assert_allclose(stored[number[row.index]], z_sf.max(0), rtol=1e-3, atol=1e-5)
            stored[number[row.index]] = 0
    assert not stored.any()
    with_image = data.maxima(0, data.n_samples)[TEXT].toarray()
    assert np.abs(with_image - data.maxima_alone(np.arange(data.n_samples)).toarray()).max() > 0.01
    clock = json.loads((job.part / "run.json").read_text())["collect"]
    assert clock["text_alone_tokens"] > 0 and clock["text_alone_seconds"] > 0


def test_without_text_alone_nothing_of_it_is_left(options: Maker) -> None:
    part, manifest = collected(options(text_alone=False))
    assert not Collected(part, manifest).has_alone and manifest["options"]["text_alone"] is False
