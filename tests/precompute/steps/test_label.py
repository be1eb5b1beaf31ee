"""Names of features from their own evidence."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from precompute.data.halves import halves
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


def test_label_score_against_counting(part: Part) -> None:
    """On the samples that gave no evidence: above a quarter of p99.9 is on, up to a tenth is off."""
    data, p999 = part.data, load_step(part.path, "weigh")["p999"]
    got, labels = load_step(part.path, "label")["score"], load_json(part.path, "label")
    scoring = halves([str(record["sample_id"]) for record in data.samples]).scoring
    for word in ("dog", "red", "boat"):
        for k in range(word_feature(word), word_feature(word) + 3):
            assert labels[k] == word
            on, off = [], []
            for row in scoring.tolist():
                z = max(matrix[0, k] for matrix in data.maxima(row, row + 1))
                has = word in words_of(data.samples[row]["text"])
                if z > 0.25 * p999[k]:
                    on.append(has)
                elif z <= 0.1 * p999[k]:
                    off.append(has)
            assert got[k] == pytest.approx((np.mean(on) + 1 - np.mean(off)) / 2) and got[k] > 0.85


def test_a_promoted_word_counts_once_by_its_best_rank() -> None:
    words = read_words(["a dog", "red boat"])
    step = {"promoted": np.array([[2, 0, 1], [3, 9, 3]]), "informative": np.array([True, True])}
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


def test_names_where_no_word_stands_out(part: Part) -> None:
    """Token, promoted token, then the captions' commonest word; a test of each where captions have the word."""
    data, k = Collected(part.path, part.manifest), word_feature("dog")
    words = read_words([str(record["text"]) for record in data.samples])
    none = np.zeros(len(words.name), bool)
    token = label.fallback(data, words, k, [], none)
    assert token == label.Name("token “dog”", [words.id_of["dog"]])
    rows = data.examples["top_row"].copy()
    rows[k, 0] = -1
    data.examples["top_row"] = rows
    assert label.fallback(data, words, k, ["…", " xyzzy"], none) == label.Name("towards “xyzzy”", [])
    seen = label.fallback(data, words, k, ["…"], none)
    captions = [set(words_of(data.samples[r]["text"])) for r in np.unique(rows[k, 1]) if r >= 0]
    counted = {word: sum(word in caption for caption in captions) for word in words.id_of}
    assert seen.text == f"with “{words.name[seen.words[0]]}”"
    assert counted[words.name[seen.words[0]]] == max(counted.values()) > 1
    rows[k] = -1
    assert label.fallback(data, words, k, [], none) == label.Name("no word", [])
