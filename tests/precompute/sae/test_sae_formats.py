"""Every format of an SAE gives the z of the SAELens folder with the same weights; what a file does not say is asked
for, never guessed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from backend.live.engines import load_engine
from backend.settings import Settings
from precompute.errors import SaevxError
from precompute.options.evaluate import EvaluateOptions
from precompute.options.score import ScoreOptions
from precompute.pipeline import precompute
from precompute.sae.sae import SaeV
from precompute.scoring.new_data import score_data
from precompute.store.reader import Store
from precompute.training.evaluate import evaluate
from tests.helpers import tiny
from tests.helpers.sae_formats import THRESHOLD, K, State, linear, saelens, same, sparsify
from tests.helpers.tinies import Maker

# ---- plain weights


def plain(path: Path, state: State, metadata: dict[str, str] | None = None, **in_sidecar: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, metadata)
    if in_sidecar:
        path.with_suffix(".json").write_text(json.dumps(in_sidecar))
    return path


def transposed(state: State) -> State:
    return {name: tensor.T if name.startswith("W_") else tensor for name, tensor in state.items()}


@pytest.mark.parametrize("lie", [dict, transposed, lambda s: linear(s, "b_dec"), lambda s: linear(s, "bias")])
def test_four_tensors_are_a_relu_where_the_user_says_so(lie: Callable[[State], State], tmp_path: Path) -> None:
    right, state = saelens(tmp_path / "right", "standard")
    path = plain(tmp_path / "sae.safetensors", lie(state))
    for place in (path, shutil.copytree(tmp_path, tmp_path / "alone", ignore=shutil.ignore_patterns("right", "alone"))):
        with pytest.raises(SaevxError, match="does not say its architecture"):
            SaeV.load(place, layer=tiny.LAYER)
        same(SaeV.load(place, layer=tiny.LAYER, format="plain"), right)
    with pytest.raises(SaevxError, match="--layer"):
        SaeV.load(path, format="plain")


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("standard", {"architecture": "standard"}),
        ("standard", {"activation": "relu"}),
        ("topk", {"architecture": "topk", "k": 8}),
        ("topk", {"activation_fn": "topk", "activation_fn_kwargs": {"k": 8}}),
        ("topk", {"k": 8}),
        ("jumprelu", {}),
        ("jumprelu", {"architecture": "jumprelu"}),
        ("gated", {}),
    ],
)
@pytest.mark.parametrize("in_sidecar", [True, False])
def test_an_architecture_that_is_said_or_proven(
    architecture: str, config: dict[str, Any], in_sidecar: bool, tmp_path: Path
) -> None:
    """In a `.json` beside the file, or in the file's own metadata."""
    right, state = saelens(tmp_path / "right", architecture)
    config = {**config, "hook_name": f"model.layers.{tiny.LAYER}"}
    path = tmp_path / "sae" / "weights.safetensors"
    if in_sidecar:
        plain(path, state, **config)
    else:
        words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in config.items()}
        plain(path, state, words)
    same(SaeV.load(path), right)
    same(SaeV.load(path.parent), right)


def test_settings_beside_plain_weights_are_kept(tmp_path: Path) -> None:
    details = {"apply_b_dec_to_input": False, "normalize_activations": "layer_norm"}
    right, state = saelens(tmp_path / "right", "standard", **details)
    path = plain(tmp_path / "sae" / "w.safetensors", state, architecture="standard", hook_layer=tiny.LAYER, **details)
    same(SaeV.load(path), right)


