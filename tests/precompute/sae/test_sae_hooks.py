"""Which hook an SAE reads, and the layer that it names."""

import re
from pathlib import Path

import pytest

from precompute.errors import SaevxError
from precompute.model.mllm import Mllm
from precompute.sae.hook_names import layer_of, layer_warning
from precompute.sae.sae import SaeV
from tests.helpers import families, tiny


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.10.hook_resid_post", 10),
        ("blocks.3.hook_resid_pre", 2),
        ("model.layers.7", 7),
        ("model.language_model.layers.16", 16),
        ("language_model.model.layers.16", 16),
        ("transformer.h.5", 5),
        ("model.layers.17.output", 17),
        ("layers.2", 2),
        ("model.text_model.layers.2", 2),
        ("model.decoder.layers.2", 2),
        ("gpt_neox.layers.2", 2),
        ("backbone.layers.2", 2),
        ("language_model.transformer.h.2", 2),
        ("base_model.model.model.language_model.layers.2", 2),
        ("thinker.model.layers.2", 2),
        ("language_model.blocks.2.hook_resid_post", 2),
    ],
)
def test_layer_of(hook: str, layer: int) -> None:
    assert layer_of(hook) == layer


@pytest.mark.parametrize(
    "hook",
    [
        "blocks.3.hook_mlp_out", "blocks.0.hook_resid_pre", "model.layers.7.mlp", "x", "",
        # Layers that are no decoder's.
        "vision_tower.vision_model.encoder.layers.2", "model.vision_tower.vision_model.encoder.layers.2",
        "model.visual.blocks.layers.2", "model.visual.blocks.2", "visual.blocks.2.hook_resid_post",
        "vision_model.blocks.3.hook_resid_pre", "image_encoder.layers.2", "encoder.layers.2", "text_encoder.layers.2",
        "audio_tower.layers.2", "vit.layers.2", "clip.text_model.layers.2", "vision_tower.transformer.layers.2",
        "multi_modal_projector.layers.2", "model.connector.layers.2", "perceiver.layers.2", "qformer.layers.2",
        "talker.model.layers.2", "mtp.layers.0", "somewhere.layers.2",
        # Stacks inside a layer.
        "model.layers.2.mlp.layers.1", "model.layers.1.mlp.experts.layers.2", "model.layers.3.self_attn.h.2",
    ],
)  # fmt: skip
def test_other_hooks_are_refused(hook: str) -> None:
    with pytest.raises(SaevxError, match="residual stream"):
        layer_of(hook)


def test_the_layers_of_every_familys_decoder_by_their_names_in_the_model(tmp_path: Path) -> None:
    """And no other stack of layers of theirs."""
    n_others = 0
    for family, make in families.MULTIMODAL.items():
        model = Mllm.load(make(tmp_path / family), layer=1, full=True, device="cpu").model
        decoder = {id(layer): i for i, layer in enumerate(model.get_decoder().layers)}
        stacks = [(name, id(m)) for name, m in model.named_modules() if re.search(r"(layers|h|blocks)\.\d+$", name)]
        assert {module for _, module in stacks} >= set(decoder)
        for name, module in stacks:
            if module in decoder:
                assert layer_of(name) == decoder[module], f"{family}: {name}"
            else:
                n_others += 1
                with pytest.raises(SaevxError, match="residual stream"):
                    layer_of(name)
    assert n_others >= 10


def test_an_sae_that_is_read_elsewhere_than_at_its_own_hook_says_so(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path)
    assert SaeV.load(folder).layer_warning is None and SaeV.load(folder, layer=tiny.LAYER).layer_warning is None
    assert "is layer 2, and it is read after layer 3" in str(SaeV.load(folder, layer=3).layer_warning)
    assert layer_warning("", 3) is None
    assert "'vision_tower.layers.2', no decoder layer" in str(layer_warning("vision_tower.layers.2", 2))
    assert "is layer 1" in str(layer_warning("blocks.2.hook_resid_pre", 2))


def test_layer_can_be_named(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path, hook="")
    with pytest.raises(SaevxError, match="--layer"):
        SaeV.load(folder)
    assert SaeV.load(folder, layer=3).layer == 3
