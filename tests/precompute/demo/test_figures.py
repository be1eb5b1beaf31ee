"""The demo's store has the shipped figures of hallucination, which are of its model and SAE-V alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from precompute.demo import make
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from tests.helpers import synthetic


def test_they_are_put_next_to_a_store_of_the_same_sae(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    shutil.copytree(synthetic.small_store(tmp_path_factory), store)
    figures = json.loads(make.HALLUCINATION_FIGURES.read_text("utf-8"))
    make.attach_hallucination(store)
    assert Store.open(store).hallucination.separation == {}, "it has another SAE"
    sha256 = Store.open(store).manifest["sae"]["sha256"]
    own = tmp_path / "own.json"
    own.write_text(json.dumps({**figures, "about": {**figures["about"], "sae": sha256}}))
    monkeypatch.setattr(make, "HALLUCINATION_FIGURES", own)
    make.attach_hallucination(store)
    separation = Store.open(store).hallucination.separation
    assert separation and set(separation) <= set(figures["separation"]["ids"])


def test_the_shipped_figures_are_of_the_shipped_sae() -> None:
    figures = json.loads(make.HALLUCINATION_FIGURES.read_text("utf-8"))
    assert figures["about"]["sae"] == SaeV.load(make.SAE).sha256
