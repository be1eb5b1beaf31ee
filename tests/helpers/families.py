"""Tiny random models of every family, each of its own config and processor classes: no download.

Towers have one layer, so that a token's embedding is moved most by what lies in its own patch.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import (
    ChameleonConfig,
    ChameleonProcessor,
    Gemma2Config,
    Gemma3Config,
    Gemma3Processor,
    Gemma3TextConfig,
    Gemma4Config,
    Gemma4Processor,
    Gemma4TextConfig,
    GemmaConfig,
    Idefics3Config,
    Idefics3Processor,
    InternVLConfig,
    InternVLProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionProcessor,
    LlavaProcessor,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2_5_VLTextConfig,
    Qwen2Config,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLTextConfig,
    SmolVLMConfig,
    SmolVLMProcessor,
)
from transformers.models.chameleon.image_processing_pil_chameleon import ChameleonImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from tests.helpers import tiny
from tests.helpers.family_parts import D_MODEL, PATCH, SIDE, clip, save, save_parts, template, text


def llava(folder: Path) -> Path:
    words = tiny.tokenizer()
    config = LlavaConfig(
        vision_config=clip(),
        text_config=text(LlamaConfig, len(words)),
        vision_feature_layer=-1,
        image_token_index=words.image_token_id,
    )
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
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_grid_pinpoints=resolutions,
    )
    processor = LlavaNextProcessor(
        images, words, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=template("<image>\n"),
    )  # fmt: skip
    return save(folder, config, processor)


QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"


def qwen_words() -> tuple[Any, dict[str, int]]:
    names = {
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>",
        "vision_end_token": "<|vision_end|>",
    }
    words = tiny.tokenizer(**names)
    return words, {f"{name}_id": getattr(words, f"{name}_id") for name in names}


def qwen_images() -> Any:
    size = {"shortest_edge": 16 * 256, "longest_edge": 40 * 256}
    return Qwen2VLImageProcessorPil(patch_size=PATCH, merge_size=2, size=size)


def qwen2_5_vl(folder: Path, images: Any = None) -> Path:
    """Windows of 2 × 2 merged patches, of 2 × 2 patches each."""
    words, ids = qwen_words()
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
    return save_parts(folder, config, images or qwen_images(), words, Qwen2_5_VLProcessor, QWEN_IMAGE)


def gemma3(folder: Path) -> Path:
    words = tiny.tokenizer(image_token="<image_soft_token>", boi_token="<start_of_image>", eoi_token="<end_of_image>")
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
    processor = Gemma3Processor(images, words, image_seq_length=16, chat_template=template("<start_of_image>"))
    return save(folder, config, processor)


def idefics3(folder: Path) -> Path:
    """3 × 3 tokens a tile of 6 × 6 patches; the longest edge is no whole number of tiles."""
    words = tiny.tokenizer()
    processor = Idefics3Processor(tiles(Idefics3ImageProcessorPil), words, 9, template("<image>"))
    config = Idefics3Config(
        text_config=text(LlamaConfig, len(words)), vision_config=tiled_tower(), scale_factor=2,
        image_token_id=words.image_token_id, pad_token_id=0,
    )  # fmt: skip
    return save(folder, config, processor)


def smolvlm(folder: Path) -> Path:
    # Its processor insists on a package that spells the number of a video's frames; pictures never call it.
    processing_smolvlm.num2words = processing_smolvlm.num2words or str
    words = tiny.tokenizer(fake_image_token="<fake_token_around_image>", global_image_token="<global-img>")
    config = SmolVLMConfig(
        text_config=text(LlamaConfig, len(words)), vision_config=tiled_tower(), scale_factor=2,
        image_token_id=words.image_token_id, pad_token_id=0,
    )  # fmt: skip
    images = tiles(SmolVLMImageProcessorPil)
    return save_parts(folder, config, images, words, SmolVLMProcessor, "<image>", image_seq_len=9)


def tiles(kind: type[Any]) -> Any:
    return kind(size={"longest_edge": 130}, max_image_size={"longest_edge": 48})


def tiled_tower() -> dict[str, Any]:
    return {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 48, "patch_size": PATCH,
    }  # fmt: skip


def internvl(folder: Path) -> Path:
    words = tiny.tokenizer(
        image_token="<IMG_CONTEXT>", context_image_token="<IMG_CONTEXT>", start_image_token="<img>",
        end_image_token="</img>", video_token="<video>",
    )  # fmt: skip
    config = InternVLConfig(
        text_config=text(Qwen2Config, len(words)),
        vision_config=tiled_tower(),
        image_seq_length=9,
        image_token_id=words.image_token_id,
    )
    images = GotOcr2ImageProcessorPil(size={"height": 48, "width": 48}, max_patches=6)
    return save_parts(folder, config, images, words, InternVLProcessor, "<IMG_CONTEXT>\n", image_seq_length=9)


def llava_onevision(folder: Path, ratio: str = "anyres_max_9") -> Path:
    """4 × 4 patches leave the last 4 of a tile's 36 pixels unseen."""
    words = tiny.tokenizer(video_token="<video>")
    resolutions = [[36 * rows, 36 * cols] for rows in (1, 2, 3) for cols in (1, 2, 3)]
    config = LlavaOnevisionConfig(
        text_config=text(Qwen2Config, len(words)),
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 36, "patch_size": PATCH,
            "vision_use_head": False,
        },
        image_token_index=words.image_token_id, video_token_index=words.video_token_id,
        image_grid_pinpoints=resolutions, vision_aspect_ratio=ratio,
    )  # fmt: skip
    images = LlavaOnevisionImageProcessorPil(size={"height": 36, "width": 36}, image_grid_pinpoints=resolutions)
    return save_parts(
        folder, config, images, words, LlavaOnevisionProcessor, "<image>\n", num_image_tokens=16,
        vision_feature_select_strategy="full", vision_aspect_ratio=ratio,
    )  # fmt: skip


