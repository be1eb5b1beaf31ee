"""The demo's real model: rows that share layers write what all rows through every layer write."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from precompute.live.intervention import Intervention, Scope
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from tests.helpers.demo import Demo
from tests.helpers.steering import SCOPES, Run, same


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
