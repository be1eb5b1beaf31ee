"""The parts of the demo's measurements that are arithmetic."""

from pathlib import Path

import numpy as np
import pytest
import torch

from precompute.demo.evaluation.evaluate_model import colour_hits, object_hits, redrawn_hits
from precompute.demo.evaluation.evaluate_names import first_lines, name_words, true_trial
from precompute.demo.evaluation.evaluate_steering import lone_scenes
from precompute.demo.evaluation.evaluate_store import omega_figures
from precompute.demo.evaluation.steered_replies import Job, Worth, replies, worth
from precompute.demo.scenes import Entity, Scene
from precompute.demo.training.word_test import top_precision
from precompute.live.intervention import Intervention, Scope
from precompute.live.steer import Steering, steer
from precompute.model.batch import IMAGE, TEXT, Pair
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.demo import Demo
from tests.helpers.stores import walk
from tests.helpers.synthetic import word_feature

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
    best = sorted(
        {int(s): max(np.flatnonzero(scenes == s), key=lambda t: value[t]) for s in scenes}.values(),
        key=lambda t: -value[t],
    )[:16]
    precision, chosen = top_precision(value, scenes, here)
    assert chosen.tolist() == best and precision == pytest.approx(here[best].mean())
    assert top_precision(value[:40], np.zeros(40, np.int64), here[:40])[0] == 0.0, "too few scenes"


def test_a_reply_is_worth_the_harmonic_mean_of_its_parts() -> None:
    kind = ("red", "blue")
    assert worth("red", "red", kind).score == worth("a Red.", "red", kind).score == 1.0
    assert worth("blue", "red", kind) == Worth(0.0, 1.0, 1.0) and worth("blue", "red", kind).score == 0.0
    assert worth("star red", "red", kind).score == 0.0, "the question is not answered"
    assert worth("red star", "red", kind) == Worth(1.0, 0.5, 1.0)
    assert worth("red star", "red", kind).score == pytest.approx(3 / (1 + 2 + 1))
    assert worth("red red red red…", "red", kind) == Worth(1.0, 0.5, 0.0)
    assert worth("", "red", kind).score == 0.0


@pytest.mark.parametrize("scope", [(TEXT, IMAGE), (IMAGE,), (TEXT,)])
def test_replies_in_a_batch_are_those_of_the_engine(whole: Mllm, tmp_path: Path, scope: tuple[int, ...]) -> None:
    """Questions of several lengths, each steered by itself, against live steering one by one; 0 changes nothing."""
    sae = SaeV.load(tiny.make_sae(tmp_path / "sae"))
    names: list[Scope] = ["image"] * (IMAGE in scope) + ["prompt"] * (TEXT in scope)
    texts = ("the dog", "a red ball is on", "a cat", "two cups")
    pairs = [Pair(text, [tiny.picture(i)]) for i, text in enumerate(texts)]
    jobs, alone, plain = [], [], []
    for i, pair in enumerate(pairs):
        unit = {3 + i: 40.0, 20 + i: 25.0}
        jobs.append(Job(pair, torch.stack([size * sae.directions_fd[k] for k, size in unit.items()]).sum(0), scope))
        added = [Intervention(k, "add", 1.0, size) for k, size in unit.items()]
        done = steer(whole, sae, whole.prepare([pair], generate=True), Steering(added, scope=names, max_tokens=4))
        alone.append(done.text["steered"].strip())
        plain.append(done.text["default"].strip())
    assert alone != plain
    assert [reply.removesuffix("…") for reply in replies(whole, jobs)] == alone
    still = [job._replace(delta_d=torch.zeros_like(job.delta_d)) for job in jobs]
    assert [reply.removesuffix("…") for reply in replies(whole, still)] == plain


def test_no_scene_shows_its_target_already() -> None:
    for group, target in (("colours", "red"), ("shapes", "star"), ("objects", "dog")):
        scenes = lone_scenes(group, target, 5)
        assert len({s.index for s in scenes}) == 5
        for s in scenes:
            [thing] = s.entities
            assert target not in (thing.noun, thing.colour, s.background)
            assert (thing.colour is None) == (group == "objects")


def test_omega_and_its_controls_are_the_stores_own(demo: Demo) -> None:
    store = Store.open(demo.store)
    report = omega_figures(store)
    tested = [f for f in walk(store.features.list, limit=500) if f["p_value"] is not None]
    assert report["tested"] == len(tested) > 100
    assert 0 < report["cross_modal"] == report["verdicts"]["cross-modal"] < report["pair_tested"]
    paired = [f for f in walk(store.features.list, limit=500) if f["pair_p"] is not None]
    assert report["pair_tested"] == len(paired) and report["t_test_passed"] <= len(tested)
    assert sum(report["verdicts"].values()) == store.n_features
    assert report["quantiles"]["omega"]["median"] == pytest.approx(np.median([f["omega"] for f in tested]), abs=6e-4)
    assert all(sum(of) == len(tested) for of in report["counts"].values())
    assert report["quantiles"]["omega"]["median"] > report["quantiles"]["omega_baseline"]["median"]
    store.close()


def test_names_are_held_against_what_the_scenes_hold(made_up: Store) -> None:
    """Planted words are true of their own scenes, and of none once the scenes are others."""
    rows = walk(made_up.samples.list, limit=100)
    truth = [set(made_up.samples.get(one["sample_id"])["extra"]["drawn"]) for one in rows]
    words = {word: i for i, word in enumerate(sorted(set().union(*truth)))}
    trial = true_trial(made_up, np.arange(len(rows)), truth, words)
    wrong = true_trial(made_up, np.arange(len(rows)), truth[7:] + truth[:7], words)
    dog = np.array([word_feature("dog") + 2])
    assert trial.accuracy(dog, [[words["dog"]]])[0] > 0.95
    assert wrong.accuracy(dog, [[words["dog"]]])[0] < 0.7
    assert first_lines(made_up, truth)["true"] > 5
    assert first_lines(made_up, [set[str]()] * len(rows))["true"] == 0
    assert name_words("token “dog”") == ["dog"] and name_words("red, dog (boat)") == ["red", "dog"]
