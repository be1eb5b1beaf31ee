"""The demo's store has the shipped figures of hallucination, which are of its model and SAE-V alone."""

import json
import shutil
from pathlib import Path

import pytest

from precompute.demo import make
from precompute.demo.assemble import SAE
from precompute.sae.sae import SaeV
from precompute.store.companion_files import CONTROLS, companion_path
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
    assert figures["about"]["sae"] == SaeV.load(SAE).sha256
    assert json.loads(make.RANDOM_DIRECTIONS.read_text("utf-8"))["sae"] == figures["about"]["sae"]


def test_the_control_that_takes_minutes_is_put_among_those_of_the_same_pairs(
    made_up: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    shutil.copytree(made_up.path, store)
    left_out = {"name": "random-directions", "share": None}
    path = companion_path(store, CONTROLS)
    path.write_text(json.dumps({"controls": [{"name": "derangements", "share": 0.0}, left_out]}))
    make.attach_random_directions(store)
    assert json.loads(path.read_text())["controls"][1] == left_out, "it has another SAE and other pairs"
    shipped = json.loads(make.RANDOM_DIRECTIONS.read_text("utf-8"))
    own, manifest = tmp_path / "own.json", made_up.manifest
    own.write_text(json.dumps({**shipped, "sae": manifest["sae"]["sha256"], "n_rows": manifest["data"]["n_rows"]}))
    monkeypatch.setattr(make, "RANDOM_DIRECTIONS", own)
    make.attach_random_directions(store)
    first, second = json.loads(path.read_text())["controls"]
    assert first["name"] == "derangements" and 0 < second["share"] < 0.1 and second["tested"] > 100
