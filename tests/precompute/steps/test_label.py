"""Names of features from their own evidence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from precompute.steps import label
from precompute.steps.label_words import read_words
from precompute.store.making.unfinished import Collected, Lens, load_json, load_step
from precompute.store.schema import VERDICTS
from precompute.utils.text import words_of
from tests.helpers.synthetic import CONCEPTS, word_feature
from tests.helpers.unfinished import Part


def test_every_planted_feature_gets_its_word(part: Part) -> None:
    """On text, on patches and on both: a patch feature for "dog" is called dog."""
    labels = load_json(part.path, "label")
    for word in CONCEPTS:
        for side in range(3):
            assert labels[word_feature(word) + side].split(", ")[0] == word


def test_live_features_have_a_name_and_dead_ones_none(part: Part) -> None:
    labels, verdict = load_json(part.path, "label"), load_step(part.path, "weigh")["verdict"]
    assert [x is None for x in labels] == (verdict == VERDICTS.index("dead")).tolist()


def test_detection_score_against_counting(part: Part) -> None:
    data, p999 = part.data, load_step(part.path, "weigh")["p999"]
    got, labels = load_step(part.path, "label")["score"], load_json(part.path, "label")
    tops, scores = data.examples["top_row"], []
    for word in ("dog", "red", "boat"):
        for side in range(3):
            k = word_feature(word) + side
            assert labels[k] == word
            strong, silent = [], []
            for row in range(data.n_samples):
                z = max(
                    [
                        0.0,
                        *(
                            v
                            for m in (0, 1)
                            for f, v in zip(*data.events.maxima(row, m), strict=True)
                            if f == k
                        ),
                    ]
                )
                if row in tops[k]:
                    continue
                has = word in words_of(data.samples[row]["text"])
                if z > label.STRONG * p999[k]:
                    strong.append(has)
                if z == 0:
                    silent.append(has)
            if not strong:
                assert np.isnan(got[k])
                continue
            assert got[k] == pytest.approx((np.mean(strong) + 1 - np.mean(silent)) / 2)
            scores.append(got[k])
    assert np.mean(scores) > 0.85


def test_a_promoted_word_counts_once_by_its_best_rank() -> None:
    words = read_words(["a dog", "red boat"])
    step = {"promoted": np.array([[2, 0, 1], [3, 9, 3]]), "promoted_logit": np.zeros((2, 3))}
    lens = Lens(step, [" Dog", "red", "dog", "boat"], 2)
    result = label.promoted_words(lens, words).toarray()
    expected = np.zeros_like(result)
    expected[0, words.id_of["dog"]], expected[0, words.id_of["red"]] = 2, 2 / 3
    expected[1, words.id_of["boat"]] = 2
    np.testing.assert_allclose(result, expected)


def test_plurals_count_with_their_singular() -> None:
    words = read_words(["two dogs", "a dog", "three boxes and a box", "a bus", "puppies, puppy"])
    assert {"dogs", "boxes", "puppies"} & set(words.name) == set()
    assert words.id_of["dogs"] == words.id_of["dog"]
    assert words.id_of["boxes"] == words.id_of["box"]
    assert words.id_of["puppies"] == words.id_of["puppy"]
    assert "bus" in words.name  # no "bu" is known


def test_common_words_are_no_evidence() -> None:
    """A word as frequent in the evidence as everywhere has log-odds near 0; a rarer one stands out."""
    count = csr_matrix(np.array([[10, 10]]))
    z = label.log_odds(count, np.array([10]), np.array([100, 10]), 100.0).toarray()[0]
    assert abs(z[0]) < 1 and z[1] > 3


def test_second_word_only_when_nearly_as_good() -> None:
    result = csr_matrix(np.array([[0, 5.0, 4.9], [5.0, 1.0, 0], [0, 0, 0]]))
    best, second = label.choose(result)
    assert best.tolist() == [1, 0, -1] and second.tolist() == [2, -1, -1]


def test_a_name_of_two_words_is_tested_by_either(part: Part) -> None:
    data = part.data
    words = read_words([str(record["text"]) for record in data.samples])
    p999 = load_step(part.path, "weigh")["p999"]
    k, ids = word_feature("red"), [words.id_of["red"], words.id_of["dog"]]
    names: list[label.Name | None] = [None] * data.n_features
    names[k] = label.Name("red, dog", ids)
    got = label.detection(data, words, names, p999)
    assert np.isnan(np.delete(got, k)).all()
    strong, silent = [], []
    for row in range(data.n_samples):
        remaining = [z for m in (0, 1) for f, z in zip(*data.events.maxima(row, m), strict=True) if f == k]
        if row in data.examples["top_row"][k]:
            continue
        has = bool({"dog", "red"} & set(words_of(data.samples[row]["text"])))
        if max(remaining, default=0) > label.STRONG * p999[k]:
            strong.append(has)
        if not remaining:
            silent.append(has)
    assert strong and got[k] == pytest.approx((np.mean(strong) + 1 - np.mean(silent)) / 2)


def test_names_where_no_word_stands_out(part: Part) -> None:
    """Token, promoted token, then the captions' commonest word; a test of each where captions have the word."""
    data, k = Collected(part.path, part.manifest), word_feature("dog")
    words = read_words([str(record["text"]) for record in data.samples])
    token = label.fallback(data, words, k, [])
    assert token == label.Name("token “dog”", [words.id_of["dog"]])
    rows = data.examples["top_row"].copy()
    rows[k, 0] = -1
    data.examples["top_row"] = rows
    assert label.fallback(data, words, k, ["…", " xyzzy"]) == label.Name("towards “xyzzy”", [])
    seen = label.fallback(data, words, k, ["…"])
    captions = [set(words_of(data.samples[r]["text"])) for r in np.unique(rows[k, 1]) if r >= 0]
    counted = {word: sum(word in caption for caption in captions) for word in words.id_of}
    assert seen.text == f"with “{words.name[seen.words[0]]}”"
    assert counted[words.name[seen.words[0]]] == max(counted.values()) > 1
    rows[k] = -1
    assert label.fallback(data, words, k, []) == label.Name("no word", [])