@pytest.mark.parametrize(
    ("change", "config", "reason"),
    [
        (lambda s: {**s, "k": K, "threshold": THRESHOLD}, {}, "does not say its architecture"),
        (lambda s: s, {"architecture": "topk"}, "TopK.*does not say k"),
        (lambda s: {**s, "k": K}, {"architecture": "topk", "k": 9}, "k = 9 and weights.k = 8"),
        (lambda s: s, {"architecture": "batchtopk", "k": 8}, "never learnt"),
        (lambda s: s, {"architecture": "matching_pursuit"}, "as a SAELens folder"),
        (lambda s: s, {"architecture": "jumprelu"}, "lacks threshold"),
        (lambda s: {**s, "scaling_factor": THRESHOLD}, {"architecture": "standard"}, "scaling_factor"),
        (lambda s: {**s, "bias": s["b_dec"].clone()}, {"architecture": "standard"}, "two names"),
        (lambda s: {n: t for n, t in s.items() if n != "b_enc"}, {"architecture": "standard"}, "lacks b_enc"),
        (lambda s: {**s, "b_enc": s["b_enc"][:-1]}, {"architecture": "standard"}, "does not fit"),
        (lambda s: {**s, "W_enc": s["W_enc"][None]}, {"architecture": "standard"}, "more than one layer"),
        (lambda s: s, {"architecture": "standard", "k": 8}, "k = 8"),
        (lambda s: {**s, "W_dec": s["W_dec"] * torch.nan}, {"architecture": "standard"}, r"finite \(W_dec"),
    ],
)
def test_what_plain_weights_do_not_say(
    change: Callable[[State], State], config: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    _, state = saelens(tmp_path / "right", "standard")
    path = plain(tmp_path / "sae.safetensors", change(state), **config)
    with pytest.raises(SaevxError, match=reason):
        SaeV.load(path, layer=tiny.LAYER, format="plain")


def test_square_matrices_lie_as_their_names_say(tmp_path: Path) -> None:
    right, state = saelens(tmp_path / "right", "standard", d_sae=tiny.D_MODEL)
    for i, lie in enumerate((dict, lambda s: linear(s, "b_dec"))):
        path = plain(tmp_path / f"{i}.safetensors", lie(state))
        same(SaeV.load(path, layer=tiny.LAYER, format="plain"), right)


# ---- sparsify


@pytest.mark.parametrize("normalize_decoder", [True, False, "absent"])
def test_a_folder_of_sparsify_takes_the_decoders_bias_off_its_input(normalize_decoder: object, tmp_path: Path) -> None:
    """SAELens would leave it on where the decoder's rows were normalised in training."""
    right, state = saelens(tmp_path / "right", "topk")
    for name in (f"layers.{tiny.LAYER}", f"model.language_model.layers.{tiny.LAYER}", f"layers_{tiny.LAYER}"):
        same(SaeV.load(sparsify(tmp_path / name, state, normalize_decoder=normalize_decoder)), right)


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("layers.2.mlp", {}, "residual stream"),
        ("vision_tower.layers.2", {}, "residual stream"),
        ("embed_tokens", {}, "residual stream"),
        ("run", {}, "--layer"),
        ("layers.2", {"k": "absent"}, "TopK.*does not say k"),
        ("layers.2", {"activation": "groupmax"}, "groupmax"),
        ("layers.2", {"signed": True}, "signed topk"),
        ("layers.2", {"transcode": True}, "writes to another"),
    ],
)
def test_other_folders_of_sparsify_are_refused(name: str, changed: dict[str, Any], reason: str, tmp_path: Path) -> None:
    _, state = saelens(tmp_path / "right", "topk")
    with pytest.raises(SaevxError, match=reason):
        SaeV.load(sparsify(tmp_path / name, state, **changed))


# ---- wherever an SAE is named


def test_places_that_are_no_sae(tmp_path: Path) -> None:
    _, state = saelens(tmp_path / "right", "standard")
    (tmp_path / "notes.txt").write_text("words")
    for place, format, reason in (
        (tmp_path / "notes.txt", "auto", "is a file"),
        (plain(tmp_path / "w" / "a.safetensors", state), "sae-lens", "is a file"),
        (tmp_path / "right", "dictionary-learning", "config.json"),
        ("release:sae", "plain", "--sae-format sae-lens"),
    ):
        with pytest.raises(SaevxError, match=reason):
            SaeV.load(place, format=format)
    plain(tmp_path / "w" / "b.safetensors", state)
    with pytest.raises(SaevxError, match=r"2 \.safetensors files"):
        SaeV.load(tmp_path / "w", format="plain")


def test_a_store_made_with_plain_weights_is_scored_served_and_evaluated(options: Maker, tmp_path: Path) -> None:
    """The format is asked for once: the store remembers it."""
    _, state = saelens(tmp_path / "right", "standard")
    made = options(sae=str(plain(tmp_path / "w.safetensors", state)), sae_format="plain", layer=tiny.LAYER)
    path = precompute(made)
    plainly = precompute(options(sae=str(tmp_path / "right"), out=tmp_path / "plain-store"))
    store, other = Store.open(path), Store.open(plainly)
    assert store.manifest["sae"] == {**other.manifest["sae"], "name": "w.safetensors", "format": "plain"}
    assert (path / "events" / "event_value.npy").read_bytes() == (plainly / "events" / "event_value.npy").read_bytes()

    scores = tmp_path / "scores.jsonl"
    score_data(ScoreOptions(data=made.data, store=path, out=scores, device="cpu"))
    assert len(scores.read_text().splitlines()) == store.n_samples
    for sae in (None, str(tmp_path / "right")):
        settings = Settings(stores=[path], device="cpu", sae=sae)
        served = type("Served", (), {"name": "store", "path": path, "manifest": store.manifest})()
        assert load_engine(settings, served, []).sae.sha256 == store.manifest["sae"]["sha256"]
    rest: dict[str, Any] = {"data": made.data, "model": made.model, "layer": tiny.LAYER, "device": "cpu"}
    report = evaluate(EvaluateOptions(sae=made.sae, sae_format="plain", resamples=2, **rest))
    assert report["sae"]["sha256"] == store.manifest["sae"]["sha256"]


def test_a_saelens_folder_leaves_no_word_of_its_format(options: Maker) -> None:
    manifest = json.loads((precompute(options()) / "manifest.json").read_text())
    assert "format" not in manifest["sae"]
