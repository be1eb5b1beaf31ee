"""Scenes: a function of (split, index), truthful, and split so that training never sees what is tested."""

import json
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from precompute.demo import scenes as S
from precompute.demo.drawing import ASSETS, draw
from precompute.demo.training.words import ALL_WORDS, WORDS, patches_of, scenes_with_words

# Where people say something else than Unicode's own name of the drawing (unicode-emoji-json).
OTHER_NAMES = {
    "1f41d": "honeybee",
    "1f411": "ewe",
    "1f33c": "blossom",
    "1f33a": "hibiscus",
    "1f347": "grapes",
    "1f352": "cherries",
    "1f370": "shortcake",
    "2615": "hot beverage",
    "1f697": "automobile",
    "1f699": "sport utility vehicle",
    "1f69b": "articulated lorry",
    "26f5": "sailboat",
    "1f4bb": "laptop",
    "1f512": "locked",
    "1f455": "t-shirt",
    "1f4a1": "light bulb",
}
SPLITS: tuple[S.Split, ...] = ("train", "validation", "demo")


def nouns_of(scene: S.Scene) -> set[str]:
    return {e.noun for e in scene.entities if e.colour is None}


def message(scene: S.Scene) -> set[str]:
    return set(re.findall(r"[a-z]+", scene.caption))


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_is_a_function_of_split_and_index(split: S.Split) -> None:
    once, again = S.make_scene(split, 17), S.make_scene(split, 17)
    assert once == again
    assert draw(once).tobytes() == draw(again).tobytes()
    assert S.make_scene(split, 18) != once


def test_splits_share_no_scene() -> None:
    seen = [{repr((s.entities, s.background)) for s in (S.make_scene(p, i) for i in range(400))} for p in SPLITS]
    assert all(not a & b for a, b in combinations(seen, 2))


def test_objects_are_called_what_their_drawings_are() -> None:
    names = ASSETS.parents[2] / "unicode-emoji-json" / "data-by-emoji.json"
    said_by_unicode = {
        "-".join(f"{ord(c):x}" for c in emoji if c != "\ufe0f"): entry["name"]
        for emoji, entry in json.loads(names.read_text(encoding="utf-8")).items()
    }
    differing = {}
    for noun, codes in S.OBJECTS.items():
        for code in codes:
            name = said_by_unicode[code.removesuffix("-fe0f")]
            if noun not in name.split():
                differing[code] = name
    assert differing == OTHER_NAMES


def test_held_out_pairs_never_stand_together_in_training_but_do_elsewhere() -> None:
    def held(split: S.Split) -> int:
        return sum(
            any(S.pair_is_held_out(a, b) for a, b in combinations(nouns_of(S.make_scene(split, i)), 2))
            for i in range(1500)
        )

    assert held("train") == 0
    assert held("validation") > 30
    pairs = list(combinations(S.OBJECTS, 2))
    assert 0.10 < np.mean([S.pair_is_held_out(a, b) for a, b in pairs]) < 0.14
    assert all(S.pair_is_held_out(a, b) == S.pair_is_held_out(b, a) for a, b in pairs[:200])


@pytest.mark.parametrize("split", SPLITS)
def test_boxes_lie_in_the_picture_and_hardly_touch(split: S.Split) -> None:
    for i in range(300):
        boxes = [e.box for e in S.make_scene(split, i).entities]
        assert all(0 <= x0 < x1 <= S.SIZE and 0 <= y0 < y1 <= S.SIZE for x0, y0, x1, y1 in boxes)
        for a, b in combinations(boxes, 2):
            wide = min(a[2], b[2]) - max(a[0], b[0])
            high = min(a[3], b[3]) - max(a[1], b[1])
            assert wide <= 4 or high <= 4


