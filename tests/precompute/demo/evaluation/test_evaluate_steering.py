"""Steering with the demo's SAE-V: an interrupted run goes on, families and several random directions are measured."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from precompute.demo.evaluation import evaluate_steering as under_test
from precompute.demo.evaluation.evaluate_steering import METHODS, Steering, main
from precompute.errors import SaevxError
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.demo import Demo

N_SCENES, N_RANDOM = 1, 2


def test_an_interrupted_run_goes_on(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "TARGETS", {"colours": ["red"], "shapes": ["star"], "objects": ["dog"]})
    monkeypatch.setattr(under_test, "STRENGTHS", (3.0,))
    results: dict[str, Any] = {}
    measure, measured = Steering.measure, list[str]()

    def interrupted(self: Steering, target: str) -> dict[str, Any]:
        if len(measured) == 1 and target == "star":
            raise KeyboardInterrupt
        measured.append(target)
        return measure(self, target)

    def run(name: str, *more: object) -> None:
        options = ["--model", demo.model, "--sae", demo.sae, "--store", demo.store, "--out", tmp_path / f"{name}.json"]
        options += ["--n-scenes", N_SCENES, "--n-tuning", 1, "--n-each-word", 1, "--n-random", N_RANDOM, *more]
        monkeypatch.setattr(sys, "argv", ["evaluate_steering", *map(str, options)])
        main()

    run("whole")
    monkeypatch.setattr(Steering, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run("parts")
    with pytest.raises(SaevxError, match="options"):
        run("parts", "--seed", 1)
    measured.append("resumed")
    run("parts")
    assert measured == ["red", "resumed", "star", "dog"]
    assert not list(tmp_path.glob("*.part"))
    for name in ("whole", "parts"):
        results[name] = json.loads((tmp_path / f"{name}.json").read_text())
    assert results["whole"] == results["parts"]

    groups = results["whole"]["groups"]
    assert set(groups) == {"colours", "shapes", "objects", "colours and shapes"}
    for group in ("colours", "shapes", "objects"):
        assert set(groups[group]) == set(METHODS) and groups[group]["random"]["n"] == N_SCENES * N_RANDOM
        assert groups[group]["features"]["n"] == N_SCENES
    assert results["whole"]["other_question"]["none"]["n"] == 3 * N_SCENES
    store = Store.open(demo.store)
    for target in results["whole"]["targets"].values():
        (one,) = np.unique(store.features.family[target["family"]])
        assert target["family"] == np.flatnonzero(store.features.family == one).tolist()
        assert set(target["family"]) & set(target["features"])
    store.close()


def test_a_store_of_another_sae_is_refused(demo: Demo, tmp_path: Path) -> None:
    sae = tiny.make_sae(tmp_path / "sae")
    o = under_test.SteeringEvaluation(sae=sae, store=demo.store, model=demo.model, out=tmp_path / "out.json")
    with pytest.raises(SaevxError, match="another SAE"):
        under_test.run(o)
