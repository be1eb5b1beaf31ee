"""Trains the demo's SAE-V with `saevx train`, after a short sweep over layers and λ.

    python -m precompute.demo.training.train_sae --model demo/model --out precompute/demo/weights/sae

It learns from train scenes with their captions, from captions alone and from plain text that the language model wrote
before it was changed. The sweep chooses the layer and λ whose features stand best for thirty words on train scenes;
the figures of each run are written when it ends.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from pydantic_settings import CliApp
from transformers import AutoModelForCausalLM, AutoTokenizer

from precompute.data import Data
from precompute.demo.assemble import base_lm
from precompute.demo.scenes import make_scene
from precompute.demo.training.adapter_data import plain_texts
from precompute.demo.training.scene_data import pairs_and_texts, write_pairs, write_rows
from precompute.demo.training.word_tokens import Tokens, gather, word_f1
from precompute.demo.training.words import ALL_WORDS, F1
from precompute.model.batch import IMAGE, TEXT
from precompute.model.mllm import Mllm
from precompute.options.train import TrainOptions
from precompute.sae.sae import SaeV
from precompute.training.train import TRAINING, train
from precompute.utils.command_line import CommandOptions, Count, Seed, SinkMultiple
from precompute.utils.files import atomic_folder, write_json

MAX_BUFFER = 1 << 16
"""Tokens in the shuffle buffer."""


class SaeTraining(CommandOptions):
    """Train the demo's SAE-V."""

    model: Path = Path("demo/model")
    """The demo's model."""
    out: Path = Path("precompute/demo/weights/sae")
    """Folder of the trained SAE-V; replaced."""
    log: Path = Path("docs/results/demo-sae-training.json")
    """File for the figures of each run."""
    work: Path = Path("demo/sae-training")
    """Folder for the data and the runs; what it holds already is not made again."""
    layers: list[int] = Field(default=[10, 15], min_length=1)
    """Decoder layers to try."""
    l1: list[float] = Field(default=[5.0], min_length=1)
    """Values of λ to try."""
    n_scenes: Count = 1500
    """Train scenes with their captions."""
    n_captions: Count = 1500
    """Captions of other train scenes, without their images."""
    n_plain: Count = 10
    """Texts for each of the 24 beginnings of plain text."""
    expansion: float = Field(default=8.0, gt=0)
    """Features per dimension of the residual stream."""
    lr: float = Field(default=1e-3, gt=0)
    """Adam's learning rate."""
    batch_size: Count = 1024
    """Tokens in a step."""
    sweep_steps: Count = 250
    """Steps of each run of the sweep."""
    steps: Count = 900
    """Steps of the last run."""
    sink_multiple: SinkMultiple = 4.0
    """As --sinks of `saevx train`."""
    seed: Seed = 0
    """As --seed of `saevx train`."""


def written_before(n_each: int) -> list[str]:
    """Short texts by the unchanged language model."""
    tokenizer = AutoTokenizer.from_pretrained(base_lm(), trust_remote_code=False)
    lm = AutoModelForCausalLM.from_pretrained(base_lm(), dtype=torch.bfloat16, trust_remote_code=False)
    return list(tokenizer.batch_decode(plain_texts(lm, tokenizer, n_each), skip_special_tokens=True))


def training_data(o: SaeTraining) -> Data:
    """Scenes with captions, captions alone and plain text, written to the work folder once."""
    folder = o.work / "data"
    if not folder.exists():
        torch.manual_seed(o.seed)
        captions = [make_scene("train", i).caption for i in range(o.n_scenes, o.n_scenes + o.n_captions)]
        texts = [*captions, *(text.strip() for text in written_before(o.n_plain))]
        with atomic_folder(folder) as part:
            write_pairs(part / "pairs", [make_scene("train", i) for i in range(o.n_scenes)])
            write_rows(part / "texts.jsonl", ({"id": f"text-{i}", "text": text} for i, text in enumerate(texts)))
    return pairs_and_texts(folder / "pairs", folder / "texts.jsonl")


def train_one(o: SaeTraining, data: Data, layer: int, l1: float, steps: int) -> Path:
    """The folder of an SAE-V, trained unless it is there already."""
    out = o.work / f"layer-{layer}-l1-{l1:g}-steps-{steps}"
    if out.exists():
        return out
    options = TrainOptions(
        data=str(o.work / "data/pairs"), model=str(o.model), out=out, layer=layer, architecture="standard",
        expansion=o.expansion, steps=steps, batch_size=o.batch_size, lr=o.lr, lr_warm_up=min(50 / steps, 0.1),
        lr_decay=0.2, l1=l1, l1_warm_up=0.2, dead_window=200, buffer_tokens=min(MAX_BUFFER, steps * o.batch_size),
        sinks=o.sink_multiple, seed=o.seed, dtype="float32", save_dtype="bfloat16",
    )  # fmt: skip
    return train(options, data=data)


def figures(o: SaeTraining, folder: Path, tokens: Tokens) -> dict[str, Any]:
    """FVU, L0 and dead features at the end of training, and the words' best min(F1 on tokens, F1 on patches)."""
    last = json.loads((folder / TRAINING).read_text(encoding="utf-8"))["log"][-1]
    sae = SaeV.load(folder)
    best_w = F1(word_f1(sae, tokens.of(TEXT)), word_f1(sae, tokens.of(IMAGE))).both_wf.max(axis=1)
    return {
        **{name: {key: last[key][name] for key in ("fvu", "l0", "dead")} for name in ("text", "image")},
        "dead": last["dead"]["both"],
        "words": {word: round(float(value), 3) for word, value in zip(ALL_WORDS, best_w, strict=True)},
        "mean_word_f1": float(np.mean(best_w)),
    }


def main() -> None:
    o = CliApp.run(SaeTraining)
    data = training_data(o)
    scenes = [make_scene("train", i) for i in range(o.n_scenes)]
    tokens: dict[int, Tokens] = {}
    log: dict[str, Any] = {"options": o.model_dump(mode="json"), "runs": []}

    def run(name: str, layer: int, l1: float, steps: int) -> tuple[Path, float]:
        begin = time.monotonic()
        folder = train_one(o, data, layer, l1, steps)
        if layer not in tokens:
            tokens[layer] = gather(Mllm.load(o.model, layer=layer, dtype="float32"), scenes)
        line = {"run": name, "layer": layer, "l1": l1, "steps": steps, **figures(o, folder, tokens[layer])}
        line["minutes"] = round((time.monotonic() - begin) / 60, 1)
        log["runs"].append(line)
        write_json(o.log, log)
        print(json.dumps({key: value for key, value in line.items() if key != "words"}), flush=True)
        return folder, line["mean_word_f1"]

    choices = [(layer, l1) for layer in o.layers for l1 in o.l1]
    if len(choices) > 1:
        scores = {choice: run("sweep", *choice, o.sweep_steps)[1] for choice in choices}
        choices.sort(key=lambda choice: -scores[choice])
    folder, _ = run("final", *choices[0], o.steps)
    with atomic_folder(o.out) as part:
        for name in ("cfg.json", "sae_weights.safetensors"):
            shutil.copyfile(folder / name, part / name)


if __name__ == "__main__":
    main()
