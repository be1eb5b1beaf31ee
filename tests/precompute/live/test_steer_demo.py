"""The demo's real model: rows that share layers write what all rows through every layer write."""

import pytest
import torch
from PIL import Image

from precompute.live.intervention import Intervention, Scope
from precompute.live.steer import Candidate
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from tests.helpers.demo import Demo
from tests.helpers.steering import SCOPES, Run, record, same


@pytest.mark.parametrize("scope", [SCOPES["all"], SCOPES["prompt"], SCOPES["generated"]])
def test_sharing_changes_no_token_of_the_real_model(demo: Demo, scope: tuple[Scope, ...]) -> None:
    sae, store = SaeV.load(demo.sae), Store.open(demo.store)
    mllm = Mllm.load(demo.model, layer=sae.layer, full=True, device="cpu")
    one = store.samples.list(sort="pooled-cosine", order="desc", limit=1).items[0]
    with Image.open(store.samples.image_path(one["sample_id"])) as opened:
        picture = opened.convert("RGB")
    batch = mllm.prepare([Pair("What colour is it?", [picture])], generate=True)
    feature = int(store.features.list(sort="n_samples", order="desc", limit=1).items[0]["id"])
    changes = [Intervention(feature, "set", 2.0, float(store.features.table["p999"][feature]))]
    shared, naive = (Run(mllm, sae, batch, changes, scope=scope, share=share) for share in (True, False))
    same(shared, naive)
    with torch.inference_mode():
        plain = mllm.model(**batch.inputs).logits[0, -1].float()
    torch.testing.assert_close(shared.logits[0][0], plain, rtol=1e-3, atol=1e-3)


def test_candidates_of_the_real_model_write_what_each_writes_alone(demo: Demo) -> None:
    sae, store = SaeV.load(demo.sae), Store.open(demo.store)
    mllm = Mllm.load(demo.model, layer=sae.layer, full=True, device="cpu")
    with Image.open(store.samples.image_path(store.samples.sample_id(0))) as opened:
        batch = mllm.prepare([Pair("What is in the image?", [opened.convert("RGB")])], generate=True)
    p999 = store.features.table["p999"]
    features = [int(one["id"]) for one in store.features.list(sort="n_samples", order="desc", limit=2).items]
    candidates = [
        Candidate([Intervention(k, "add", strength, float(p999[k]))], control=control)
        for k in features
        for strength, control in ((1.0, None), (40.0, None), (40.0, 0))
    ]
    runs = record(mllm, sae, batch, candidates)
    for run, one in zip(runs, candidates, strict=True):
        same(run, Run(mllm, sae, batch, list(one.interventions), control=one.control, share=False))
    assert len({run.done.text["steered"] for run in runs}) > 1
