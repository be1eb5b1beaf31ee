"""The vision tower's own norms, family by family."""

from pathlib import Path

import numpy as np
import pytest
import torch

from precompute.model.batch import IMAGE, Pair
from precompute.model.mllm import Mllm
from precompute.model.vision import capture_vision_norms
from tests.helpers import families, family_images

TOWERS = {"llava": "projector", "llava_next": "embedding", "gemma3": "embedding", "qwen3_vl": "embedding"}
"""Which norm there is: LLaVA 1.5 alone has one feature for each image token in front of a projector."""


@pytest.mark.parametrize("family", list(TOWERS))
def test_norms_of_a_batch_are_those_of_each_pair(family: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    mllm = Mllm.load(getattr(families, family)(tmp_path / family), layer=1, full=True, device="cpu")
    pairs = [
        Pair("the red dog", [families.picture((404, 161))]),
        Pair("a cat", [families.picture((257, 230)), families.picture((149, 362))]),
    ]
    batch = mllm.prepare(pairs)
    with capture_vision_norms(mllm) as caught:
        mllm.hidden(batch)
    together, source = caught.of(batch)
    assert source == TOWERS[family]
    for b, pair in enumerate(pairs):
        alone_batch = mllm.prepare([pair])
        with capture_vision_norms(mllm) as caught:
            mllm.hidden(alone_batch)
        (alone,), _ = caught.of(alone_batch)
        assert len(alone) == (alone_batch.modality_bs == IMAGE).sum() and len(set(alone.tolist())) > 1
        np.testing.assert_allclose(together[b], alone, rtol=1e-4)
    assert not mllm.decoder.layers[0]._forward_pre_hooks


def test_the_projectors_input_is_the_towers_output(tmp_path: Path) -> None:
    mllm = Mllm.load(families.llava(tmp_path / "llava"), layer=1, full=True, device="cpu")
    batch = mllm.prepare([Pair("a dog", [families.picture((257, 230))])])
    with capture_vision_norms(mllm) as caught:
        mllm.hidden(batch)
    ((norm_p,), _) = caught.of(batch)
    with torch.inference_mode():
        seen = mllm.model.model.vision_tower(batch.inputs["pixel_values"], output_hidden_states=True)
        feature_pd = seen.hidden_states[mllm.model.config.vision_feature_layer][0, 1:]
    np.testing.assert_allclose(norm_p, feature_pd.norm(dim=-1).numpy(), rtol=1e-5)


def test_embeddings_are_what_the_language_model_is_given(tmp_path: Path) -> None:
    mllm = Mllm.load(families.qwen3_vl(tmp_path / "qwen"), layer=1, full=True, device="cpu")
    image = families.picture((257, 230))
    batch = mllm.prepare([Pair("a dog", [image])])
    with capture_vision_norms(mllm) as caught:
        mllm.hidden(batch)
    ((norm_p,), _) = caught.of(batch)
    np.testing.assert_allclose(norm_p, family_images.embeddings(mllm, [image])[0].norm(dim=-1).numpy(), rtol=1e-5)
