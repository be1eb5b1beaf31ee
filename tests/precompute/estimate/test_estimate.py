"""`--dry-run` and `--max-store-gb`: bytes estimated against bytes made, and sizes no machine here could run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from precompute.collect.session import Session
from precompute.data.batches import Plan
from precompute.errors import SaevxError
from precompute.estimate.budget import Budget, estimate
from precompute.estimate.growth import Width, curve, estimate_run, line, widen
from precompute.estimate.trial import Trial, measure_trial_run
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.sae import subset
from precompute.sae.sae import SaeV
from precompute.utils import memory
from tests.helpers import tiny
from tests.helpers.tinies import Maker, Tiny

WIDE = 1 << 20
N, FEW = 240, 60
"""Samples of the data, in several batches; and of data that is run whole to see what a limit does."""


@pytest.fixture(scope="module")
def many(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("many")
    return {
        "data": str(tiny.make_data(root / "data", N)), "model": str(tiny_files.model), "sae": str(tiny_files.sae),
        "ds": 100, "device": "cpu", "batch_tokens": 1000,
    }  # fmt: skip


@pytest.fixture(scope="module")
def few(many: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {**many, "data": str(tiny.make_data(tmp_path_factory.mktemp("few") / "data", FEW))}


@pytest.fixture(scope="module")
def store_of_many(many: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return precompute(PrecomputeOptions(**many, out=tmp_path_factory.mktemp("of-many") / "store"))


@pytest.fixture(scope="module")
def budget(many: dict[str, Any]) -> Budget:
    """From one batch of several, and parts of it."""
    return estimate(PrecomputeOptions(**many, out=Path("nowhere")), seconds=0.0)[0]


def sizes_of(store: Path) -> dict[str, int]:
    """Bytes by folder or file."""
    sizes: dict[str, int] = {}
    for path in store.rglob("*"):
        if path.is_file():
            top = path.relative_to(store).parts[0]
            sizes[top] = sizes.get(top, 0) + path.stat().st_size
    return sizes


def test_every_part_of_the_store_is_estimated(budget: Budget, store_of_many: Path) -> None:
    sizes = sizes_of(store_of_many)
    parts = {
        "events": ("events", "tokens and maxima"), "index": ("vectors",), "store.sqlite": ("tables",),
        "images": ("thumbnails",), "cooccurrence": ("pairs",), "map.bin": ("map",), "manifest.json": ("manifest",),
    }  # fmt: skip
    for name, those in parts.items():
        # Pairs need five samples in common: of 34 they cannot tell much yet.
        near = 0.5 if name == "cooccurrence" else 0.2
        assert sum(budget.estimate.bytes[part] for part in those) == pytest.approx(sizes[name], rel=near, abs=4000), (
            name
        )
    assert budget.estimate.bytes_with["all"] == pytest.approx(sum(sizes[name] for name in parts), rel=0.1)


def test_an_estimate_from_all_of_the_data_is_what_is_made(
    many: dict[str, Any], store_of_many: Path, tmp_path: Path
) -> None:
    result = estimate(PrecomputeOptions(**many, out=tmp_path / "store"), seconds=1e6)[0].estimate
    sizes = sizes_of(store_of_many)
    parts = {"index": "vectors", "images": "thumbnails", "cooccurrence": "pairs", "map.bin": "map"}
    # The trial's D_s is of other samples, so not every list is the same.
    assert {part: result.bytes[part] for part in parts.values()} == {
        part: pytest.approx(sizes[name], rel=0.01) for name, part in parts.items()
    }
    assert result.bytes_with["all"] == pytest.approx(sum(sizes.values()), rel=0.02)
    assert result.counts["samples"] == N and set(result.seconds) >= {"start", "collect", "verify"}


def test_what_is_printed(budget: Budget, many: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    text = budget.text(PrecomputeOptions(**many, out=Path("nowhere")))
    for word in ("time", "memory", "disk", f"{N} samples", "collect", "verify", "--events examples", "thumbnails"):
        assert word in text
    monkeypatch.setattr(memory, "total", lambda: 1000)
    assert "This machine has 1.0 KB of memory in all, and the SAE alone takes 24.6 KB" in budget.text(
        PrecomputeOptions(**many, out=Path("nowhere"))
    )
    limited = PrecomputeOptions(**many, out=Path("nowhere"), max_store_gb=1e-6)
    assert "more than --max-store-gb 1e-06" in budget.text(limited)


def test_where_no_store_fits_nothing_is_begun(few: dict[str, Any], tmp_path: Path) -> None:
    options = PrecomputeOptions(**few, out=tmp_path / "store", max_store_gb=0.0001)
    with pytest.raises(SaevxError, match=r"With --events none this store needs 0\.00\d* GB, more than") as caught:
        precompute(options)
    assert "\n" not in str(caught.value) and not options.part.exists()


def test_the_limit_chooses_what_is_kept(few: dict[str, Any], tmp_path: Path) -> None:
    sizes = sizes_of(precompute(PrecomputeOptions(**few, out=tmp_path / "all")))
    between = (sum(sizes.values()) - sizes["events"] / 2) / 1e9
    out = precompute(PrecomputeOptions(**few, out=tmp_path / "store", max_store_gb=between))
    assert (out / "events" / "kept.npy").exists()
    assert sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) <= between * 1e9


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "batchtopk"])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_narrower_sae_has_the_features_of_the_wide_one(
    architecture: str, by_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.make_sae(tmp_path / "sae", architecture=architecture)
    wide = SaeV.load(folder)
    monkeypatch.setattr(subset, "MAX_FEATURES", 20)
    if not by_file:
        monkeypatch.setattr(subset, "_config_of", lambda _: None)
    sae, stride, n_features = subset.sae_subset(str(folder), None, "cpu")
    assert (stride, sae.n_features, n_features, sae.layer) == (5, 20, wide.n_features, wide.layer)
    hidden_td = torch.randn(7, tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sae.directions_fd, wide.directions_fd[::5])
    if architecture != "topk":
        assert torch.allclose(sae.encode(hidden_td), wide.encode(hidden_td)[:, ::5], atol=1e-5)
    assert torch.allclose(subset.every_kth_feature(sae, 4).directions_fd, wide.directions_fd[::20])


def test_text_alone_is_estimated(options: Maker, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    rng = np.random.default_rng(0)
    path.write_text("".join(json.dumps({"text": " ".join(rng.choice(tiny.WORDS, 6))}) + "\n" for _ in range(24)))
    made = options(data=str(path), model=str(tiny.make_llama(tmp_path / "llama")))
    result = estimate(made)[0].estimate
    size = sum(file.stat().st_size for file in precompute(made).rglob("*") if file.is_file())
    assert result.bytes["thumbnails"] == 0 and result.bytes_with["all"] == pytest.approx(size, rel=0.1)


def test_features_by_the_stride(tiny_files: Tiny, many: dict[str, Any], tmp_path: Path) -> None:
    """From every second and every eighth of the features: as many bytes as of all of them."""
    made = PrecomputeOptions(**many, out=tmp_path / "store")
    sae = SaeV.load(tiny_files.sae)
    session = Session(made, sae=sae)
    trials = [
        measure_trial_run(session.with_sae(narrow), 60)
        for narrow in (sae, subset.every_kth_feature(sae, 2), subset.every_kth_feature(sae, 8))
    ]
    whole, half = trials[0], widen(trials[1], trials[2], 0.25, 2)
    for part in ("events", "vectors", "map"):
        assert half.bytes[part] == pytest.approx(whole.bytes[part], rel=0.1), part
    assert half.bytes["thumbnails"] == whole.bytes["thumbnails"] and half.counts["tokens"] == whole.counts["tokens"]
    assert sum(half.bytes.values()) == pytest.approx(sum(whole.bytes.values()), rel=0.2)


def test_a_million_features_start_and_say_what_they_need(
    options: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subset, "MAX_FEATURES", 512)  # a sixteenth of what is tried, in less time
    made = options(sae=str(tiny.make_sae(tmp_path / "wide", d_sae=WIDE)))
    memory.reset_peak()
    before = memory.resident()
    budget = estimate(made, seconds=0.0)[0]
    assert memory.peak() - before < 2.5e9, "the SAE alone and the accumulators of all features would take 10 GB"
    assert budget.stride == WIDE // subset.MAX_FEATURES and budget.estimate.n_features == WIDE
    histogram = 2 * 256 * 8
    assert budget.estimate.memory > WIDE * histogram
    assert budget.estimate.bytes["vectors"] > WIDE * 2 * 2 * tiny.D_MODEL
    assert "tried with one of every 2048 features" in budget.text(made)


def trial(n: int, growth: float) -> Trial:
    """Amounts that are the number of samples to the power `growth`."""
    y = float(n) ** growth
    return Trial(
        n, 600.0 * n, {"collect": y, "weigh": y}, 1e9, {"collect": 1e8, "weigh": 2e8}, 1e6 * n,
        {"events": 2 * y, "tables": y},
        {"all": 2 * y, "examples": y, "none": 0.0}, {"samples": n, "tokens": 600.0 * n, "events": y, "scratch": y},
    )  # fmt: skip


@pytest.mark.parametrize("growth", [0.3, 1.0])
def test_a_million_features_times_a_million_samples(growth: float) -> None:
    """Only numbers: nothing as large as the one times the other."""
    n = 1_000_000
    length_n = np.full(n, 600, np.int64)
    plan = Plan([[i] for i in range(n)], [range(i, i + 1000) for i in range(0, n, 1000)], list(range(1016)), length_n)
    trials = [trial(m, growth) for m in (256, 512, 1024)]
    memory.reset_peak()
    before = memory.resident()
    result = estimate_run(trials, plan, Width(WIDE, WIDE, 4096), ds=1000, start=1.0)
    assert memory.peak() - before < 1e9
    assert result.bytes_with["all"] == pytest.approx(3 * n**growth, rel=0.01)
    assert (
        result.bytes_with["all"]
        >= result.bytes_with["examples"]
        > result.bytes_with["none"]
        == pytest.approx(n**growth, rel=0.01)
    )
    assert result.sae == WIDE * 4096 * 8 and result.counts["events"] == pytest.approx(n**growth, rel=0.01)
    assert result.memory == pytest.approx(1e9 + 2e8), "a shard has fewer samples than the trial"
    assert np.isfinite(list(result.seconds.values())).all() and min(result.seconds.values()) >= 0
    assert result.seconds["weigh"] == pytest.approx(1024**growth), "ω is computed from D_s alone"


AMOUNTS = st.lists(st.floats(0, 1e9), min_size=3, max_size=3)


@given(AMOUNTS, st.floats(1, 1e6), st.floats(1, 1e6))
def test_an_amount_never_falls_and_grows_at_most_as_the_data(y: list[float], factor: float, more: float) -> None:
    x = [256.0, 512.0, 1024.0]
    near, far = curve(x, y, 1024 * factor), curve(x, y, 1024 * factor * more)
    slope = max(0.0, y[2] - y[1]) / 512
    assert y[2] * (1 - 1e-9) <= near <= far * (1 + 1e-9) + 1e-6
    assert far <= (y[2] + slope * 1024 * (factor * more - 1)) * (1 + 1e-6) + 1e-3
    assert curve(x, y, 1024) == y[2] and line(x, y, 1024) >= y[2] * (1 - 1e-9)


@pytest.mark.parametrize("p", [-1.0, 0.4, 1.0])
def test_how_an_amount_grows_is_seen_in_three_trials(p: float) -> None:
    x = [100.0, 200.0, 400.0]

    def truth(n: float) -> float:
        return 7e6 + 1e4 * np.sign(p) * n**p

    assert curve(x, [truth(n) for n in x], 6400) == pytest.approx(truth(6400), rel=1e-3)


def test_a_step_of_a_process_that_runs_first_takes_longer_once() -> None:
    assert line([1.0, 2.0, 4.0], [11.0, 2.0, 4.0], 100) == pytest.approx(110)
