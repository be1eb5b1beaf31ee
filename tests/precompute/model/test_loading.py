"""Whatever a model's folder holds ends in one sentence with the true cause, and no code in it is run."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from precompute.errors import PairError, SaevxError
from precompute.model.batch import Pair
from precompute.model.loading import check_complete
from precompute.model.mllm import Mllm
from tests.helpers import tiny
from tests.helpers.tinies import Tiny

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n"
ROOT = Path(__file__).parents[3]
Change = Callable[[Path], object]


@pytest.fixture
def folder(tiny_files: Tiny, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_files.model, tmp_path / "model")


def refusal(folder: Path, *, full: bool = False) -> str:
    with pytest.raises(SaevxError) as caught:
        Mllm.load(folder, layer=tiny.LAYER, device="cpu", full=full)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "processor_config.json",
        "chat_template.jinja",
    ],
)
def test_a_git_lfs_pointer_is_called_one(name: str, folder: Path) -> None:
    (folder / name).write_text(POINTER)
    assert f"{name} is a git-lfs pointer" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"])
def test_a_file_that_is_no_json_is_named(name: str, folder: Path) -> None:
    whole = (folder / name).read_text()
    for text in ("", "{", whole[: len(whole) // 2]):
        (folder / name).write_text(text)
        assert f"{name} is no JSON" in refusal(folder)
    (folder / name).write_text("[1]")
    assert f"{name} holds a JSON list" in refusal(folder)


def test_weights_that_are_cut_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for content in (whole[:5000], whole[:-1], b"", b"PK\x03\x04" * 99):
        path.write_bytes(content)
        assert "model.safetensors is cut or no safetensors file" in refusal(folder)
    path.unlink()
    assert "no file named model.safetensors" in refusal(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    assert "cannot be loaded" in refusal(folder)


def test_what_is_missing_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refusal(folder)
    (folder / "config.json").unlink()
    assert "holds no config.json" in refusal(folder)


def test_a_configuration_of_a_larger_model_is_refused_before_memory_is_taken(folder: Path) -> None:
    """One that has lost its `text_config` describes a model of 7 billion weights."""
    config = json.loads((folder / "config.json").read_text())
    for text_config in ({**config["text_config"], "intermediate_size": 500_000}, None):
        (folder / "config.json").write_text(json.dumps({**config, "text_config": text_config}))
        assert "copy its config.json again" in refusal(folder)


def test_weights_beside_those_of_the_model_do_not_count(folder: Path) -> None:
    """Such as an adapter's: the folder's own weights may be of another format, which transformers reads itself."""
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    save_file({"lora": torch.zeros(2)}, folder / "adapter.safetensors")
    assert Mllm.load(folder, layer=1).layer == 1


def test_a_template_that_is_cut(folder: Path) -> None:
    text = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(text[:-20])
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize(
    "end", ["layers.1.mlp.up_proj.weight", "embed_tokens.weight", "linear_1.weight", "patch_embedding.weight"]
)
def test_weights_that_would_be_set_by_chance_are_refused(end: str, folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in state.items() if not n.endswith(end)}, folder / "model.safetensors", {"format": "pt"})
    assert "lack 1 of its weights" in refusal(folder) and end in refusal(folder)


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_weights_that_the_configuration_leaves_out_are_refused(part: str, folder: Path) -> None:
    """Without them the model would compute something else, with no word about it. Layers above L are no matter."""
    config = json.loads((folder / "config.json").read_text())
    config[part]["num_hidden_layers"] -= 1
    (folder / "config.json").write_text(json.dumps(config))
    assert "copy its config.json again" in refusal(folder, full=True)
    if part == "vision_config":
        assert "encoder.layers.1" in refusal(folder)
    else:
        assert Mllm.load(folder, layer=tiny.LAYER, device="cpu").layer == tiny.LAYER


@pytest.mark.parametrize(("part", "field"), [("text_config", "vocab_size"), ("vision_config", "intermediate_size")])
def test_weights_of_other_shapes_are_called_so(part: str, field: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config[part][field] += 1
    (folder / "config.json").write_text(json.dumps(config))
    assert "its weights have other shapes than its config.json describes" in refusal(folder)


def test_biases_that_the_configuration_leaves_out_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "multimodal_projector_bias": False}))
    assert "linear_1.bias" in refusal(folder)


def test_a_model_without_its_head_is_read_up_to_its_layer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in state.items() if "lm_head" not in n}, folder / "model.safetensors", {"format": "pt"})
    Mllm.load(folder, layer=tiny.LAYER, device="cpu")
    assert "lm_head.weight, set by chance" in capsys.readouterr().err
    assert "lm_head.weight" in refusal(folder, full=True)


@pytest.mark.parametrize(
    ("name", "is_of_head"),
    [
        ("lm_head.weight", True),
        ("model.vision_tower.vision_model.head.attention.in_proj_weight", True),
        ("model.vision_tower.pooler.dense.bias", True),
        ("model.projector.multihead_attn.in_proj_weight", False),
        ("model.language_model.layers.0.self_attn.q_proj.weight", False),
    ],
)
def test_only_a_head_may_be_absent(name: str, is_of_head: bool) -> None:
    report = {"missing_keys": {name}}
    if is_of_head:
        check_complete("folder", report, full=False)
    else:
        with pytest.raises(SaevxError, match=name):
            check_complete("folder", report, full=False)


# ---- code in a model's folder

CODE = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers import PreTrainedTokenizerFast
class OwnConfig(LlavaConfig): model_type = "own"
class OwnModel(LlavaForConditionalGeneration): pass
class OwnProcessor(LlavaProcessor): pass
class OwnTokenizer(PreTrainedTokenizerFast): pass
class OwnImages: pass
def generate(*args, **kwargs): pass
"""
LOAD = """
import sys
import torch
torch.set_num_threads(1)
from precompute.errors import PairError, SaevxError
from precompute.model.batch import Pair
from precompute.model.mllm import Mllm
for folder in sys.argv[1:]:
    try:
        Mllm.load(folder, layer=2, device="cpu", full=True)
        print("loaded")
    except SaevxError as error:
        print(error)
"""


