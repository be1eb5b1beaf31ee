"""Trains the demo's SAE-V with `saevx train`, in a sweep over layers, λ and lengths.

    OMP_NUM_THREADS=1 python -m precompute.demo.training.train_sae --model demo/model --out precompute/demo/weights/sae

It learns from train scenes with their captions, from captions alone and from plain text that the language model wrote
before it was changed. The run whose features stand best for thirty words on validation scenes is chosen, and trained
again with other seeds; the figures of each run are written when it ends.
"""

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from pydantic_settings import CliApp
from transformers import AutoModelForCausalLM, AutoTokenizer

from precompute.data.records import Data
from precompute.demo.assemble import base_lm
from precompute.demo.scenes import make_scene
from precompute.demo.training.adapter_data import plain_texts
from precompute.demo.training.scene_data import pairs_and_texts, write_pairs, write_rows
from precompute.demo.training.shared_passes import Remembering
from precompute.demo.training.word_test import words_of
from precompute.demo.training.word_tokens import BATCH_TOKENS, Tokens, gather
from precompute.demo.training.words import scenes_with_words
from precompute.model.calibration import MODALITIES
from precompute.model.mllm import Mllm
from precompute.options.train import TrainOptions
from precompute.products.rounding import quickest_dtype
from precompute.sae.directions import mean_pairwise_cosine
from precompute.sae.reconstruction import QualitySums
from precompute.sae.sae import SaeV
from precompute.training.train import TRAINING, train
from precompute.utils.command_line import CommandOptions, Count, Seed, SinkMultiple
from precompute.utils.files import atomic_folder, write_json

MAX_BUFFER = 1 << 16
"""Tokens in the shuffle buffer."""
FIRST_VALIDATION = 200_000
"""Number of the first validation scene that a choice may rest on; what is reported rests on scenes before it."""
MAX_FVU = {"text": 0.08, "image": 0.11}
"""A run above these is only chosen where none is below them."""


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
    layers: list[int] = Field(default=[16], min_length=1)
    """Decoder layers to try."""
    expansion: list[float] = Field(default=[8.0], min_length=1)
    """Features per dimension of the residual stream: values to try."""
    l1: list[float] = Field(default=[1.5], min_length=1)
    """Values of λ to try."""
    steps: list[Count] = Field(default=[600], min_length=1)
    """Training steps to try."""
    decoder_bias: list[Literal["mean", "zero"]] = Field(default=["mean"], min_length=1)
    """As --decoder-bias of `saevx train`: values to try."""
    seeds: list[Seed] = Field(default=[0, 1, 2], min_length=1)
    """As --seed of `saevx train`; all but the first are used only for what the sweep has chosen."""
    n_scenes: Count = 3000
    """Train scenes with their captions."""
    n_captions: Count = 3000
    """Captions of other train scenes, without their images."""
    n_plain: Count = 10
    """Texts for each of the 24 beginnings of plain text."""
    n_each_word: Count = 60
    """Validation captions that hold each of the thirty words, at least."""
    lr: float = Field(default=1e-3, gt=0)
    """Adam's learning rate."""
    batch_size: Count = 1024
    """Tokens in a step."""
    sink_multiple: SinkMultiple = 4.0
    """As --sinks of `saevx train`."""


class Run(NamedTuple):
    """What differs between runs."""

    layer: int
    expansion: float
    l1: float
    steps: int
    decoder_bias: Literal["mean", "zero"]
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return "layer-{}-expansion-{:g}-l1-{:g}-steps-{}-{}-seed-{}".format(*self)


def written_before(n_each: int) -> list[str]:
    """Short texts by the unchanged language model."""
    tokenizer = AutoTokenizer.from_pretrained(base_lm(), trust_remote_code=False)
    lm = AutoModelForCausalLM.from_pretrained(
        base_lm(), dtype=getattr(torch, quickest_dtype()), trust_remote_code=False
    )
    return list(tokenizer.batch_decode(plain_texts(lm, tokenizer, n_each), skip_special_tokens=True))


def training_data(o: SaeTraining) -> Data:
    """Scenes with captions, captions alone and plain text, written to the work folder once."""
    folder = o.work / "data"
    if not folder.exists():
        torch.manual_seed(0)
        captions = [make_scene("train", i).caption for i in range(o.n_scenes, o.n_scenes + o.n_captions)]
        texts = [*captions, *(text.strip() for text in written_before(o.n_plain))]
        with atomic_folder(folder) as part:
            write_pairs(part / "pairs", [make_scene("train", i) for i in range(o.n_scenes)])
            write_rows(part / "texts.jsonl", ({"id": f"text-{i}", "text": text} for i, text in enumerate(texts)))
    return pairs_and_texts(folder / "pairs", folder / "texts.jsonl")


