"""A tiny random LLaVA of its own config and processor classes, a tiny random SAE-V, tiny data: no download."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

WORDS = [
    "a", "the", "red", "green", "blue", "dog", "cat", "ball", "tree", "cup", "on", "left", "right", "of", "two",
    "three", "and", "is", "with", "small", "big",
]  # fmt: skip
D_MODEL, N_LAYERS, LAYER, N_FEATURES = 32, 4, 2, 96
PATCH, SIDE = 8, 32
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}{% endfor %}"
)


def tokenizer(**marks: str) -> PreTrainedTokenizerFast:
    """Byte-level, with a few whole words. `marks` are special tokens by the names that a processor knows them by."""
    marks = {"image_token": "<image>", **marks}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", *dict.fromkeys(marks.values()), *alphabet])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        piece = "Ġ"
        for letter in word:
            if piece + letter not in vocab:
                vocab[piece + letter] = len(vocab)
                merges.append((piece, letter))
            piece += letter
    bpe_tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    bpe_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe_tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe_tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=marks,
    )


def _llama(vocab: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab, hidden_size=D_MODEL, intermediate_size=48, num_hidden_layers=N_LAYERS,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip


def make_llava(folder: Path, *, crop: bool = True, template: str | None = TEMPLATE) -> Path:
    """A LLaVA of 4 layers, 4 × 4 patches; `crop=False` stretches the picture instead of cutting out its middle."""
    torch.manual_seed(0)
    words = tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=16,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=_llama(len(words)),
        vision_feature_layer=-1,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                weight.mul_(4.0)  # so that layers do something
    size = {"size": {"shortest_edge": SIDE}} if crop else {"size": {"height": SIDE, "width": SIDE}}
    images = CLIPImageProcessorPil(crop_size={"height": SIDE, "width": SIDE}, do_center_crop=crop, **size)
    processor = LlavaProcessor(
        images,
        words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def make_llama(folder: Path) -> Path:
    """The same language model alone."""
    torch.manual_seed(0)
    words = tokenizer()
    LlamaForCausalLM(_llama(len(words))).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def make_sae(
    folder: Path, *, architecture: str = "standard", hook: str | None = None, bias: float = -1.0, **options: object
) -> Path:
    """A random SAE on layer LAYER that fires on a fifth of its features or so; of `batchtopk` and
    `matryoshka_batchtopk` a checkpoint as SAELens' trainer leaves it."""
    from sae_lens import SAE, TrainingSAE

    generator = torch.Generator().manual_seed(1)
    hook = f"blocks.{LAYER}.hook_resid_post" if hook is None else hook
    config = {
        "architecture": architecture, "d_in": D_MODEL, "d_sae": N_FEATURES, "dtype": "float32",
        "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
        "metadata": {"hook_name": hook, "sae_lens_version": "6.50.0"},
        **options,
    }  # fmt: skip
    if architecture.endswith("topk"):
        config.setdefault("k", 8)
    training = architecture.endswith("batchtopk")
    if architecture == "matryoshka_batchtopk":
        config["matryoshka_widths"] = [N_FEATURES // 4, N_FEATURES]
    sae = (TrainingSAE if training else SAE).from_dict(config)
    if training:
        sae.topk_threshold.fill_(0.7)
    with torch.no_grad():
        for name, weight in sae.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * (0.3 if weight.ndim > 1 else 0.1))
            if name == "b_enc":
                weight.add_(bias)
    sae.save_model(folder)
    return folder


def picture(seed: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """Noise that differs from place to place."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def png(seed: int) -> bytes:
    """That image as a file."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def make_data(folder: Path, n: int = 12) -> Path:
    """An imagefolder of n pairs with captions of many lengths."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(n):
        name = f"{i:03d}.png"
        picture(i, (40 + 4 * (i % 3), 40)).save(folder / name)
        text = " ".join(rng.choice(WORDS, size=2 + i % 9))
        rows.append({"file_name": name, "text": text, "id": f"pair-{i}", "kind": i % 2})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
