"""Collects the controls of the demo's verdicts: how many features are `cross-modal` where few ought to be.

    python -m precompute.demo.evaluation.controls --demo demo

Three are those of `saevx controls` on the demo's store. The others take a pass each, and two a training before it: the
images exchanged among the pairs, an SAE-V trained in the same way on a model with random weights, and one on the demo's
model whose decoder stays as it was drawn. What the work folder holds already is not made again.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from pydantic_settings import CliApp
from transformers import AutoConfig, AutoModelForImageTextToText

from precompute.controls.run import controls, share_of
from precompute.demo.evaluation.results import Results
from precompute.demo.training.train_sae import SaeTraining, training_data
from precompute.errors import SaevxError
from precompute.options.controls import ControlsOptions
from precompute.options.precompute import PrecomputeOptions
from precompute.options.train import TrainOptions
from precompute.pipeline import precompute
from precompute.store.reader import Store
from precompute.store.schema import TESTED_VERDICTS
from precompute.training.train import TRAINING, train
from precompute.utils.command_line import CommandOptions, Count, Seed, Texts
from precompute.utils.files import atomic_folder


class DemoControls(CommandOptions):
    """Measure the controls of the demo's verdicts."""

    demo: Path = Path("demo")
    """Folder that `saevx demo` made; it is only read."""
    work: Path = Path("demo-controls")
    """Folder for the models, SAEs and stores of the controls."""
    out: Path = Path("docs/results/demo-controls.json")
    """File for the figures."""
    only: Texts = Field(default_factory=list)
    """Parts to measure: store, exchanged, untrained, frozen; default: all."""
    steps: Count | None = None
    """Steps of the trainings; default: as many as the demo's SAE-V had."""
    random_directions: bool = True
    """As --random-directions of `saevx controls`."""
    seed: Seed = 0
    """Seed of the random weights and of `saevx controls`."""


def of_store(o: DemoControls) -> dict[str, Any]:
    """What `saevx controls` says of the demo's store."""
    options = ControlsOptions(
        store=o.demo / "store", seed=o.seed, random_directions=o.random_directions, out=o.work / "store.json"
    )
    return {"store": json.loads(controls(options).read_text())}


def verdicts_of(
    o: DemoControls, name: str, make_sae: Callable[[], tuple[Path, Path]], *, shuffle: bool = False
) -> dict[str, Any]:
    """How many features are cross-modal in a store made with another model or SAE, or with the images exchanged.

    Args:
        make_sae: gives the folders of the model and of the SAE.
    """
    store_path = o.work / f"{name}-store"
    if not store_path.exists():
        model, sae = make_sae()
        data = str(o.demo / "data")
        precompute(PrecomputeOptions(data=data, model=str(model), sae=str(sae), out=store_path, shuffle_images=shuffle))
    store = Store.open(store_path)
    verdicts = store.detail["verdicts"]
    store.close()
    n_tested = sum(verdicts[verdict] for verdict in TESTED_VERDICTS)
    return {name: {"verdicts": verdicts, **share_of(verdicts["cross-modal"], n_tested)}}


def untrained_model(o: DemoControls) -> Path:
    """The demo's model with weights drawn at random."""
    folder = o.work / "untrained-model"
    if not folder.exists():
        import precompute  # noqa: F401  (registers the vision tower)

        torch.manual_seed(o.seed)
        with atomic_folder(folder) as part:
            shutil.copytree(o.demo / "model", part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
            config = AutoConfig.from_pretrained(part, trust_remote_code=False)
            AutoModelForImageTextToText.from_config(config).save_pretrained(part)
    return folder


def train_control(o: DemoControls, name: str, model: Path, *, freeze_decoder: bool = False) -> tuple[Path, Path]:
    """The model, and an SAE-V trained on it with the options of the demo's.

    Raises:
        SaevxError: the demo's SAE does not say how it was trained.
    """
    folder, log = o.work / f"{name}-sae", o.demo / "sae" / TRAINING
    if not folder.exists():
        if not log.is_file():
            raise SaevxError(f"{log} is missing, which says how the demo's SAE-V was trained: make the demo again.")
        record = json.loads(log.read_text(encoding="utf-8"))
        options = {**record["options"], **({"steps": o.steps} if o.steps else {}), "freeze_decoder": freeze_decoder}
        data = training_data(SaeTraining(model=o.demo / "model", work=o.work / "training"))
        layer = int(record["model"]["layer"])
        train(TrainOptions(data=data.name, model=str(model), out=folder, layer=layer, **options), data=data)
    return model, folder


def main() -> None:
    o = CliApp.run(DemoControls)
    o.work.mkdir(parents=True, exist_ok=True)
    results = Results(o.out, "precompute.demo.evaluation.controls", o, {"demo", "work", "out", "only"}, o.only)
    results.figures["about"]["content_id"] = json.loads((o.demo / "store" / "manifest.json").read_text())["content_id"]
    model, sae = o.demo / "model", o.demo / "sae"
    results.measure("store", lambda: of_store(o))
    results.measure("exchanged", lambda: verdicts_of(o, "exchanged", lambda: (model, sae), shuffle=True))
    for name, make_sae in (
        ("untrained", lambda: train_control(o, "untrained", untrained_model(o))),
        ("frozen", lambda: train_control(o, "frozen", model, freeze_decoder=True)),
    ):
        results.measure(name, partial(verdicts_of, o, name, make_sae))


if __name__ == "__main__":
    main()
