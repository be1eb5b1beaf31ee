"""The assembled model: what was shipped is in it, it survives saving, and its processor agrees with the pass."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import precompute  # noqa: F401  (registers the tower)
from precompute.demo import assemble as A
from precompute.demo.drawing import draw
from precompute.demo.make import build, copy_sae, n_rows
from precompute.demo.scenes import make_scene
from precompute.errors import SaevxError
from tests.helpers.demo import Demo


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(demo: Demo) -> Path:
    """As `saevx demo` assembled it."""
    return demo.model


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()


@pytest.fixture(scope="module")
def inputs(folder: Path) -> Any:
    scene = make_scene("validation", 3)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    part = {"type": "text", "text": scene.caption}
    prompt = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}, part]}])
    return processor(text=prompt, images=draw(scene), return_tensors="pt", add_special_tokens=False)


def test_the_shipped_weights_are_small() -> None:
    assert A.ADAPTER.stat().st_size <= 10e6
    assert sum(path.stat().st_size for path in A.SAE.iterdir()) <= 12e6
    assert {str(t.dtype) for t in load_file(A.ADAPTER).values()} == {"torch.bfloat16"}


def test_projector_and_lora_are_in_the_model(model: Any) -> None:
    """A custom projector would be dropped silently on loading; this one is the stock one, and there."""
    shipped = {k: v.float() for k, v in load_file(A.ADAPTER).items()}
    projector = model.model.multi_modal_projector.state_dict()
    for name in ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias"):
        torch.testing.assert_close(projector[name], shipped[name], rtol=0, atol=0)
    base = load_file(A.base_lm() / "model.safetensors")
    name = "layers.7.mlp.down_proj"
    expected = base[f"model.{name}.weight"].float() + A.LORA_SCALE * (
        shipped[f"model.{name}.lora_B"] @ shipped[f"model.{name}.lora_A"]
    )
    torch.testing.assert_close(model.model.language_model.get_submodule(name).weight, expected)
    assert (expected - base[f"model.{name}.weight"].float()).abs().max() > 1e-4


@torch.inference_mode()
def test_save_and_reload_give_the_same_logits(model: Any, inputs: Any, tmp_path: Path) -> None:
    before = model(**inputs).logits
    model.save_pretrained(tmp_path)
    again, info = AutoModelForImageTextToText.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(again.eval()(**inputs).logits, before)
    assert before.std() > 0.1
    shutil.rmtree(tmp_path)


def test_the_prompt_is_what_the_adapter_was_trained_on(folder: Path, inputs: Any) -> None:
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    tokenizer, ids = processor.tokenizer, inputs["input_ids"][0].tolist()
    image = tokenizer.convert_tokens_to_ids(A.IMAGE_TOKEN)
    caption = tokenizer(make_scene("validation", 3).caption).input_ids
    assert ids == [tokenizer.bos_token_id, *[image] * 49, *tokenizer("\n").input_ids, *caption]
    assert inputs["pixel_values"].shape == (1, 3, 224, 224)
    assert processor.num_additional_image_tokens == 0


@torch.inference_mode()
def test_the_picture_changes_what_is_said(model: Any, inputs: Any) -> None:
    other = {**inputs, "pixel_values": torch.flip(inputs["pixel_values"], (1,))}
    difference = (model(**inputs).logits - model(**other).logits)[0, -1].abs().max()
    assert difference > 0.1


def test_a_second_time_nothing_is_written(folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert A.assemble(folder, say=pytest.fail) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_a_changed_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(A.SHA256, A.ENCODER, "0" * 64)
    with pytest.raises(SaevxError, match="install the pinned package"):
        A.package_file(A.ENCODER)


def test_a_missing_package_is_named() -> None:
    with pytest.raises(SaevxError, match="make setup"):
        A.package_file(("no_such_package_here", "x"))


def test_build_leaves_everything_and_rebuilds_only_what_lacks(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(folder)
    message: list[str] = []
    paths = build(tmp_path, 60, message.append)
    assert n_rows(paths.data) == 60
    assert (paths.sae / "cfg.json").is_file()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
    message.clear()
    assert build(tmp_path, 60, message.append) == paths
    assert not message
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()} == before
    (paths.sae / "cfg.json").unlink()
    copy_sae(paths.sae)
    assert (paths.sae / "cfg.json").is_file()
    build(tmp_path, 64, message.append)
    assert n_rows(paths.data) == 64
