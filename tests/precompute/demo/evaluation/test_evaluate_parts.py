"""The parts of the demo's measurements that are arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from precompute.demo.evaluation.evaluate_model import colour_hits, object_hits, redrawn_hits
from precompute.demo.evaluation.evaluate_sae import as_long, could_become, top_precision
from precompute.demo.evaluation.evaluate_store import weighed
from precompute.demo.scenes import Entity, Scene
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.demo import Demo
from tests.helpers.stores import walk

BOX = (0, 0, 64, 64)


def scene(*things: tuple[str, str | None]) -> Scene:
    return Scene("validation", 0, [Entity(noun, colour, BOX) for noun, colour in things], "pink", "")


def test_objects_count_once_in_singular_or_plural() -> None:
    shown = scene(("dog", None), ("dog", None), ("mouse", None), ("star", "red"))
    assert object_hits("Three mice and a catalogue", shown) == (1, 2)
    assert object_hits("two dogs beside a mouse", shown) == (2, 2)
    assert object_hits("a doghouse", shown) == (0, 2)
    assert redrawn_hits("a dog", scene(("dog", None), ("fox", None))) == (1, 1), "of a fox there is one drawing"


def test_a_colour_must_stand_before_its_own_shape() -> None:
    shown = scene(("star", "red"), ("circle", "blue"), ("dog", None))
    assert colour_hits("a red star and a blue circle", shown) == (2, 2)
    assert colour_hits("a blue star and a red circle", shown) == (0, 2)
    assert colour_hits("two blue circles", shown) == (1, 2)


def test_precision_takes_each_scene_once() -> None:
    rng = np.random.default_rng(3)
    value, scenes, here = rng.random(400), rng.integers(0, 30, 400), rng.random(400) < 0.4
    best = sorted({int(s): max(np.flatnonzero(scenes == s), key=lambda t: value[t]) for s in scenes}.values(),
                  key=lambda t: -value[t])[:16]  # fmt: skip
    precision, chosen = top_precision(value, scenes, here)
    assert chosen.tolist() == best and precision == pytest.approx(here[best].mean())
    assert top_precision(value[:40], np.zeros(40, np.int64), here[:40])[0] == 0.0, "too few scenes"


def test_random_sets_are_as_long(tmp_path: Path) -> None:
    sae = SaeV.load(tiny.make_sae(tmp_path / "sae"))
    unit = {3: 0.7, 9: 1.9, 11: 0.2}

    def length(of: dict[int, float]) -> float:
        parts = [size * sae.directions_fd[k] for k, size in of.items()]
        return float(torch.stack(parts).sum(0).norm())

    others = as_long(sae, unit, np.random.default_rng(0))
    assert len(others) == 3 and length(others) == pytest.approx(length(unit), rel=1e-5)


def test_no_answer_is_right_already() -> None:
    shown = scene(("star", "red"))
    assert [could_become(shown, word) for word in ("red", "star", "pink", "blue")] == [False, False, False, True]


def test_omega_and_its_controls_are_the_stores_own(demo: Demo) -> None:
    store = Store.open(demo.store)
    report = weighed(store)
    tested = [f for f in walk(store.features.list, limit=500) if f["p_value"] is not None]
    assert report["tested"] == len(tested) > 100
    assert report["cross_modal"] == sum(f["verdict"] == "cross-modal" for f in tested)
    assert sum(report["verdicts"].values()) == store.n_features
    assert report["quantiles"]["omega"]["median"] == pytest.approx(np.median([f["omega"] for f in tested]), abs=6e-4)
    assert all(sum(of) == len(tested) for of in report["counts"].values())
    assert report["quantiles"]["omega"]["median"] > report["quantiles"]["omega_baseline"]["median"]
    store.close()