class Sweep:
    """Runs, what they share, and their figures."""

    def __init__(self, o: SaeTraining) -> None:
        self.o, self.data = o, training_data(o)
        self.scenes = scenes_with_words("validation", o.n_each_word, start=FIRST_VALIDATION)
        self.model: Mllm | None = None
        self.tokens: dict[int, tuple[Tokens, Tokens]] = {}
        self.log: dict[str, Any] = {
            "options": o.model_dump(mode="json", exclude={"model", "out", "log", "work"}),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "n_validation_scenes": len(self.scenes),
            "runs": [],
        }

    def run(self, run: Run, purpose: str) -> dict[str, Any]:
        """Train unless that is done, measure, and write down the figures."""
        folder = self.train(run)
        if run.layer not in self.tokens:
            mllm = Mllm.load(self.o.model, layer=run.layer, dtype=quickest_dtype())
            self.tokens[run.layer] = gather(mllm, self.scenes[::2]), gather(mllm, self.scenes[1::2])
        line = {"purpose": purpose, **run._asdict(), **figures(SaeV.load(folder), self.tokens[run.layer])}
        self.log["runs"].append(line)
        write_json(self.o.log, self.log)
        print(json.dumps(line), flush=True)
        return line

    def train(self, run: Run) -> Path:
        """The folder of an SAE-V."""
        o, folder = self.o, self.o.work / run.name
        if folder.exists():
            return folder
        dtype = quickest_dtype()
        if self.model is None or self.model.layer != run.layer:
            self.model = Remembering.load(o.model, layer=run.layer, dtype=dtype)
        options = TrainOptions(
            data=str(o.work / "data/pairs"), model=str(o.model), out=folder, layer=run.layer, preset="sae-v",
            expansion=run.expansion, steps=run.steps, batch_size=o.batch_size, lr=o.lr,
            lr_warm_up=min(50 / run.steps, 0.1), lr_decay=0.2, l1=run.l1, l1_warm_up=0.2, dead_window=200,
            decoder_bias=run.decoder_bias, buffer_tokens=min(MAX_BUFFER, run.steps * o.batch_size),
            sinks=o.sink_multiple, seed=run.seed, dtype=dtype, save_dtype="bfloat16", autocast=dtype == "bfloat16",
        )  # fmt: skip
        return train(options, self.model, self.data)


def figures(sae: SaeV, halves: tuple[Tokens, Tokens]) -> dict[str, Any]:
    """FVU, L0 and features that never fire, on both halves; and the words, chosen on one half and tested on each."""
    sums, fired_f = QualitySums.zeros(sae.d_model), torch.zeros(sae.n_features, dtype=torch.bool)
    for tokens_of_half in halves:
        for m in MODALITIES.values():
            for h_td in tokens_of_half.of(m).hidden_td.split(BATCH_TOKENS):
                z_tf = sae.encode(h_td)
                error = float((h_td - sae.decode(z_tf)).double().square().sum())
                sums.update(m, int((z_tf > 0).sum()), error, h_td.double().numpy())
                fired_f |= (z_tf > 0).any(0)
    train_half, test_half = halves
    rows = [words_of(sae, *pair, seed=0) for pair in ((train_half, test_half), (test_half, train_half))]
    f1 = [min(row["f1_text"], row["f1_image"]) for row_of_word in rows for row in row_of_word.values()]
    return {
        **sums.figures(),
        "dead": int((~fired_f).sum()),
        "cosine": mean_pairwise_cosine(sae.directions_fd.detach().numpy()),
        "words": [sum(row["passes"] for row in row_of_word.values()) for row_of_word in rows],
        "failing": [[word for word, row in row_of_word.items() if not row["passes"]] for row_of_word in rows],
        "mean_word_f1": float(np.mean(f1)),
    }


def merit(line: dict[str, Any]) -> tuple[bool, int, float]:
    """What the choice goes by: the reconstruction is good enough, then words, then their mean F1."""
    is_enough = all(line["fvu"][name] <= max_fvu for name, max_fvu in MAX_FVU.items())
    return is_enough, sum(line["words"]), line["mean_word_f1"]


def main() -> None:
    o = CliApp.run(SaeTraining)
    sweep = Sweep(o)
    runs = [Run(*choice, o.seeds[0]) for choice in product(o.layers, o.expansion, o.l1, o.steps, o.decoder_bias)]
    merits = {run: merit(sweep.run(run, "sweep")) for run in runs}
    best_run = max(runs, key=lambda run: merits[run])
    for seed in o.seeds[1:]:
        sweep.run(best_run._replace(seed=seed), "another seed")
    sweep.log["chosen"] = best_run.name
    write_json(o.log, sweep.log)
    with atomic_folder(o.out) as part:
        for name in ("cfg.json", "sae_weights.safetensors", TRAINING):
            shutil.copyfile(o.work / best_run.name / name, part / name)


if __name__ == "__main__":
    main()
