"""Weights that no figure can be computed with are refused by name; what only does nothing is read."""

import json
import math
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from backend.app import create_app
from backend.settings import Settings
from precompute.errors import SaevxError
from precompute.live.intervention import Intervention, Steer
from precompute.options.evaluate import EvaluateOptions
from precompute.pipeline import precompute
from precompute.sae.sae import SaeV
from precompute.training.evaluate import evaluate
from tests.helpers import tiny
from tests.helpers.tinies import Maker, Tiny

NAN, INF = math.nan, math.inf
HIDDEN = torch.randn(40, tiny.D_MODEL, generator=torch.Generator().manual_seed(3)) * 3
ARCHITECTURES = ["standard", "topk", "jumprelu", "gated", "abstopk", "batchtopk"]
COLUMN = (slice(None), 9)


def damaged(folder: Path, name: str, at: Any, value: float, **options: object) -> Path:
    """A tiny SAE with one part of one tensor set to a value."""
    tiny.make_sae(folder, bias=0.0, **options)
    state = load_file(folder / "sae_weights.safetensors")
    state[name][at] = value
    save_file(state, folder / "sae_weights.safetensors")
    return folder


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_is_looked_at(architecture: str, value: float, tmp_path: Path) -> None:
    whole = load_file(tiny.make_sae(tmp_path / "whole", architecture=architecture) / "sae_weights.safetensors")
    for name, tensor in whole.items():
        if name == "topk_threshold":
            continue  # one number for all features, see below
        switched_off = {"b_enc": -INF, "b_gate": -INF, "threshold": INF}.get(name) == value
        if switched_off and architecture != "abstopk":
            continue  # see below
        at = COLUMN if name == "W_enc" else 9 if tensor.ndim == 1 else (9, slice(None))
        folder = damaged(tmp_path / name, name, at, value, architecture=architecture)
        with pytest.raises(SaevxError, match="finite") as caught:
            SaeV.load(folder)
        feature = "" if name == "b_dec" else ", first at feature 9"
        assert f"({name}{feature}):" in str(caught.value) or architecture == "batchtopk", caught.value


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
@pytest.mark.parametrize("plain", [False, True])
def test_weights_are_real_floating_point_numbers(plain: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    """The integers of a quantized file are no weights without their scale."""
    file = tiny.make_sae(tmp_path / "sae") / "sae_weights.safetensors"
    state = load_file(file)
    save_file({**state, "W_enc": state["W_enc"].to(dtype)}, file)
    source = file if plain else file.parent
    with pytest.raises(
        SaevxError, match=r"The SAE's tensor W_enc holds numbers of type (int8|bool|complex64|I8|BOOL|C64), and"
    ):
        SaeV.load(source, format="plain" if plain else "auto")


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_threshold_of_all_features_that_is_no_number(value: float, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match=r"finite|never learnt"):
        SaeV.load(damaged(tmp_path / "sae", "topk_threshold", (), value, architecture="batchtopk"))


@pytest.mark.parametrize(
    ("architecture", "name", "value"),
    [("standard", "b_enc", -INF), ("topk", "b_enc", -INF), ("jumprelu", "threshold", INF), ("gated", "b_gate", -INF)],
)
def test_a_feature_may_be_switched_off(architecture: str, name: str, value: float, tmp_path: Path) -> None:
    whole = SaeV.load(tiny.make_sae(tmp_path / "whole", architecture=architecture, bias=0.0))
    sae = SaeV.load(damaged(tmp_path / "sae", name, 9, value, architecture=architecture))
    acts_tf = sae.encode(HIDDEN)
    assert bool((whole.encode(HIDDEN)[:, 9] > 0).any()) and not bool((acts_tf[:, 9] > 0).any())
    assert bool(torch.isfinite(sae.decode(acts_tf)).all())


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "matching_pursuit"])
@pytest.mark.parametrize("rescale", [False, True])
def test_a_decoder_row_of_zeros_is_read(architecture: str, rescale: bool, tmp_path: Path) -> None:
    if rescale and not architecture.endswith("topk"):
        return
    options = {"rescale_acts_by_decoder_norm": rescale} if architecture.endswith("topk") else {}
    folder = damaged(tmp_path / "sae", "W_dec", 0, 0.0, architecture=architecture, **options)
    whole = SaeV.load(tiny.make_sae(tmp_path / "whole", architecture=architecture, bias=0.0, **options))
    sae = SaeV.load(folder)
    acts_tf = sae.encode(HIDDEN)
    rebuilt_td = sae.decode(acts_tf)
    assert bool(torch.isfinite(rebuilt_td).all()) and not bool(sae.directions_fd[0].any())
    torch.testing.assert_close(rebuilt_td, acts_tf @ sae.directions_fd + sae.decode_zero_d, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.directions_fd[1:5], whole.directions_fd[1:5])
    if rescale:
        assert not bool(acts_tf[:, 0].any()), "z is in units of the row's length"


