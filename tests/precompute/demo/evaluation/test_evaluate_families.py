"""Whether families are right, judged on tokens whose truth is written down here."""

import numpy as np
from scipy.sparse import csr_matrix

from precompute.demo.evaluation import report
from precompute.demo.evaluation.evaluate_families import (
    HeldOut,
    Truth,
    family_figures,
    judge,
    pairs_in,
    patch_names,
    stands_for,
)
from precompute.demo.scenes import make_scene
from precompute.demo.training.words import patches_of
from precompute.store.schema import IMAGE, TEXT

N_SCENES = 20
WORDS = ("dog", "cat", "on")


def held_out() -> HeldOut:
    """Each scene says and shows a dog or a cat, and says "on". Features: 0 and 1 fire on dogs on both sides, 2 on cats,
    3 on the word "on", 4 on every patch, 5 nowhere."""
    names: list[tuple[str, ...]] = []
    rows, kinds, scene_t = [], [], []
    for scene in range(N_SCENES):
        thing = WORDS[scene % 2]
        patches = ((IMAGE, (f"a {thing}",)), (IMAGE, ("[background] patch 3",)))
        for kind, name in (*patches, (TEXT, (thing,)), (TEXT, ("on",))):
            dog, on, patch = "dog" in name[0], name[0] == "on", kind == IMAGE
            rows.append([dog * 2.0, dog * 1.5, ("cat" in name[0]) * 2.0, on * 1.0, patch * (1 + ("[" in name[0])), 0])
            names.append(name)
            kinds.append(kind)
            scene_t.append(scene)
    return HeldOut(csr_matrix(np.array(rows, np.float32)), np.array(kinds, np.uint8), np.array(scene_t), names)


def test_what_features_stand_for() -> None:
    text, image = (stands_for(held_out(), m) for m in (TEXT, IMAGE))
    assert text == [{"dog": 1}, {"dog": 1}, {"cat": 1}, {"on": 1}, {}, {}]
    assert image == [{"a dog": 1}, {"a dog": 1}, {"a cat": 1}, {}, {"[background] patch 3": 1}, {}]


def test_the_more_settled_feature_names_the_thing() -> None:
    assert judge({"a dog": 0.9}, {"a dog": 0.45, "a cat": 0.55}) == ("a dog", True)
    assert judge({"a cat": 0.55, "a dog": 0.4}, {"a dog": 0.9}) == ("a dog", False)
    assert judge({"a cat": 0.4}, {"a cat": 0.45}) is None


def test_precision_and_recall() -> None:
    truth, alive = Truth(held_out()), np.arange(6) < 5
    assert truth.same_tokens.tolist() == [[0, 1]]
    right = family_figures(np.array([0, 0, 2, 3, 4, 5]), alive, truth, np.random.default_rng(0))
    assert right["precision"]["joined_things"] == {"judged": 1, "agree": 1}
    assert (right["families"], right["features"], right["same_pairs"], right["same_joined"]) == (1, 2, 1, 1)
    random = right["precision"]["random_things"]
    assert 0 < random["agree"] < random["judged"] / 2
    wrong = family_figures(np.array([0, 1, 0, 3, 3, 5]), alive, truth, np.random.default_rng(0))
    assert wrong["precision"]["joined_things"] == {"judged": 1, "agree": 0} and wrong["same_joined"] == 0
    directions = {"mean_pairwise_cosine": 0.1, "near_copies": 0.2, "own_tokens": 0.3, "informative_lens": 0.4}
    page = report.families_part({**right, "scenes": N_SCENES, "directions": directions})
    assert "| in one family, words and things in boxes | 1 | 1.000 |" in page and "1.000 are in one family" in page


def test_pairs_of_families() -> None:
    assert pairs_in(np.array([1, 0, 1, 3, 1])).tolist() == [[0, 2], [0, 4], [2, 4]]
    assert pairs_in(np.arange(3)).shape == (0, 2)


def test_patches_are_named_by_the_boxes() -> None:
    """As `patches_of` says, except where two boxes share a patch: the one that covers more of it names it."""
    for index in range(20):
        scene = make_scene("validation", index)
        names = patch_names(scene, 49)
        for entity in scene.entities:
            named = np.array([f"a {entity.noun}" in one for one in names])
            assert not (named & ~patches_of(scene, entity.noun)).any()
        outside = np.array([one[0].startswith("[background]") for one in names])
        assert not (outside & np.any([patches_of(scene, e.noun) for e in scene.entities], axis=0)).any()
