"""A live model is the one that the store was made with, or is refused by what differs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from backend.live.engines import Engine
from backend.live.engines import load_engine as load_served
from backend.settings import Settings
from precompute.errors import SaevxError
from precompute.live.engine import load_engine
from precompute.model import identity
from precompute.model.identity import model_sha256
from precompute.options.score import ScoreOptions
from precompute.pipeline import precompute
from tests.helpers import tiny
from tests.helpers.hub import Hub
from tests.helpers.tinies import Maker, Tiny

Change = Callable[[Path], None]


class Served(NamedTuple):
    name: str
    path: Path
    manifest: dict[str, Any]


def tuned(folder: Path, end: str = "layers.1.mlp.up_proj.weight") -> None:
    """One matrix of a model changed, as by a fine-tuning that touched nothing else."""
    path = folder / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.endswith(end))
    state[name] = state[name] * 1.001 + 1e-4
    save_file(state, path, {"format": "pt"})


def edited(name: str, **changed: object) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**config, **changed}))

    return change


def sharded(folder: Path) -> None:
    """The same weights in two files and an index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, files = sorted(state), {}
    for i in range(2):
        files |= dict.fromkeys(names[i::2], f"model-{i}.safetensors")
        save_file({name: state[name] for name in names[i::2]}, folder / f"model-{i}.safetensors", {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files, "metadata": {}}))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: None,
        sharded,
        edited("config.json", transformers_version="5.0.0", _name_or_path="elsewhere"),
        lambda folder: (folder / "README.md").write_text("words"),
        lambda folder: (folder / "generation_config.json").unlink(),
        lambda folder: (folder / "config.json").write_text(
            json.dumps(json.loads((folder / "config.json").read_text()), indent=7, sort_keys=True)
        ),
    ],
    ids=["a copy", "in two files", "of another version", "with a readme", "without defaults", "laid out otherwise"],
)
def test_the_same_model_has_the_same_sha256(change: Change, tiny_files: Tiny, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_files.model, tmp_path / "elsewhere")
    change(copy)
    assert model_sha256(str(copy)) == model_sha256(str(tiny_files.model))


def test_a_model_of_the_hub_is_the_folder_that_was_uploaded(tiny_files: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny_files.model, tmp_path / "someone" / "llava")
    (tmp_path / "someone" / "llava" / "unused.bin").write_bytes(b"never fetched")
    code = (
        "from precompute.model.identity import model_sha256\nfrom precompute.model.mllm import Mllm\n"
        "Mllm.load('someone/llava', layer=2, device='cpu')\nprint(model_sha256('someone/llava'))"
    )
    with Hub(tmp_path) as hub:
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == model_sha256(str(tiny_files.model)), done.stderr


def test_another_model_has_another(tiny_files: Tiny, tmp_path: Path) -> None:
    """Whichever of its tensors was tuned, above layer L too; and whatever else decides its tokens and pixels."""
    changes: list[Change] = [
        lambda folder: tuned(folder),
        lambda folder: tuned(folder, "layers.3.self_attn.q_proj.weight"),
        lambda folder: tuned(folder, "lm_head.weight"),
        lambda folder: tuned(folder, "multi_modal_projector.linear_1.bias"),
        edited("config.json", vision_feature_layer=-2),
        edited("tokenizer_config.json", add_bos_token=True),
        edited("processor_config.json", patch_size=4),
        lambda folder: (folder / "chat_template.jinja").write_text("{{ bos_token }}"),
        lambda folder: (folder / "tokenizer.json").write_text(
            (folder / "tokenizer.json").read_text().replace("\u0120dog", "\u0120dig")
        ),
    ]
    seen = {model_sha256(str(tiny_files.model))}
    for i, change in enumerate(changes):
        change(copy := shutil.copytree(tiny_files.model, tmp_path / str(i)))
        seen.add(model_sha256(str(copy)))
    assert len(seen) == 1 + len(changes)


