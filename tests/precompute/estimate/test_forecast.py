"""`--dry-run` and `--max-store-gb`: bytes foretold against bytes made, and sizes no machine here could run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from precompute.data.batches import Plan
from precompute.errors import SaevxError
from precompute.estimate import forecast, rehearse
from precompute.estimate.budget import Budget, estimate
from precompute.estimate.forecast import curve, foretell
from precompute.options.precompute import Options
from precompute.pipeline import precompute
from precompute.sae import subset as narrow
from precompute.sae.sae import SaeV
from precompute.utils import memory
from tests.helpers import tiny
from tests.helpers.tinies import Maker, Tiny

WIDE = 1 << 20


@pytest.fixture(scope="module")
def many(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("many")
    return {
        "data": str(tiny.make_data(root / "data", 240)), "model": str(tiny_files.model), "sae": str(tiny_files.sae),
        "ds": 100, "device": "cpu", "batch_tokens": 1000,
    }  # fmt: skip


@pytest.fixture(scope="module")
def told(many: dict[str, Any]) -> Budget:
    """From one batch of several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearse.rehearse, "__kwdefaults__", {"seconds": 0.0})
        return estimate(Options(**many, out=Path("nowhere")))[0]


def test_every_part_of_the_store_is_foretold(told: Budget, many: dict[str, Any], tmp_path: Path) -> None:
    assert told.rehearsal.sizes.samples < 120
    out = precompute(Options(**many, out=tmp_path / "store"))
    folders = {
        "events": ("events", "tokens", "maxima"), "index": ("vectors",), "store.sqlite": ("tables",),
        "images": ("thumbnails",), "cooccurrence": ("pairs",), "map.bin": ("map",),
    }  # fmt: skip
    total = 0
    for name, parts in folders.items():
        place = out / name
        files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        total += size
        # Pairs need five samples in common: of 34 they cannot tell much yet.
        near = 0.5 if name == "cooccurrence" else 0.2
        assert sum(told.forecast.bytes[part] for part in parts) == pytest.approx(size, rel=near, abs=4000), name
    assert told.forecast.of["all"] == pytest.approx(total + (out / "manifest.json").stat().st_size, rel=0.1)


def test_what_is_said(told: Budget, many: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    said = told.text(Options(**many, out=Path("nowhere")))
    for word in ("time", "memory", "disk", "240 samples", "collect", "verify", "--events examples", "thumbnails"):
        assert word in said
    monkeypatch.setattr(memory, "total", lambda: 1000)
    assert "This machine has 1.0 KB of memory in all, and the SAE alone takes 24.6 KB" in told.text(
        Options(**many, out=Path("nowhere"))
    )
    assert "more than --max-store-gb 1e-06" in told.text(Options(**many, out=Path("nowhere"), max_store_gb=1e-6))


def test_where_no_store_fits_nothing_is_begun(many: dict[str, Any], tmp_path: Path) -> None:
    asked = Options(**many, out=tmp_path / "store", max_store_gb=0.0001)
    with pytest.raises(SaevxError, match=r"With --events none this store needs 0\.00\d* GB, more than") as caught:
        precompute(asked)
    assert "\n" not in str(caught.value) and not asked.part.exists()


def test_the_limit_chooses_what_is_kept(told: Budget, many: dict[str, Any], tmp_path: Path) -> None:
    between = (told.forecast.of["none"] + told.forecast.of["all"]) / 2e9
    out = precompute(Options(**many, out=tmp_path / "store", max_store_gb=between))
    assert (out / "events" / "kept.npy").exists()
    assert sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) <= between * 1e9


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "batchtopk"])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_narrower_sae_has_the_features_of_the_wide_one(
    architecture: str, by_file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.make_sae(tmp_path / "sae", architecture=architecture)
    whole = SaeV.load(folder)
    monkeypatch.setattr(narrow, "MOST_FEATURES", 20)
    if not by_file:
        monkeypatch.setattr(narrow, "config_of", lambda _: None)
    sae, stride = narrow.narrow(str(folder), None, "cpu")
    assert stride == 5 and sae.n_features == 20 and sae.layer == whole.layer
    hidden_td = torch.randn(7, tiny.D_MODEL, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(sae.directions_fd, whole.directions_fd[::5])
    if architecture != "topk":
        assert torch.allclose(sae.encode(hidden_td), whole.encode(hidden_td)[:, ::5], atol=1e-5)


def test_text_alone_is_foretold(options: Maker, tmp_path: Path) -> None:
    path = tmp_path / "text.jsonl"
    rng = np.random.default_rng(0)
    path.write_text("".join(json.dumps({"text": " ".join(rng.choice(tiny.WORDS, 6))}) + "\n" for _ in range(24)))
    made = options(data=str(path), model=str(tiny.make_llama(tmp_path / "llama")))
    told = estimate(made)[0].forecast
    size = sum(file.stat().st_size for file in precompute(made).rglob("*") if file.is_file())
    assert told.bytes["thumbnails"] == 0 and told.of["all"] == pytest.approx(size, rel=0.1)


def test_a_million_features_start_and_say_what_they_need(
    tiny_files: Tiny, options: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sae = tiny.make_sae(tmp_path / "wide", d_sae=WIDE)
    made = options(sae=str(sae))
    memory.forget_peak()
    before = memory.resident()
    told = estimate(made)[0]
    assert memory.peak() - before < 2.5e9, "the SAE alone and the accumulators of all features would take 10 GB"
    assert told.rehearsal.stride == WIDE // narrow.MOST_FEATURES and told.forecast.n_features == WIDE
    assert told.forecast.memory > WIDE * forecast.HISTOGRAM
    assert told.forecast.bytes["vectors"] > WIDE * 2 * 2 * tiny.D_MODEL
    assert "tried with one of every 128 features" in told.text(made)


def test_a_million_features_times_a_million_samples(told: Budget) -> None:
    """Only numbers: nothing as large as the one times the other."""
    n = 1_000_000
    length_n = np.full(n, 600, np.int64)
    plan = Plan([[i] for i in range(n)], [range(i, i + 1000) for i in range(0, n, 1000)], list(range(1016)), length_n)
    memory.forget_peak()
    before = memory.resident()
    found = foretell(
        told.rehearsal._replace(stride=WIDE // told.rehearsal.n_features), plan, ds=1000, n_features=WIDE,
        vocab=256_000, d_model=4096, startup=1.0,
    )  # fmt: skip
    assert memory.peak() - before < 1e9
    assert found.of["all"] >= found.of["examples"] > found.of["none"] > 1e9  # a million features show every sample
    assert found.memory > found.sae == WIDE * 4096 * 8 and found.total > 3600
    assert np.isfinite(list(found.seconds.values())).all() and min(found.seconds.values()) >= 0


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 52)), min_size=1, max_size=50))
def test_rows_grow_with_counts_and_are_those_seen_at_those_seen(pairs: list[tuple[int, int]]) -> None:
    seen = np.array([a for a, _ in pairs])
    rows = np.minimum(np.array([b for _, b in pairs]), seen)
    sums = [curve(seen, rows, seen * factor) for factor in (1, 2, 8)]
    assert sums[0] <= sums[1] <= sums[2] <= 52 * len(seen)
    full = np.full(20, 500)
    assert curve(full, np.full(20, 52), full * 9) == pytest.approx(52 * 20)
