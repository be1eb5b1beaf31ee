"""Tiny random models of every family, each of its own config and processor classes: no download.

Towers have one layer, so that a token's embedding is moved most by what lies in its own patch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3Processor,
    Gemma3TextConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedConfig,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2_5_VLTextConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from precompute.geometry import View, patch_box
from precompute.model import Mllm, Pair
from tests import tiny

D_MODEL, N_LAYERS, SIDE, PATCH = 32, 4, 32, 8


def text(config: type[PreTrainedConfig], vocab: int, **options: Any) -> Any:
    given = {
        "vocab_size": vocab, "hidden_size": D_MODEL, "intermediate_size": 48, "num_hidden_layers": N_LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    return config(**{**given, **options})


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
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_parts(
    folder: Path, config: Any, images: Any, words: Any, kind: type[ProcessorMixin], image: str, **settings: Any
) -> Path:
    """As `save`, of a family whose processor also takes videos, as such checkpoints lie on the hub; the video
    part itself needs torchvision, which pictures do not."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": kind.__name__, **settings}))
    (folder / "chat_template.jinja").write_text(template(image))
    images.save_pretrained(folder)
    return save(folder, config, words)


def template(image: str) -> str:
    """A chat template in which a picture is `image`."""
    return tiny.TEMPLATE.replace("<image>\n", image)


def clip(**options: Any) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        image_size=SIDE, patch_size=PATCH, projection_dim=16, **options,
    )  # fmt: skip


def llava(folder: Path) -> Path:
    words = tiny.tokenizer()
    config = LlavaConfig(
        vision_config=clip(), text_config=text(LlamaConfig, len(words)), vision_feature_layer=-1,
        image_token_index=words.image_token_id,
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        images, words, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=template("<image>\n"),
    )  # fmt: skip
    return save(folder, config, processor)


def llava_next(folder: Path) -> Path:
    words = tiny.tokenizer()
    resolutions = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
    config = LlavaNextConfig(
        vision_config=clip(), text_config=text(LlamaConfig, len(words)), vision_feature_layer=-1,
        image_token_index=words.image_token_id, image_grid_pinpoints=resolutions,
    )  # fmt: skip
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=resolutions,
    )  # fmt: skip
    processor = LlavaNextProcessor(
        images, words, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=template("<image>\n"),
    )  # fmt: skip
    return save(folder, config, processor)


def qwen2_5_vl(folder: Path) -> Path:
    """Windows of 2 × 2 merged patches, of 2 × 2 patches each."""
    words = tiny.tokenizer(
        image_token="<|image_pad|>", video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>", vision_end_token="<|vision_end|>",
    )  # fmt: skip
    names = ("image_token", "video_token", "vision_start_token", "vision_end_token")
    ids = {f"{name}_id": getattr(words, f"{name}_id") for name in names}
    config = Qwen2_5_VLConfig(
        text_config=text(
            Qwen2_5_VLTextConfig, len(words),
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
        ).to_dict(),
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": PATCH,
            "window_size": 4 * PATCH, "out_hidden_size": D_MODEL, "fullatt_block_indexes": [],
        },
        **ids,
    )  # fmt: skip
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH, merge_size=2, size={"shortest_edge": 16 * 256, "longest_edge": 40 * 256}
    )
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    return save_parts(folder, config, images, words, Qwen2_5_VLProcessor, image)


def gemma3(folder: Path) -> Path:
    words = tiny.tokenizer(
        image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>"
    )
    config = Gemma3Config(
        text_config=text(
            Gemma3TextConfig, len(words), head_dim=8, query_pre_attn_scalar=8, sliding_window=8,
            layer_types=["sliding_attention", "full_attention"] * 2,
        ),
        vision_config={
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 2 * SIDE, "patch_size": PATCH, "vision_use_head": False,
        },
        mm_tokens_per_image=16, image_token_index=words.image_token_id,
        boi_token_index=words.boi_token_id, eoi_token_index=words.eoi_token_id,
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 2 * SIDE, "width": 2 * SIDE})
    processor = Gemma3Processor(
        images, words, image_seq_length=16, chat_template=template("<start_of_image>")
    )
    return save(folder, config, processor)


MULTIMODAL: dict[str, Callable[[Path], Path]] = {
    "llava": llava,
    "llava-next": llava_next,
    "qwen2.5-vl": qwen2_5_vl,
    "gemma3": gemma3,
}


def picture(size: tuple[int, int]) -> Image.Image:
    """Coarse noise: no two places alike."""
    return tiny.picture(3, size)


def noisy(image: Image.Image, box: Sequence[float], seed: int) -> Image.Image:
    """The picture with noise inside the box, shrunk by a quarter."""
    x0, y0, x1, y1 = box
    trim_x, trim_y = (x1 - x0) / 8, (y1 - y0) / 8
    left, top = round(x0 + trim_x), round(y0 + trim_y)
    right, bottom = max(round(x1 - trim_x), left + 1), max(round(y1 - trim_y), top + 1)
    pixels = np.array(image)
    shape = pixels[top:bottom, left:right].shape
    pixels[top:bottom, left:right] = np.random.default_rng(seed).integers(0, 256, shape)
    return Image.fromarray(pixels)


def patches(views: Sequence[View], size: tuple[int, int]) -> list[tuple[int, tuple[float, ...]]]:
    """View and box of every image token, in token order."""
    return [
        (v, patch_box(view, row, col, size))
        for v, view in enumerate(views)
        for row in range(view.rows)
        for col in range(view.cols)
    ]


def embeddings(mllm: Mllm, images: Sequence[Image.Image]) -> Tensor:
    """[n, p, d] what the language model is given at the IMAGE tokens of each picture (all of one size)."""
    batch = mllm.prepare([Pair("", [image]) for image in images])
    caught: list[Tensor] = []

    def keep(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        caught.append(kwargs["inputs_embeds"])

    handle = mllm.decoder.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        mllm.hidden(batch)
    finally:
        handle.remove()
    at = torch.from_numpy(batch.modality_bs == 1)
    return caught[0][at].view(len(images), -1, caught[0].shape[-1])
