"""An SAE is run as its configuration says, wherever the configuration says it, or refused in a sentence."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from precompute.errors import SaevxError
from precompute.sae import subset
from precompute.sae.config import resolve_config
from precompute.sae.sae import SaeV
from tests.helpers import tiny

HIDDEN = torch.randn(40, tiny.D_MODEL, generator=torch.Generator().manual_seed(3)) * 3
HOOK = f"blocks.{tiny.LAYER}.hook_resid_post"
OLD = {"hook_name": HOOK, "hook_layer": tiny.LAYER, "hook_head_index": None}
NEW = {"metadata": {"sae_lens_version": "6.50.0", "hook_name": HOOK}}


def make(folder: Path, changed: dict[str, Any], architecture: str = "topk", **options: object) -> Path:
    """An SAE whose cfg.json is `changed` alone, beside its sizes."""
    tiny.make_sae(folder, architecture=architecture, bias=0.0, **options)
    sizes = {"d_in": tiny.D_MODEL, "d_sae": tiny.N_FEATURES, "dtype": "float32", "device": "cpu"}
    (folder / "cfg.json").write_text(json.dumps({**sizes, "apply_b_dec_to_input": True, **changed}))
    return folder


def l0(sae: SaeV) -> float:
    return float((sae.encode(HIDDEN) > 0).sum(1).float().mean())


TOPK_WITH_K: dict[str, dict[str, Any]] = {
    "as SAELens 6 has it": {"architecture": "topk", "k": 8, **NEW},
    "as SAELens 4 had it": {**OLD, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 8}},
    "as SAELens 5 had it": {
        **OLD,
        "architecture": "standard",
        "activation_fn": "topk",
        "activation_fn_kwargs": {"k": 8},
    },
    "in the old place of a new file": {"activation_fn": "topk", "activation_fn_kwargs": {"k": 8}, **NEW},
    "in the old place, and the architecture named": {"architecture": "topk", "activation_fn_kwargs": {"k": 8}, **NEW},
    "in the metadata": {"architecture": "topk", "metadata": {**NEW["metadata"], "k": 8}},
    "in an object of another name": {"activation": "topk", "activation_kwargs": {"top_k": 8}, **NEW},
    "beside another word for TopK": {"sae_type": "TopK-SAE", "k": 8, **NEW},
    "under SAELens' name in other letters": {"architecture": "TopK", "k": 8, **NEW},
    "as a whole float": {"architecture": "topk", "k": 8.0, **NEW},
    "twice, both the same": {"architecture": "topk", "k": 8, "activation_fn_kwargs": {"k": 8}, **OLD},
}
TOPK_WITHOUT_K: dict[str, dict[str, Any]] = {
    "empty arguments": {**OLD, "activation_fn": "topk", "activation_fn_kwargs": {}},
    "no arguments": {**OLD, "activation_fn_str": "topk"},
    "null arguments": {**OLD, "activation_fn": "topk", "activation_fn_kwargs": None},
    "empty arguments in a new file": {"activation_fn": "topk", "activation_fn_kwargs": {}, **NEW},
    "architecture alone": {"architecture": "topk", **NEW},
    "architecture alone, old": {"architecture": "topk", "activation_fn_kwargs": {}, **OLD},
    "k null": {"architecture": "topk", "k": None, **NEW},
    "k zero": {"architecture": "topk", "k": 0, **NEW},
    "k below zero": {"architecture": "topk", "k": -1, **NEW},
    "k no whole number": {"architecture": "topk", "k": 8.5, **NEW},
    "k above the width": {"architecture": "topk", "k": tiny.N_FEATURES + 1, **NEW},
    "k a word": {"architecture": "topk", "k": "eight", **NEW},
    "k a flag": {"architecture": "topk", "k": True, **NEW},
    "two ks": {"architecture": "topk", "k": 8, "activation_fn_kwargs": {"k": 16}, **NEW},
    "a word for TopK elsewhere": {"architecture": "standard", "trainer": {"dict_class": "AutoEncoderTopK"}, **NEW},
    "k without a word for TopK": {"architecture": "standard", "k": 8, **NEW},
    "k without a word for TopK, old": {**OLD, "activation_fn_kwargs": {"k": 8}},
}


@pytest.mark.parametrize("place", TOPK_WITH_K)
def test_a_topk_keeps_its_k_wherever_it_stands(place: str, tmp_path: Path) -> None:
    sae = SaeV.load(make(tmp_path, TOPK_WITH_K[place]))
    assert sae.architecture == "topk" and sae.sae.cfg.k == 8 and l0(sae) == 8


def test_the_place_of_k_changes_no_bit(tmp_path: Path) -> None:
    saes = [SaeV.load(make(tmp_path / str(i), changed)) for i, changed in enumerate(TOPK_WITH_K.values())]
    assert len({sae.sha256 for sae in saes}) == 1


@pytest.mark.parametrize("place", TOPK_WITHOUT_K)
def test_a_topk_without_its_k_is_refused_by_name(place: str, tmp_path: Path) -> None:
    with pytest.raises(SaevxError) as caught:
        SaeV.load(make(tmp_path, TOPK_WITHOUT_K[place]))
    assert "TopK" in str(caught.value) and re.search(r"\bk\b", str(caught.value)), caught.value


def test_a_dry_run_of_a_wide_topk_asks_for_k_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads a part of the weights by code of its own."""
    monkeypatch.setattr(subset, "MAX_FEATURES", 20)  # so that a tiny SAE is a wide one
    with pytest.raises(SaevxError, match="TopK"):
        subset.sae_subset(str(make(tmp_path / "lost", TOPK_WITHOUT_K["architecture alone"])), None, "cpu")
    sae, stride, _ = subset.sae_subset(str(make(tmp_path / "elsewhere", TOPK_WITH_K["in the metadata"])), None, "cpu")
    assert stride == 5 and sae.sae.cfg.k == 2


