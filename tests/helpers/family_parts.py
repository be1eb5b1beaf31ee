"""What the tiny models of every family share: sizes, text models, towers, and how a model is saved."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    PreTrainedConfig,
    ProcessorMixin,
)

from tests.helpers import tiny

D_MODEL = 32
N_LAYERS = 4
SIDE = 32
PATCH = 8
# Chameleon's encoder is a stack of 3 × 3 kernels. Random ones would smear a patch over its neighbours, so that which
# token moves most would say nothing: the taps on neighbours are made faint. By stride; padding is on the right below.
OWN = {
    1: torch.tensor([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    2: torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]),
}


def text(config: type[PreTrainedConfig], vocab: int, **options: Any) -> Any:
    defaults = {
        "vocab_size": vocab, "hidden_size": D_MODEL, "intermediate_size": 48, "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    return config(**{**defaults, **options})


def save(folder: Path, config: Any, processor: Any, *, multimodal: bool = True) -> Path:
    torch.manual_seed(0)
    auto = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
    model = auto.from_config(config)
    with torch.no_grad():
        for name, weight in model.get_decoder().named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                weight.mul_(4.0)  # so that layers do something
        for weight in model.parameters():
            if weight.ndim > 1 and not weight.any():  # Gemma 3's projection starts at zero
                weight.normal_(std=0.2)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                module.weight.copy_(module.weight * (OWN[module.stride[0]] * 0.97 + 0.03))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_parts(
    folder: Path, config: Any, images: Any, words: Any, kind: type[ProcessorMixin], image: str, **settings: Any
) -> Path:
    """As `save`, of a family whose processor also takes videos, as such checkpoints lie on the hub; the video
    part itself needs torchvision, which pictures do not."""
    folder.mkdir(parents=True, exist_ok=True)
    settings |= {"processor_class": kind.__name__, "image_processor": images.to_dict()}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(template(image))
    return save(folder, config, words)


def template(image: str) -> str:
    """A chat template in which a picture is `image`."""
    return tiny.TEMPLATE.replace("<image>\n", image)


def clip(**options: Any) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=SIDE, patch_size=PATCH, projection_dim=16, **options,
    )  # fmt: skip