def test_a_feature_without_direction_steers_nothing_and_says_so(tmp_path: Path) -> None:
    sae = SaeV.load(damaged(tmp_path / "sae", "W_dec", 5, 0.0, architecture="abstopk"))
    for feature in (5, 5 + tiny.N_FEATURES):  # both its sides
        with pytest.raises(SaevxError, match=f"Feature {feature} has no direction"):
            Steer(sae, [Intervention(1, "add", 1.0, 1.0), Intervention(feature, "add", 1.0, 1.0)])
    assert sae.missing_direction_reason([0, 4, 6]) is None


def test_a_request_to_steer_with_it_is_refused_before_it_runs(options: Maker, tmp_path: Path) -> None:
    store = precompute(options(sae=str(damaged(tmp_path / "sae", "W_dec", 5, 0.0))))
    with TestClient(create_app(Settings(stores=[store], device="cpu"))) as client:
        end = time.monotonic() + 60
        while client.get("/readyz").status_code != 200 and time.monotonic() < end:
            time.sleep(0.05)
        query = {"sample_id": "pair-0", "prompt": "a", "features": [{"id": 5, "strength": 5}], "max_tokens": 2}
        reply = client.post("/api/v1/steer", json=query)
    assert reply.status_code == 422 and "has no direction" in reply.json()["detail"]


@pytest.mark.parametrize(("name", "at"), [("W_dec", 5), ("W_enc", COLUMN), ("b_enc", 9), ("b_dec", 3)])
def test_what_is_too_large_for_finite_figures_is_refused(name: str, at: Any, tmp_path: Path) -> None:
    with pytest.raises(SaevxError, match=rf"too large for finite figures, 1e\+30 \({name}"):
        SaeV.load(damaged(tmp_path / "sae", name, at, 1e30))


def test_a_large_decoder_bias_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Residual streams have such means; fewer digits are then left to a feature's own direction."""
    sae = SaeV.load(damaged(tmp_path / "sae", "b_dec", 3, 2e4))
    assert bool(torch.isfinite(sae.directions_fd).all())


def not_finite(value: Any, place: str = "") -> list[str]:
    """Places in a JSON value where a number is not finite."""
    if isinstance(value, float):
        return [] if math.isfinite(value) else [place]
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [result for key, part in parts for result in not_finite(part, f"{place}.{key}")]


@pytest.mark.parametrize(("name", "at"), [("W_dec", 5), ("W_enc", COLUMN)])
def test_the_largest_weights_that_are_read_leave_every_figure_finite(
    name: str, at: Any, options: Maker, tmp_path: Path
) -> None:
    store = precompute(options(sae=str(damaged(tmp_path / "sae", name, at, 9e14)), sinks="keep"))
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["quality"]["fvu"]["both"] > 1e20 and not not_finite(manifest)
    with closing(sqlite3.connect(store / "store.sqlite")) as base:
        for table in ("features", "samples", "examples", "scores", "flags"):
            for row in base.execute(f"SELECT * FROM {table}"):
                assert all(np.isfinite(value) for value in row if isinstance(value, float)), table
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        for path in ("/", "/sae", "/features/5", "/features/9", "/samples/pair-0", "/api/v1/sae", "/api/v1/store"):
            reply = client.get(path)
            assert reply.status_code == 200 and "inf%" not in reply.text and "Infinity" not in reply.text, path


def test_a_model_that_computes_nothing_finite_is_refused(options: Maker, tiny_files: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_files.model, tmp_path / "model"))
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("layers.0.mlp.down_proj.weight"))
    save_file({**state, name: torch.full_like(state[name], NAN)}, folder / "model.safetensors", {"format": "pt"})
    for run in (
        lambda: precompute(options(model=str(folder))),
        lambda: evaluate(
            EvaluateOptions(model=str(folder), sae=str(tiny_files.sae), data=str(tiny_files.data), device="cpu")
        ),
    ):
        with pytest.raises(SaevxError, match="is finite for no token: its weights are damaged"):
            run()


def test_an_error_that_is_not_finite_sets_the_sample_aside(options: Maker, tmp_path: Path) -> None:
    """Every weight alone can be computed with, their product cannot."""
    folder = damaged(tmp_path / "sae", "W_enc", slice(None), 5e12)
    state = load_file(folder / "sae_weights.safetensors")
    save_file({**state, "W_dec": state["W_dec"] * 1e13}, folder / "sae_weights.safetensors")
    with pytest.raises(SaevxError, match="40 give values that are not finite; the first: the SAE's reconstruction"):
        precompute(options(sae=str(folder), sinks="keep"))
