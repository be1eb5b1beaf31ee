"""No reader of files that others made executes a pickle; each says in one sentence what is wrong."""

import ast
import json
import pickle
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from precompute.errors import SaevxError
from precompute.model.mllm import Mllm
from precompute.options.train import TrainOptions
from precompute.sae.sae import SaeV
from precompute.store.events import map_array
from precompute.training.activation_stream import Meter
from precompute.training.scorecard_store import read_embedding
from precompute.training.train import RESUME, checkpoints, train
from tests.helpers import tiny
from tests.helpers.architecture import ROOT
from tests.helpers.hostile.models import Hostile
from tests.helpers.tinies import Tiny

FILES = sorted([*ROOT.glob("precompute/**/*.py"), *ROOT.glob("backend/**/*.py")])


@cache
def nodes() -> list[tuple[Path, ast.Call | ast.Import | ast.ImportFrom]]:
    """The calls and imports of each file."""
    kinds = (ast.Call, ast.Import, ast.ImportFrom)
    trees = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in FILES)
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


@cache
def names_of_calls() -> list[tuple[str, str, ast.Call]]:
    """The function, the place and the call."""
    return [
        (ast.unparse(node.func), f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for path, node in nodes()
        if isinstance(node, ast.Call)
    ]


def calls(*names: str) -> list[tuple[str, ast.Call]]:
    """Where functions of these names are called, and the calls."""
    return [(place, call) for name, place, call in names_of_calls() if name in names]


def test_every_loader_is_told_to_execute_nothing() -> None:
    wanted = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
    for name, (option, value) in wanted.items():
        places = calls(name)
        assert places
        for place, call in places:
            own = [one.value for one in call.keywords if one.arg == option]
            assert len(own) == 1 and isinstance(own[0], ast.Constant) and own[0].value is value, place


def test_no_module_reads_pickles_or_runs_text() -> None:
    assert not calls("eval", "exec", "compile", "pickle.load", "pickle.loads", "os.system", "os.popen")
    for path, node in nodes():
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {"pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"} & set(names), path


def model_weights(root: Path, evil: Hostile, files: Tiny) -> None:
    folder = shutil.copytree(files.model, root / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": torch.zeros(1), "more": evil}, folder / "pytorch_model.bin")
    Mllm.load(folder, layer=tiny.LAYER, device="cpu")


def sae_weights(root: Path, evil: Hostile, files: Tiny) -> None:
    (root / "sae").mkdir()
    (root / "sae" / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoder", "layer": 2}}))
    torch.save({"encoder.weight": evil}, root / "sae" / "ae.pt")
    SaeV.load(root / "sae")


def sae_weights_of_saelens(root: Path, evil: Hostile, files: Tiny) -> None:
    folder = shutil.copytree(files.sae, root / "sae")
    (folder / "sae_weights.safetensors").write_bytes(pickle.dumps(evil))
    SaeV.load(folder)


def embedding(root: Path, evil: Hostile, files: Tiny) -> None:
    np.save(root / "embedding.npy", np.array([evil] * 4, dtype=object), allow_pickle=True)
    read_embedding(root / "embedding.npy", 4)


def array_of_a_store(root: Path, evil: Hostile, files: Tiny) -> None:
    (root / "store" / "events").mkdir(parents=True)
    np.save(root / "store/events/z.npy", np.array([evil], dtype=object), allow_pickle=True)
    map_array(root / "store/events/z.npy")


def checkpoint(root: Path, evil: Hostile, files: Tiny) -> None:
    options = TrainOptions(
        data=str(files.data), model=str(files.model), out=root / "sae", layer=tiny.LAYER, device="cpu", expansion=2,
        steps=6, batch_size=64, buffer_tokens=300, batch_tokens=150, checkpoint_every=2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Meter, "update", interrupt_at(5, Meter.update))
        train(options)
    torch.save({"weights": evil}, checkpoints(options.part)[-1] / RESUME)
    train(options)


def interrupt_at(last: int, update: Callable[..., None]) -> Callable[..., None]:
    def interrupted(self: Meter, output: Any, modality_t: Any, step: int) -> None:
        if step == last:
            raise KeyboardInterrupt
        update(self, output, modality_t, step)

    return interrupted


READERS: list[Callable[[Path, Hostile, Tiny], None]] = [
    model_weights, sae_weights, sae_weights_of_saelens, embedding, array_of_a_store, checkpoint,
]  # fmt: skip


@pytest.mark.parametrize("read", READERS, ids=lambda one: one.__name__)
def test_a_pickle_is_not_executed(
    read: Callable[[Path, Hostile, Tiny], None], tmp_path: Path, tiny_files: Tiny
) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(SaevxError) as caught:
        read(tmp_path, Hostile(marker), tiny_files)
    assert not marker.exists() and "\n" not in str(caught.value)
    pickle.loads(pickle.dumps(Hostile(marker)))
    assert marker.exists(), "unpickled, it would have"