def test_what_is_drawn_lies_in_its_box() -> None:
    """Outside the boxes a picture differs from its bare background nowhere."""
    for i in range(40):
        scene = S.make_scene("validation", i)
        bare = S.Scene(scene.split, i, [], scene.background, "", seed=scene.seed)
        changed = np.abs(np.asarray(draw(scene), int) - np.asarray(draw(bare), int)).sum(2) > 0
        for e in scene.entities:
            x0, y0, x1, y1 = e.box
            # A thing as pale as its background may hide, yet some of it always shows.
            assert changed[y0:y1, x0:x1].mean() > 0.05
            changed[y0:y1, x0:x1] = False
        assert not changed.any()


def test_captions_name_everything_and_nothing_else() -> None:
    for i in range(400):
        scene = S.make_scene("validation", i)
        words = message(scene)
        for e in scene.entities:
            assert {e.noun, S.plural(e.noun)} & words
            assert e.colour is None or e.colour in words
        shown = {e.noun for e in scene.entities}
        assert not (words & (set(S.OBJECTS) | set(S.SHAPES))) - shown
        assert words & set(S.COLOURS) <= {e.colour for e in scene.entities} | {scene.background}


def test_places_in_captions_are_true() -> None:
    checked = 0
    for i in range(600):
        scene = S.make_scene("validation", i)
        result = re.search(r"to the (left|right) of", scene.caption)
        if result:
            (ax, _), (bx, _) = (S.centre(e) for e in scene.entities)
            assert (ax < bx) == (result[1] == "left")
            checked += 1
    assert checked > 20


def test_second_drawings_differ_and_stay_out_of_training() -> None:
    with_second = [noun for noun, codes in S.OBJECTS.items() if len(codes) > 1]
    assert len(with_second) >= 10
    assert all(len(set(S.OBJECTS[noun])) == 2 for noun in with_second)
    scene = next(s for s in (S.make_scene("train", i) for i in range(500)) if nouns_of(s) & set(with_second))
    other = S.make_scene("train", scene.index, second=True)
    assert not scene.second and other.entities == scene.entities
    assert draw(scene).tobytes() != draw(other).tobytes()


def test_each_word_is_in_enough_demo_captions() -> None:
    """ω needs a feature in 16 samples of 1,000 (METHOD.md), so a word should be in 25 of the 1,500 pairs."""
    counts: Counter[str] = Counter()
    for i in range(1500):
        scene = S.make_scene("demo", i)
        counts.update({e.noun for e in scene.entities} | (message(scene) & set(S.COLOURS)))
    assert min(counts[w] for w in [*S.OBJECTS, *S.SHAPES, *S.COLOURS]) >= 25


def test_questions_have_true_answers() -> None:
    rng = np.random.default_rng(0)
    for i in range(300):
        scene = S.make_scene("validation", i)
        question, answer = S.ask(rng, scene)
        if "background" in question:
            assert answer == scene.background
        elif "color" in question:
            assert answer in {e.colour for e in scene.entities}
        else:
            assert answer in {e.noun for e in scene.entities}


def test_the_thirty_words() -> None:
    assert [len(WORDS[k]) for k in ("objects", "colours", "shapes")] == [20, 7, 3]
    assert set(WORDS["objects"]) <= set(S.OBJECTS)
    assert set(WORDS["colours"]) <= set(S.COLOURS)
    assert set(WORDS["shapes"]) <= set(S.SHAPES)


def test_patches_of_a_word() -> None:
    entities = [S.Entity("circle", "red", (0, 0, 64, 64)), S.Entity("dog", None, (128, 128, 192, 192))]
    scene = S.Scene("validation", 0, entities, "blue", "")
    red = patches_of(scene, "red").reshape(7, 7)
    assert red[:2, :2].all() and red.sum() == 4
    dog = patches_of(scene, "dog").reshape(7, 7)
    assert dog[4:6, 4:6].all() and dog.sum() == 4
    assert patches_of(scene, "blue").sum() == 49 - 8
    assert not patches_of(scene, "cat").any()


def test_scenes_with_words_brings_each_word_often_enough() -> None:
    chosen = scenes_with_words("validation", 3)
    for word in ALL_WORDS:
        assert sum(word in message(s) for s in chosen) >= 3
