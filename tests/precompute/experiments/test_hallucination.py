"""Questions about objects that are and are not there, and features that tell right answers from hallucinated ones."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from precompute.errors import SaevxError
from precompute.experiments.hallucination.questions import (
    ABSENT,
    Seen,
    demo_scenes,
    nouns_of,
    own_scenes,
    questions_about,
)
from precompute.experiments.hallucination.run import as_long, difference, figures, rate, separation
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.demo import Demo
from tests.helpers.every_command import report
from tests.helpers.in_process import saevx


def test_absent_objects_as_pope_chooses_them() -> None:
    blank = Image.new("RGB", (8, 8))
    sets = [{"dog", "cat"}, {"dog", "cat"}, {"dog"}, {"cup", "bed"}, {"cup", "bed"}, {"cup"}, {"dog"}, {"owl"}]
    scenes = [Seen(blank, frozenset(one)) for one in sets]
    questions = questions_about(scenes, 0)
    for i, objects in enumerate(sets):
        about = [one for one in questions if one.scene == i]
        own = {kind: [one.noun for one in about if one.kind == kind] for kind in ("present", *ABSENT)}
        assert own["present"] == sorted(objects)
        assert all(len(own[kind]) == 1 and own[kind][0] not in objects for kind in ABSENT)
    kinds = {(one.scene, one.kind): one.noun for one in questions}
    assert kinds[3, "popular"] == "dog" and kinds[0, "popular"] == "cup"
    assert kinds[2, "adversarial"] == "cat" and kinds[5, "adversarial"] == "bed"  # it stands beside them elsewhere
    assert next(one.text for one in questions if one.noun == "owl") == "Is there an owl in the picture?"
    assert questions_about(scenes, 0) == questions


def test_scenes_of_the_demo_are_the_same_each_time() -> None:
    first, again = demo_scenes(4), demo_scenes(4)
    assert [one.objects for one in first] == [one.objects for one in again] and all(one.objects for one in first)


def test_own_images(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [{"image": "a.png", "objects": ["dog", {"name": "cup", "box": [0, 0, 4, 4]}]}] * 4
    (tmp_path / "objects.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scenes = own_scenes(tmp_path / "objects.jsonl", 10)
    assert len(scenes) == 4 and scenes[0].objects == {"dog", "cup"}
    no_image = {"image": "missing.png", "objects": []}
    for row in ({}, {"image": "a.png"}, no_image, *({"image": "a.png", "objects": wrong} for wrong in (3, "dog", {}))):
        (tmp_path / "wrong.jsonl").write_text(json.dumps(row))
        with pytest.raises(SaevxError, match="line 1"):
            own_scenes(tmp_path / "wrong.jsonl", 10)
    (tmp_path / "few.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(SaevxError, match="at least 4"):
        own_scenes(tmp_path / "few.jsonl", 10)


def test_images_of_which_none_lacks_an_object_are_refused(demo: Demo, tmp_path: Path) -> None:
    """Before the model is loaded, and before a word is written where it cannot be."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "objects.jsonl").write_text(4 * (json.dumps({"image": "a.png", "objects": ["dog"]}) + "\n"))
    args = ("experiment", "hallucination", "--store", demo.store, "--objects", tmp_path / "objects.jsonl")
    report(saevx(*args, "--out", tmp_path / "out.json"), "one object must be there and another not: give more images")
    report(saevx(*args, "--out", tmp_path), f"{tmp_path} is a folder, where a file is to be written")


def test_captions_name_whole_words() -> None:
    assert nouns_of("Two mice, a bus and a cupboard.", ["mouse", "bus", "cup", "dog"]) == {"mouse", "bus"}


def test_separation_is_a_difference_of_shares() -> None:
    active = np.array([[1, 0, 1], [1, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    right, hallucinated = np.array([1, 1, 0, 0], dtype=bool), np.array([0, 0, 1, 0], dtype=bool)
    assert separation(right, hallucinated, active).tolist() == [1.0, -1.0, -0.5]
    assert not separation(right, hallucinated & False, active).any()


def test_random_features_change_as_much(tmp_path: Path) -> None:
    sae = SaeV.load(tiny.make_sae(tmp_path / "sae", bias=-0.2))
    unit = {3: 2.0, 5: 0.5, 8: 1.0}
    other = as_long(sae, unit, np.random.default_rng(0))

    def length(one: dict[int, float]) -> float:
        return float(sum(size * sae.directions_fd[k].float() for k, size in one.items()).norm())  # type: ignore[union-attr]

    assert len(other) == 3 and other != unit and length(other) == pytest.approx(length(unit), rel=1e-5)


def test_figures_count_what_was_said() -> None:
    blank = Image.new("RGB", (8, 8))
    scenes = [Seen(blank, frozenset(one)) for one in ({"dog"}, {"cat"}, {"dog", "cat"}, {"cup"})]
    questions = questions_about(scenes, 0)
    margin = np.array([1.0 if one.kind == "present" or one.kind == "popular" else -1.0 for one in questions])
    result = figures(questions, margin, 0.0, scenes, ["a dog", "a dog", "a cat and a dog", "two cats"], 0)
    counts = Counter(one.kind for one in questions)
    n_absent = sum(counts[kind] for kind in ABSENT)
    assert result["missed"]["value"] == 0 and result["hallucinated_popular"]["value"] == 1
    assert result["hallucinated"]["value"] == pytest.approx(counts["popular"] / n_absent)
    assert result["accuracy"]["value"] == pytest.approx(1 - counts["popular"] / len(questions))
    assert result["chair"]["value"] == pytest.approx(2 / 5) and result["recall"]["value"] == pytest.approx(3 / 5)
    for figure in result.values():
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert rate(np.zeros(3), np.zeros(3), np.arange(3), 0) is None


def test_differences_are_of_the_same_questions() -> None:
    one, other, of = np.array([1, 0, 1, 1]), np.array([0.5, 0.5, 0, 1]), np.array([True, True, False, True])
    measured = difference(one, other, of, np.array([0, 0, 1, 2]), 0)
    assert measured is not None and measured["value"] == pytest.approx((0.5 - 0.5 + 0) / 3)
    assert measured["low"] <= measured["value"] <= measured["high"]
    assert difference(one, one, of, np.arange(4), 0) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_command_on_a_demo(demo: Demo, tmp_path: Path) -> None:
    out = tmp_path / "hallucination.json"
    options = ("--n-scenes", 4, "--n-random", 1, "--strengths", 0.5, "--n-features", 3)
    (tmp_path / "store").symlink_to(demo.store)  # the shared store gets no file next to it
    done = saevx("experiment", "hallucination", "--store", tmp_path / "store", "--out", out, *options, "--attach")
    assert done.status == 0, done.err
    result = json.loads(out.read_text())
    store = Store.open(tmp_path / "store")
    content, note = store.hallucination.read()
    assert note is None and content is not None and "separation" not in result
    assert {name: content[name] for name in result} == result
    assert store.hallucination.separation and all(-1 <= value <= 1 for value in store.hallucination.separation.values())
    store.close()
    assert set(result["against_random"]) == {"accuracy", "hallucinated"}
    ways = result["ways"]
    assert list(ways) == ["not steered", "towards right", "away from right", "random features 1"]
    assert len(result["features"]) == 3 and ways["not steered"]["auroc"]["value"] > 0.6
    assert sum(result["questions"].values()) >= 8 and str(demo.root) not in out.read_text()
