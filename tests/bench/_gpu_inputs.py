"""Models, data and clocks of `python -m tests.bench.gpu`."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sae_lens import SAE
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from precompute.collect import merge
from precompute.collect.collector import Collector
from precompute.data.batches import Batching, plan_rows
from precompute.data.records import Columns
from precompute.data.rows import read
from precompute.model.loader import LoadedBatch
from precompute.model.mllm import Mllm
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.sae.sae import SaeV
from tests.bench.collect import Beside
from tests.bench.common import ratio
from tests.helpers import tiny


class Size(NamedTuple):
    device: str
    layer: int
    shape: dict[str, int]
    """Of Mistral-7B, but for the number of layers."""
    vision: dict[str, int]
    """Of CLIP-L/14 at 336."""
    text_shape: dict[str, int]
    pairs: int
    side: int
    """Pixels of an image."""
    documents: int
    words: int
    """Of a document."""
    batch_tokens: int
    image_features: tuple[int, int]
    """Features and k. Likewise the next two."""
    text_features: tuple[int, int]
    run_features: tuple[int, int]
    rounds: int


FULL = Size(
    "cuda", 16, {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8},
    {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
     "image_size": 336, "patch_size": 14, "projection_dim": 768},
    {"hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8},
    48, 672, 1024, 124, 8192, (65536, 64), (262144, 64), (65536, 32), 3,
)  # fmt: skip
SMALL = Size(
    "cpu", 1, {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2},
    {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
     "patch_size": 8, "projection_dim": 16},
    {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2},
    6, 64, 8, 12, 512, (96, 8), (96, 8), (96, 8), 1,
)  # fmt: skip


def language_config(size: Size, shape: dict[str, int], n_words: int) -> LlamaConfig:
    """A language model's first layers, to that whose output is read."""
    return LlamaConfig(
        vocab_size=n_words,
        num_hidden_layers=size.layer + 1,
        max_position_embeddings=4096,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        **shape,
    )


def saved(size: Size, model_class: Any, config: Any, processor: Any, folder: Path) -> Path:
    """A model with random weights in bfloat16, made where it will run: a CPU takes minutes for so many."""
    torch.manual_seed(0)
    with torch.device(size.device):
        model = model_class(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava_next(size: Size, folder: Path) -> Path:
    words, side = tiny.tokenizer(), size.vision["image_size"]
    resolutions = [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**size.vision),
        text_config=language_config(size, size.shape, len(words)),
        vision_feature_layer=-2,
        image_token_index=words.image_token_id,
        image_grid_pinpoints=resolutions,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_grid_pinpoints=resolutions
    )
    processor = LlavaNextProcessor(
        images,
        words,
        patch_size=size.vision["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tiny.TEMPLATE,
    )
    return saved(size, LlavaNextForConditionalGeneration, config, processor, folder)


def language_model(size: Size, folder: Path) -> Path:
    words = tiny.tokenizer()
    return saved(size, LlamaForCausalLM, language_config(size, size.text_shape, len(words)), words, folder)


def pairs(size: Size, folder: Path) -> Path:
    """An imagefolder of noise with captions."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = []
    for i in range(size.pairs):
        tiny.picture(i, (size.side, size.side)).save(folder / f"{i}.png")
        lines.append({"file_name": f"{i}.png", "text": " ".join(rng.choice(tiny.WORDS, 20)), "id": str(i)})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def documents(size: Size, path: Path) -> Path:
    """Texts of so many words by chance."""
    rng = np.random.default_rng(0)
    lines = ({"id": str(i), "text": " ".join(rng.choice(tiny.WORDS, size.words))} for i in range(size.documents))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def top_k(folder: Path, d_model: int, layer: int, features: tuple[int, int]) -> Path:
    """A TopK SAE with random directions."""
    n_features, k = features
    sae = SAE.from_dict({
        "architecture": "topk", "d_in": d_model, "d_sae": n_features, "k": k, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none",
        "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post"},
    })  # fmt: skip
    encoder_df = torch.randn(d_model, n_features, generator=torch.Generator().manual_seed(0)) / d_model**0.5
    sae.W_enc.data, sae.W_dec.data = encoder_df, encoder_df.T.contiguous()
    sae.save_model(folder)
    return folder


def wait(device: str) -> None:
    """Until the device has done what it was given: a GPU computes while Python goes on."""
    if device == "cuda":
        torch.cuda.synchronize()


class BesideOnDevice(Beside):
    """As `Beside`; neither clock has what the device still owes to the other."""

    def run_bare(self, one: LoadedBatch) -> None:
        assert one.batch is not None
        wait(self.mllm.device.type)
        begin = time.perf_counter()
        self.mllm.hidden(one.batch)
        wait(self.mllm.device.type)
        self.bare += time.perf_counter() - begin


def beside(size: Size, model: Path, data_path: Path, features: tuple[int, int], folder: Path) -> dict[str, Any]:
    """Tokens a second of `collect` over those of the bare forward on the same batches, decoded beforehand."""
    mllm = Mllm.load(model, layer=size.layer, device=size.device, dtype="bfloat16")
    sae = SaeV.load(str(top_k(folder / "sae", mllm.d_model, size.layer, features)), size.device)
    data = read(str(data_path), Columns())
    planned = plan_rows(mllm, data, "the bench", Batching(size.batch_tokens, seed=0, ds=size.documents))
    decoder = Collector(mllm, sae, *planned, folder / "decoded", 0)
    rows, plan = planned
    batches = {i: decoder.load([rows.rows[at] for at in batch]) for i, batch in enumerate(plan.batches)}
    loaded = [one.batch for parts in batches.values() for one in parts if one.batch is not None]
    n_tokens = sum(int(batch.length_b.sum()) for batch in loaded)
    bare: list[float] = []
    collect: list[float] = []
    for number in range(size.rounds + 1):  # the first warms up
        if (folder / "decoded").exists():  # thumbnails, where there are images
            shutil.copytree(folder / "decoded", folder / f"part{number}")
        job = BesideOnDevice(mllm, sae, rows, plan, folder / f"part{number}", 0)
        job.batches = batches
        wait(size.device)
        begin = time.perf_counter()
        job.run(quiet=True)
        merge.merge(job, size.documents)
        wait(size.device)
        seconds = time.perf_counter() - begin
        if number:
            bare.append(job.bare)
            collect.append(seconds - job.bare)
    return {
        "features": features[0], "k": features[1], "tokens": n_tokens, "bare_s": bare, "collect_s": collect,
        "collect_over_forward": ratio(bare, collect), "tokens_per_s": n_tokens / float(np.median(collect)),
    }  # fmt: skip


def whole_run(size: Size, model: Path, data: Path, folder: Path) -> dict[str, Any]:
    """All of `saevx precompute`, which ends with the verified store and owes the device nothing."""
    d_model = size.text_shape["hidden_size"]
    sae = top_k(folder / "sae", d_model, size.layer, size.run_features)
    options = PrecomputeOptions(
        data=str(data), model=str(model), sae=str(sae), out=folder / "store", name="gpu", sinks="keep",
        device=size.device, dtype="bfloat16",
    )  # fmt: skip
    begin = time.perf_counter()
    store = precompute(options)
    seconds = time.perf_counter() - begin
    report, manifest = (json.loads((store / name).read_text()) for name in ("run.json", "manifest.json"))
    n_tokens = sum(manifest["tokens"].values())
    return {
        "features": size.run_features[0], "k": size.run_features[1], "tokens": n_tokens, "seconds": seconds,
        "features_tokens_per_s": size.run_features[0] * n_tokens / seconds, "steps": report["seconds"],
    }  # fmt: skip