def test_a_large_tensor_is_read_in_pieces_that_a_fine_tuning_does_not_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One number in two hundred changed, the first and the last of a matrix alone too."""
    monkeypatch.setattr(identity, "WHOLE_BYTES", 1 << 12)
    folder = tiny.make_llama(tmp_path / "model")
    before = load_file(folder / "model.safetensors")
    name = max(before, key=lambda one: before[one].numel())
    before[name] = torch.randn(400, 400, generator=torch.Generator().manual_seed(0))  # no model any more: a large file
    flat = before[name].numel()
    save_file(before, folder / "model.safetensors")
    plain = model_sha256(str(folder))
    for at in (torch.arange(0, flat, 200), torch.tensor([0]), torch.tensor([flat - 1])):
        state = {**before, name: before[name].clone()}
        state[name].view(-1)[at] += 1
        save_file(state, folder / "model.safetensors")
        assert model_sha256(str(folder)) != plain


def test_weights_that_are_no_safetensors_are_told_apart_too(tmp_path: Path) -> None:
    folder = tiny.make_llama(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    first = model_sha256(str(folder))
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert model_sha256(str(folder)) != first


@pytest.fixture(scope="module")
def store(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from precompute.options.precompute import PrecomputeOptions

    out = tmp_path_factory.mktemp("identity") / "store"
    files = {name: str(getattr(tiny_files, name)) for name in ("data", "model", "sae")}
    return precompute(PrecomputeOptions(**files, out=out, device="cpu"))


def engine(store: Path, manifest: dict[str, Any], model: Path, tmp_path: Path) -> None:
    """Both ways in which a store's model is loaded, for commands and for the server."""
    options = ScoreOptions(data="none", store=store, out=tmp_path / "out.jsonl", model=str(model), device="cpu")
    load_engine(options, manifest, full=False)
    load_served(Settings(stores=[store], model=str(model), device="cpu"), Served("store", store, manifest), [])


def test_the_store_names_its_model(store: Path, tiny_files: Tiny) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["model"]["sha256"] == model_sha256(str(tiny_files.model))


def test_a_copy_elsewhere_is_taken(store: Path, tiny_files: Tiny, tmp_path: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    engine(store, manifest, shutil.copytree(tiny_files.model, tmp_path / "elsewhere"), tmp_path)


def test_a_fine_tuned_twin_is_refused_by_both(store: Path, tiny_files: Tiny, tmp_path: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    twin = shutil.copytree(tiny_files.model, tmp_path / "twin")
    tuned(twin)
    options = ScoreOptions(data="none", store=store, out=tmp_path / "out.jsonl", model=str(twin), device="cpu")
    message = f"The model at {twin} is not the one of store store .*weights.*--model"
    with pytest.raises(SaevxError, match=message):
        load_engine(options, manifest, full=False)
    with pytest.raises(SaevxError, match=message):
        load_served(Settings(stores=[store], model=str(twin), device="cpu"), Served("store", store, manifest), [])


def test_stores_that_share_a_model_are_held_against_it_each(store: Path, tiny_files: Tiny) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    settings = Settings(stores=[store], model=str(tiny_files.model), device="cpu")
    first = load_served(settings, Served("store", store, manifest), [])
    assert isinstance(first, Engine)
    other = {**manifest, "model": {**manifest["model"], "sha256": "0" * 64}}
    with pytest.raises(SaevxError, match="is not the one of store"):
        load_served(settings, Served("other", store, other), [first])


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [("family", "qwen2_5_vl", "family"), ("template", "{text}", "template"), ("vocab", 7, "vocabulary")],
)
def test_a_store_of_before_is_held_against_what_it_knows(
    field: str, value: object, named: str, store: Path, tiny_files: Tiny, tmp_path: Path
) -> None:
    """Its manifest has no sha256 of the model."""
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["model"]["sha256"]
    engine(store, manifest, tiny_files.model, tmp_path)
    manifest["model"][field] = value
    with pytest.raises(SaevxError, match=rf"{named} is .*, the store's .*--model"):
        engine(store, manifest, tiny_files.model, tmp_path)


def test_the_manifest_does_not_depend_on_where_the_model_lies(options: Maker, tiny_files: Tiny, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_files.model, tmp_path / "copy")
    stores = [
        precompute(options(model=str(model), out=tmp_path / f"store-{i}", model_name="model"))
        for i, model in enumerate((copy, tiny_files.model))
    ]
    one, other = (json.loads((store / "manifest.json").read_text()) for store in stores)
    assert one["model"] == other["model"]