def edited(name: str, change: Callable[[dict[str, Any]], object]) -> Change:
    def edit(folder: Path) -> None:
        path = folder / name
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return edit


def own_image_processor(folder: Path) -> None:
    """In a file of its own, and no file names the processor's class: transformers passes `trust_remote_code` on to
    none of its parts then."""
    config = json.loads((folder / "processor_config.json").read_text())
    images = config.pop("image_processor")
    config.pop("processor_class")
    (folder / "processor_config.json").write_text(json.dumps(config))
    edited("tokenizer_config.json", lambda tokens: tokens.pop("processor_class", None))(folder)
    own = {"image_processor_type": "OwnImages", "auto_map": {"AutoImageProcessor": "own.OwnImages"}}
    (folder / "preprocessor_config.json").write_text(json.dumps({**images, **own}))


def own_generate(folder: Path) -> None:
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "own.py", folder / "custom_generate" / "generate.py")


REFUSED: dict[str, Change] = {
    "model": edited(
        "config.json",
        lambda config: config.update(
            model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.OwnModel"}
        ),
    ),
    "processor": edited(
        "processor_config.json",
        lambda config: config.update(processor_class="OwnProcessor", auto_map={"AutoProcessor": "own.OwnProcessor"}),
    ),
    "image processor": edited(
        "processor_config.json",
        lambda config: config["image_processor"].update(
            image_processor_type="OwnImages", auto_map={"AutoImageProcessor": "own.OwnImages"}
        ),
    ),
    "image processor apart": own_image_processor,
}
READ: dict[str, Change] = {
    "a known model type": edited(
        "config.json",
        lambda config: config.update(
            auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.OwnModel"}
        ),
    ),
    "generation": own_generate,
}


def test_no_code_of_a_models_folder_is_run(tiny_files: Tiny, tmp_path: Path) -> None:
    """Whoever answers yes, on standard input: it is refused, or the model read by transformers' own classes."""
    marker, folders = tmp_path / "marker", []
    for name, change in {**REFUSED, **READ}.items():
        folders.append(shutil.copytree(tiny_files.model, tmp_path / name))
        (folders[-1] / "own.py").write_text(CODE.format(marker=str(marker)))
        change(folders[-1])
    folders.append(tiny.make_llama(tmp_path / "tokenizer"))
    (folders[-1] / "own.py").write_text(CODE.format(marker=str(marker)))
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    edited("tokenizer_config.json", lambda config: config.update(own))(folders[-1])
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, folders)],
        input="y\n" * 20,
        text=True,
        capture_output=True,
        timeout=300,
        cwd=ROOT,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )
    lines = done.stdout.splitlines()
    assert not marker.exists() and done.returncode == 0, done.stderr
    assert len(lines) == len(folders), done.stdout
    refused = [*lines[: len(REFUSED)], lines[-1]]
    assert all("brings Python code of its own, which is never run here" in line for line in refused), lines
    assert lines[len(REFUSED) : -1] == ["loaded"] * len(READ)


def test_every_from_pretrained_says_so() -> None:
    """In the program and in what is run beside it; `SAE.from_pretrained` is SAELens', which runs none."""
    bare = []
    for path in (*ROOT.glob("precompute/**/*.py"), *ROOT.glob("backend/**/*.py"), *ROOT.glob("tests/bench/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr != "from_pretrained" or ast.unparse(node.func.value) == "SAE":
                continue
            trust = [one.value for one in node.keywords if one.arg == "trust_remote_code"]
            if not (len(trust) == 1 and isinstance(trust[0], ast.Constant) and trust[0].value is False):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not bare


@pytest.mark.parametrize("token", ["pad_token", "sep_token"])
def test_tokens_for_which_the_model_has_no_embedding(folder: Path, token: str) -> None:
    """A padding is masked, so that another token may stand there; a text with such a token is refused."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, token: "<never trained>"}))
    mllm = Mllm.load(folder, layer=tiny.LAYER, device="cpu")
    image = tiny.picture(1)
    batch = mllm.prepare([Pair("a dog", [image]), Pair("a red ball on a dog", [image])])
    assert int(batch.inputs["input_ids"].max()) < mllm.n_embeddings and mllm.hidden(batch).isfinite().all()
    with pytest.raises(PairError, match=r"its token \d+ has no place among the model's \d+ embeddings"):
        mllm.prepare([Pair("a <never trained> dog", [image])])


def test_a_template_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe\0{{ x }}")
    assert "chat_template.jinja is no text" in refusal(folder)


@pytest.mark.parametrize("name", ["chat_template.jinja", "config.json", "model.safetensors", "video_preprocessor.json"])
def test_a_pipe_in_a_folder_is_not_waited_for(name: str, folder: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert ("holds no config.json" if name == "config.json" else f"{name} is a pipe or a device") in refusal(folder)