@pytest.mark.parametrize(
    ("architecture", "changed", "named"),
    [
        ("standard", {"architecture": "standard", "activation_fn": "jumprelu", **NEW}, "jumprelu"),
        ("standard", {"architecture": "standard", "activation_fn_str": "batchtopk", **OLD}, "batchtopk"),
        ("standard", {"architecture": "standard", "sae_class": "GatedAutoEncoder", **NEW}, "gated"),
        ("jumprelu", {"architecture": "jumprelu", "activation_fn": "topk", **NEW}, "topk"),
        ("jumprelu", {"architecture": "jumprelu", "k": 8, **NEW}, "k = 8"),
        ("gated", {"architecture": "gated", "activation": "topk", "k": 8, **NEW}, "topk"),
        ("standard", {"architecture": "standard", "activation": "gelu", **NEW}, "'gelu'"),
        ("standard", {"architecture": "standard", "activation": "squared", **NEW}, "'squared'"),
        ("standard", {"architecture": "linear", **NEW}, "'linear'"),
        ("standard", {"architecture": ["standard"], **NEW}, "standard"),
    ],
)
def test_what_it_does_must_be_what_is_run(
    architecture: str, changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(SaevxError) as caught:
        SaeV.load(make(tmp_path, changed, architecture))
    assert named in str(caught.value), caught.value


@pytest.mark.parametrize("value", ["yes", "false", None, 0.5])
def test_what_is_neither_true_nor_false_is_refused(value: object, tmp_path: Path) -> None:
    folder = make(tmp_path, {"architecture": "standard", "apply_b_dec_to_input": value, **NEW}, "standard")
    with pytest.raises(SaevxError, match=f"apply_b_dec_to_input = {value!r}, which is neither true nor false"):
        SaeV.load(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("apply_b_dec_to_input", False),
        ("normalize_activations", "layer_norm"),
        ("normalize_activations", True),
        ("rescale_acts_by_decoder_norm", True),
        ("reshape_activations", "hook_z"),
    ],
)
def test_a_setting_in_another_place_is_not_passed_over(name: str, value: object, tmp_path: Path) -> None:
    """SAELens reads its own place alone, and would run the SAE with its default."""
    changed = {"architecture": "topk", "k": 8, "metadata": {**NEW["metadata"], name: value}}
    with pytest.raises(SaevxError, match=name):
        SaeV.load(make(tmp_path, changed))
    own = SaeV.load(make(tmp_path / "own", {"architecture": "topk", "k": 8, "sae": {"k": 8}, **NEW}))
    assert own.sae.cfg.apply_b_dec_to_input is True


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka_batchtopk"])
def test_a_batchtopk_needs_a_threshold_that_was_learnt(architecture: str, tmp_path: Path) -> None:
    """Its k is for the training; afterwards the threshold does its work."""
    folder = tiny.make_sae(tmp_path / "sae", architecture=architecture, rescale_acts_by_decoder_norm=False)
    right = SaeV.load(folder)
    config = json.loads((folder / "cfg.json").read_text())
    config.pop("k")
    (folder / "cfg.json").write_text(json.dumps(config))
    assert torch.equal(SaeV.load(folder).encode(HIDDEN), right.encode(HIDDEN))
    weights = folder / "sae_weights.safetensors"
    state = load_file(weights)
    save_file({**state, "topk_threshold": torch.zeros_like(state["topk_threshold"])}, weights)
    with pytest.raises(SaevxError, match="never learnt"):
        SaeV.load(folder)
    save_file({name: tensor for name, tensor in state.items() if name != "topk_threshold"}, weights)
    with pytest.raises(SaevxError, match="topk_threshold"):
        SaeV.load(folder)