def qwen3_vl(folder: Path) -> Path:
    """One deepstack feature, added behind decoder layer 0."""
    words, ids = qwen_words()
    config = Qwen3VLConfig(
        text_config=text(
            Qwen3VLTextConfig, len(words), head_dim=8,
            rope_parameters={
                "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        ).to_dict(),
        vision_config={
            "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "patch_size": PATCH,
            "out_hidden_size": D_MODEL, "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
        },
        **ids,
    )  # fmt: skip
    return save_parts(folder, config, qwen_images(), words, Qwen3VLProcessor, QWEN_IMAGE)


def chameleon(folder: Path) -> Path:
    """16 codes; one for each 8 × 8 pixels of the square that it sees."""
    codes = {f"code_{i}": "IMGIMG" + "".join(chr(ord("A") + int(digit)) for digit in str(i)) + "Z" for i in range(16)}
    words = tiny.tokenizer(boi_token="<racm3:break>", eoi_token="<eoss>", **codes)
    words.sep_token = "</s>"
    config = text(
        ChameleonConfig, len(words), vocabulary_map=words.get_vocab(),
        vq_config={
            "embed_dim": 16, "num_embeddings": 16, "latent_channels": 16, "resolution": 2 * SIDE,
            "base_channels": 32, "channel_multiplier": [1, 1, 1, 1], "num_res_blocks": 1,
        },
    )  # fmt: skip
    crop = {"height": 2 * SIDE, "width": 2 * SIDE}
    images = ChameleonImageProcessorPil(size={"shortest_edge": 2 * SIDE}, crop_size=crop)
    return save(folder, config, ChameleonProcessor(images, words, image_seq_length=64))


def gemma4(folder: Path) -> Path:
    """Keys and values of the last two layers shared, and an input of its own for each layer."""
    words = tiny.tokenizer(
        image_token="<|image|>", boi_token="<|image>", eoi_token="<image|>", audio_token="<|audio|>",
        boa_token="<|audio>", eoa_token="<audio|>", video_token="<|video|>",
    )  # fmt: skip
    config = Gemma4Config(
        text_config=text(
            Gemma4TextConfig, len(words), head_dim=8, global_head_dim=8, sliding_window=8,
            layer_types=["sliding_attention", "full_attention"] * 2, num_kv_shared_layers=2,
            hidden_size_per_layer_input=4, vocab_size_per_layer_input=len(words),
            use_bidirectional_attention="vision",
        ),
        vision_config={
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 16, "patch_size": 4, "pooling_kernel_size": 2,
            "position_embedding_size": 512,
        },
        image_token_id=words.image_token_id, video_token_id=words.video_token_id,
        audio_token_id=words.audio_token_id, boi_token_id=words.boi_token_id,
        eoi_token_id=words.eoi_token_id, boa_token_id=words.boa_token_id,
        eoa_token_index=words.eoa_token_id,
    )  # fmt: skip
    images = Gemma4ImageProcessorPil(patch_size=4, pooling_kernel_size=2, max_soft_tokens=70)
    audio = {"feature_extractor_type": "Gemma4AudioFeatureExtractor"}
    return save_parts(
        folder, config, images, words, Gemma4Processor, "<|image|>", image_seq_length=70,
        feature_extractor=audio,
    )  # fmt: skip


MULTIMODAL: dict[str, Callable[[Path], Path]] = {
    "llava": llava,
    "llava-next": llava_next,
    "qwen2.5-vl": qwen2_5_vl,
    "gemma3": gemma3,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "internvl": internvl,
    "llava-onevision": llava_onevision,
    "llava-onevision-thinned": lambda folder: llava_onevision(folder, "anyres_max_2"),
    "qwen3-vl": qwen3_vl,
    "chameleon": chameleon,
    "gemma4": gemma4,
}


TEXT_ONLY: dict[str, Callable[[int], Any]] = {
    "llama": lambda vocab: text(LlamaConfig, vocab),
    "mistral": lambda vocab: text(MistralConfig, vocab, sliding_window=8),
    "gemma": lambda vocab: text(GemmaConfig, vocab, head_dim=8),
    # Its capped attention scores rule SDPA out.
    "gemma2": lambda vocab: text(Gemma2Config, vocab, head_dim=8, query_pre_attn_scalar=8, sliding_window=8),
    "gemma3": lambda vocab: text(
        Gemma3TextConfig,
        vocab,
        head_dim=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
}


def text_only(folder: Path, family: str) -> Path:
    words = tiny.tokenizer()
    return save(folder, TEXT_ONLY[family](len(words)), words, multimodal=False)


def picture(size: tuple[int, int]) -> Image.Image:
    """Coarse noise: no two places alike."""
    return tiny.picture(3, size)
