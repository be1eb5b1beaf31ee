"""The paper's Figure 3 at the demo's scale: an SAE of the text-only language model, an SAE of the multimodal model's
text and an SAE-V, each put into both models (METHOD, *Quality of an SAE-V*).

The three share tokens, steps, width and penalty; they differ in the model and in what they learn from. Every line
of the result file is written as it ends, so that a killed run goes on.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from precompute.demo.training.scene_data import pairs_and_texts
from precompute.demo.training.shared_passes import Remembering
from precompute.errors import SaevxError
from precompute.experiments.figure3.data import Data, make_base, make_data
from precompute.experiments.figure3.language import language_model
from precompute.experiments.options import Figure3Options
from precompute.experiments.result_lines import Line, append_line, read_lines
from precompute.model.mllm import Mllm
from precompute.options.evaluate import EvaluateOptions
from precompute.options.train import TrainOptions
from precompute.training.evaluate import SharedModel, evaluate
from precompute.training.train import TRAINING, train
from precompute.utils.ownership import claim_folder
from precompute.utils.progress import say
from precompute.utils.provenance import fingerprint, machine

SAES = ("sae-base", "sae-mllm", "sae-v")
"""Trained on text in the base model, on the same text in the multimodal model, on its image and text."""
SETTINGS = ("base-text", "mllm-text", "mllm-pairs")
"""Measured in the base model on text, in the multimodal model on the same text, and on text after its image."""
STARTED = "options.json"
MAX_BUFFER = 262_144


def run(o: Figure3Options) -> None:
    """Write the lines that the result file lacks.

    Raises:
        SaevxError: no demo there, or a work folder or result file of a run with other options.
    """
    mllm = o.demo / "model"
    mark = mllm / "assembled.sha256"
    if not mark.is_file():
        raise SaevxError(f"{o.demo} holds no demo: run `saevx demo --dir {o.demo} --no-serve`, or name its folder.")
    options = o.model_dump(mode="json", exclude={"demo", "work", "out", "seeds"})
    run_settings = {"options": options, "model": mark.read_text()}
    claim_folder(o.work, fingerprint(**run_settings), STARTED, what="experiment", depends_on="options or another model")
    results = Results(o.out, run_settings)
    bench = Bench(o, make_base(o.work / "base"), mllm, make_data(o.work / "data", o))
    if not results.has(line="language-model"):
        start = time.monotonic()
        figures = language_model(o, bench.base, bench.mllm, bench.data.test_text)
        results.add(line="language-model", **figures, minutes=since(start))
    for seed in o.seeds:
        for sae in SAES:
            folder, minutes = o.work / f"{sae}-{seed}", None
            if not folder.exists():
                minutes = bench.train(folder, sae, seed)
            if not results.has(line="training", sae=sae, seed=seed):
                results.add(line="training", sae=sae, seed=seed, **training_line(folder), minutes=minutes)
            for setting in SETTINGS:
                if not results.has(line="evaluation", sae=sae, setting=setting, seed=seed):
                    say(f"measuring {sae}, seed {seed}, in {setting}")
                    figures = bench.evaluate(folder, setting)
                    results.add(line="evaluation", sae=sae, setting=setting, seed=seed, **figures)


@dataclass
class Bench:
    """Both models and the data, and what SAEs and seeds share as long as this process lives."""

    o: Figure3Options
    base: Path
    """The language model before it learnt to see."""
    mllm: Path
    data: Data
    readers: dict[Path, Mllm] = field(default_factory=dict)
    shared: dict[str, SharedModel] = field(default_factory=lambda: {setting: SharedModel() for setting in SETTINGS})

    def train(self, out: Path, sae: str, seed: int) -> float:
        """Train an SAE as the demo's own is trained, but for what the options say. Returns minutes."""
        o, start = self.o, time.monotonic()
        model = self.base if sae == "sae-base" else self.mllm
        if model not in self.readers:
            self.readers[model] = Remembering.load(model, layer=o.layer, device=o.device, dtype=o.dtype)
        steps = max(1, o.tokens // o.batch_size)
        say(f"training {sae}, seed {seed}: {steps} steps")
        options = TrainOptions(
            data=str(self.data.pairs if sae == "sae-v" else self.data.text), model=str(model), out=out, layer=o.layer,
            modality="all" if sae == "sae-v" else "text", architecture="standard", expansion=o.expansion,
            steps=steps, batch_size=o.batch_size, lr=o.lr, lr_warm_up=0.05, lr_decay=0.2, l1=o.l1, l1_warm_up=0.2,
            decoder_bias="zero",  # as in the committed figures
            buffer_tokens=min(MAX_BUFFER, steps * o.batch_size), log_every=max(1, steps // 10),
            dead_window=max(1, steps // 5), seed=seed, device=o.device, dtype=o.dtype,
        )  # fmt: skip
        data = pairs_and_texts(self.data.pairs, self.data.alone) if sae == "sae-v" else None
        train(options, self.readers[model], data)
        return since(start)

    def evaluate(self, sae: Path, setting: str) -> Line:
        """What an SAE is worth in a setting."""
        o, start = self.o, time.monotonic()
        options = EvaluateOptions(
            sae=str(sae),
            layer=o.layer,  # named, so that it is the same layer in whichever model
            model=str(self.base if setting == "base-text" else self.mllm),
            data=str(self.data.test_pairs if setting == "mllm-pairs" else self.data.test_text),
            resamples=o.resamples,
            device=o.device,
            dtype=o.dtype,
        )
        figures = evaluate(options, self.shared[setting])
        line = {name: figures[name] for name in ("cross_entropy", "loss_recovered", "fvu", "l0", "dead", "tokens")}
        return {"n_samples": figures["data"]["n_samples"], **line, "minutes": since(start)}


def training_line(folder: Path) -> Line:
    """How training ended: the last line of its log."""
    last = json.loads((folder / TRAINING).read_text(encoding="utf-8"))["log"][-1]
    return {name: last[name] for name in ("step", "tokens", "fvu", "l0", "dead")}


# ---- the result file and the work folder


class Results:
    """The result file: a first line that says what was run, then a line for each thing measured."""

    def __init__(self, path: Path, run_settings: Line) -> None:
        self.path = path
        self.lines: list[Line] = read_lines(path)
        if not self.lines:
            about = {"torch": torch.__version__, "machine": machine()}
            self.add(line="run", command="saevx experiment figure3", **run_settings, **about)
        elif any(self.lines[0].get(name) != value for name, value in round_all(run_settings).items()):
            raise SaevxError(f"{path} holds lines of a run with other options or another model: choose another --out.")

    def has(self, **fields: Any) -> bool:
        return any(all(line.get(name) == value for name, value in fields.items()) for line in self.lines)

    def add(self, **line: Any) -> None:
        append_line(self.path, round_all(line))
        self.lines.append(line)


def round_all(value: Any) -> Any:
    """Five significant digits say more than the intervals do."""
    if isinstance(value, dict):
        return {name: round_all(item) for name, item in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def since(start: float) -> float:
    """Minutes."""
    return (time.monotonic() - start) / 60