def test_a_jumprelu_without_thresholds_is_refused(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path / "sae", architecture="jumprelu")
    weights = folder / "sae_weights.safetensors"
    state = load_file(weights)
    threshold = state.pop("threshold")
    save_file(state, weights)
    with pytest.raises(SaevxError, match="threshold"):
        SaeV.load(folder)
    relu = tiny.make_sae(tmp_path / "relu")
    save_file({**load_file(relu / "sae_weights.safetensors"), "threshold": threshold}, relu / "sae_weights.safetensors")
    with pytest.raises(SaevxError, match="threshold"):
        SaeV.load(relu)


def test_what_tells_of_a_run_is_no_claim(tmp_path: Path) -> None:
    """A name, a path or the settings of the training may hold any word."""
    about = {
        "model_name": "topk-model", "run_name": "batchtopk-7", "dataset_path": "user/topk", "wandb_project": "jumprelu",
        "jumprelu_init_threshold": 0.1, "b_dec_init_method": "zeros", "lr_scheduler_name": "constant",
    }  # fmt: skip
    metadata = {**NEW["metadata"], "training_architecture": "standard", "training_architecture_details": {"k": 7}}
    sae = SaeV.load(make(tmp_path, {"architecture": "standard", **about, "metadata": metadata}, "standard"))
    assert sae.architecture == "standard" and l0(sae) > 8


def test_a_configuration_that_says_nothing_more_is_left_alone() -> None:
    config = {"architecture": "jumprelu", "d_in": 4, "d_sae": 8, "activation_fn": "relu", **OLD}
    assert resolve_config(config) == config


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[1]", "list"),
        ('"topk"', "str"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n", "git-lfs"),
        ("{}", "cannot be loaded"),
        ('{"d_in": "32"}', "d_in = '32', which is no whole number above 0"),
        ('{"d_sae": 0}', "d_sae = 0, which is no whole number above 0"),
        ('{"metadata": "x"}', "metadata = 'x', which is no object"),
        ('{"architecture": "topk", "k": NaN}', "k = nan is no k"),
        (json.dumps({"architecture": "standard", "metadata": None}), "cannot be loaded"),
        (json.dumps({"architecture": "standard", "metadata": {"sae_lens_version": "new"}}), "cannot be loaded"),
    ],
)
def test_a_configuration_that_is_none(text: str, reason: str, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path)
    (folder / "cfg.json").write_text(text)
    with pytest.raises(SaevxError, match=reason):
        SaeV.load(folder)
    with pytest.raises(SaevxError, match=reason):
        subset.sae_subset(str(folder), None, "cpu")


@pytest.mark.parametrize("how", ["pointer", "cut", "missing", "no safetensors"])
def test_weights_that_are_none(how: str, tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path)
    path = folder / "sae_weights.safetensors"
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1\n"
        path.write_bytes({"pointer": pointer, "cut": whole[:5000], "no safetensors": b"PK\x03\x04" * 99}[how])
    reason = {"pointer": "git-lfs", "missing": "no sae_weights.safetensors"}.get(how, "cut or no safetensors file")
    with pytest.raises(SaevxError, match=reason):
        SaeV.load(folder)


def test_weights_of_another_width_are_refused_with_the_reason(tmp_path: Path) -> None:
    folder = tiny.make_sae(tmp_path)
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "d_sae": 7}))
    with pytest.raises(SaevxError, match="size mismatch"):
        SaeV.load(folder)
