"""Which words become a feature's name, what tests it, and what is said where it fails."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.stats import fisher_exact

from precompute.data.halves import halves
from precompute.steps import label
from precompute.steps.label_words import read_words
from precompute.steps.names.choice import SECOND_GAIN, Name, candidates, choose, distinguish, is_function_word
from precompute.steps.names.description import MIN_SHARE, TIMES_BASE, Counts, caption_ends, place_words, top_words
from precompute.steps.names.name_test import ALPHA, MIN_SAMPLES, NameTest, Responses
from precompute.store.making.unfinished import load_json, load_step
from precompute.store.schema import VERDICTS
from tests.helpers.synthetic import word_feature
from tests.helpers.unfinished import Part


def make(on: np.ndarray, counted: np.ndarray, captions: np.ndarray) -> NameTest:
    return NameTest(csr_matrix(on), csr_matrix(counted), csr_matrix(captions.astype(np.int32)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.sets(st.integers(0, 4), max_size=3).map(sorted), min_size=3, max_size=3))
def test_accuracy_is_what_counting_gives(seed: int, words: list[list[int]]) -> None:
    rng = np.random.default_rng(seed)
    z, captions = rng.random((3, 20)), rng.random((20, 5)) < 0.4
    trial = make(z > 0.6, z > 0.4, captions)
    for k, own in enumerate(words):
        says = np.array([any(captions[i, w] for w in own) for i in range(20)])
        on, off = says[z[k] > 0.6], says[z[k] <= 0.4]
        got = trial.accuracy(np.array([k]), [own])[0]
        if not own or min(len(on), len(off)) < MIN_SAMPLES:
            assert np.isnan(got)
        else:
            assert got == pytest.approx((on.mean() + 1 - off.mean()) / 2)
    np.testing.assert_array_equal(
        trial.accuracy(np.arange(3), words), [trial.accuracy(np.array([k]), [words[k]])[0] for k in range(3)]
    )


def test_halves_share_no_sample_and_do_not_depend_on_the_order() -> None:
    ids = [f"sample-{i}" for i in range(500)]
    first, second = halves(ids)
    assert not set(first) & set(second) and len(first) + len(second) == 500 and 200 < len(second) < 300
    back = halves(ids[::-1])
    assert {ids[i] for i in second} == {ids[::-1][i] for i in back.scoring}


def test_samples_that_score_names_give_no_evidence(part: Part) -> None:
    """The evidence does not change when the examples of the scoring half are something else."""
    data = part.data
    words = read_words([str(record["text"]) for record in data.samples])
    counts_n = np.ones(data.n_samples, bool)
    counts_n[halves([str(record["sample_id"]) for record in data.samples]).scoring] = False
    tops = label.top_samples(data, 1, counts_n)
    assert tops.nnz and not tops[:, ~counts_n].nnz
    assert label.tokens_of_words(data, words, counts_n)[1].sum() < label.tokens_of_words(data, words)[1].sum()


def test_the_word_that_tells_samples_apart_wins_over_the_one_with_more_evidence() -> None:
    on = np.zeros((1, 12), bool)
    on[0, :6] = True
    captions = np.zeros((12, 3), bool)
    captions[:, 0] = True  # everywhere: tells nothing
    captions[:6, 1] = captions[:3, 2] = True
    trial = make(on, on, captions)
    feature, word = candidates(csr_matrix([[9.0, 5.0, 7.0]]), lambda f, w: np.ones(len(f), bool))
    assert word.tolist() == [0, 2, 1]
    assert choose(feature, word, trial) == {0: [1]}
    # Where one of two words is plainly better than the first alone, both are the name.
    captions[:6, 1], captions[:6, 2] = [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]
    more_on, more_captions = np.repeat(on, 4, axis=1), np.repeat(captions, 4, axis=0)
    assert choose(feature, word, make(more_on, more_on, more_captions)) == {0: [1, 2]}
    # Without a test the evidence decides.
    assert choose(feature, word, make(on & False, on, captions)) == {0: [0]}


def test_candidates_are_those_allowed_with_the_most_evidence() -> None:
    evidence = csr_matrix([[3.0, 1.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 5.0]])
    feature, word = candidates(evidence, lambda f, w: ~((f == 2) & (w == 3)))
    assert list(zip(feature.tolist(), word.tolist(), strict=True)) == [(0, 0), (0, 2), (0, 1), (2, 1)]


def test_function_words_never_name_a_feature_that_fires_on_images(part: Part) -> None:
    """One on images alone whose evidence is a function word gets another name, one on text alone may have it."""
    data = part.data
    words = read_words([str(record["text"]) for record in data.samples])
    barred = {words.name[w] for w in np.flatnonzero(is_function_word(words))}
    assert {"a", "the", "of"} <= barred and "dog" not in barred
    verdict = load_step(part.path, "weigh")["verdict"]
    for k, name in enumerate(load_json(part.path, "label")):
        if name is not None and VERDICTS[verdict[k]] not in ("text-only", "mostly-text"):
            own = name.partition("“")[2] or name  # with “dog”
            assert not barred & set(own.replace("”", " ").replace(",", " ").split()), name
    the = words.id_of["the"]
    row = next(i for i, record in enumerate(data.samples) if "the" in record["text"].split())
    position = next(t for t in range(500) if data.token(row, t).strip() == "the")
    k = word_feature("dog") + 1
    examples = {name: values.copy() for name, values in data.examples.items()}
    for name, value in (("row", row), ("position", position)):
        examples[f"top_{name}"][k, 0, 0] = value
    other = type(data)(part.path, part.manifest)
    other.examples = examples
    none = np.zeros(len(words.name), bool)
    assert label.fallback(other, words, k, [], none) == Name("token “the”", [the])
    assert "the" not in label.fallback(other, words, k, [" of", " xyzzy"], is_function_word(words)).text


def test_names_alike_get_a_second_word_where_one_separates_them() -> None:
    words = read_words(["red circle"] * 30 + ["red square"] * 30)
    captions, on = words.in_caption.toarray(), np.zeros((3, 60), bool)
    on[0, :30] = on[1, 30:] = on[2, ::2] = True
    name = Name("red", [words.id_of["red"]])
    trial, barred = make(on, on, captions), np.zeros(3, bool)
    texts = [one and one.text for one in distinguish([name, name, name], trial, words, barred)]
    assert texts == ["red (circle)", "red (square)", "red"]
    assert distinguish([name, None], trial, words, barred) == [name, None]
    assert distinguish([name, name], trial, words, barred | True) == [name, name]


def test_descriptions_say_where_and_with_which_words(part: Part) -> None:
    texts = load_json(part.path, "description")
    k = word_feature("dog")
    assert texts[k] == "on “dog” 100 %; images with “dog” 100 %"
    assert texts[k + 1] == "on “dog” 100 %" and texts[k + 2] == "images with “dog” 100 %"
    verdict = load_step(part.path, "weigh")["verdict"]
    assert [text is None for text in texts] == (verdict == VERDICTS.index("dead")).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_word_of_images_is_the_most_frequent_that_stands_out(part: Part, seed: int) -> None:
    """Also where a more frequent word is in most captions anyway, such as "background"."""
    rng = np.random.default_rng(seed)
    names, share_w, barred_w = [f"w{i}" for i in range(6)], rng.random(6), rng.random(6) < 0.2
    n_f = rng.integers(0, 21, 8)
    image_fw = rng.integers(0, n_f[:, None] + 1, (8, 6))
    none_fw, n_fm = csr_matrix((8, 6), dtype=int), np.stack([0 * n_f, n_f], axis=1)
    counts = Counts(none_fw, csr_matrix(image_fw), n_fm, np.full((8, 2), np.nan), share_w)
    for k, words in enumerate(top_words(part.data, counts, names, barred_w)):
        is_due = [
            n > 0 and not barred and n / n_f[k] >= MIN_SHARE and n / n_f[k] >= TIMES_BASE * share
            for n, barred, share in zip(image_fw[k], barred_w, share_w, strict=True)
        ]
        n = max((int(image_fw[k, w]) for w in range(6) if is_due[w]), default=0)
        first = next((w for w in range(6) if is_due[w] and image_fw[k, w] == n), None)
        assert words["image"] == (None if first is None else {"word": names[first], "n": n, "of": n_f[k]})


def test_ends_of_captions_against_the_token_lists(part: Part) -> None:
    data, got = part.data, caption_ends(part.data)
    for k in (word_feature("dog"), word_feature("red") + 1, word_feature("cat") + 2):
        begins = []
        for row, position in zip(*(data.examples[f"top_{n}"][k, 0] for n in ("row", "position")), strict=True):
            if row >= 0:
                text = [t for t, m in enumerate(data.events.tokens(int(row)).modality_t) if m == 0]
                begins.append((position == text[0], position == text[-1]))
        np.testing.assert_allclose(got[k], np.mean(begins, axis=0) if begins else [np.nan] * 2)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("patch 0,0", "top-left corner"),
        ("patch 6,0", "bottom-left corner"),
        ("patch 2,3", "patch 2,3"),
        ("row 6", "bottom row"),
        ("column 0", "left column"),
        ("row 3", "row 3"),
        ("", ""),
    ],
)
def test_places_in_words(place: str, words: str) -> None:
    assert place_words(place, (7, 7)) == words


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_feature_responds_to_a_word_as_fishers_test_says(seed: int, first: float, second: float) -> None:
    """Each word alone, against the samples with neither; those that neither have nor lack the feature do not count."""
    rng = np.random.default_rng(seed)
    captions = rng.random((80, 2)) < 0.4
    z = np.where(captions[:, 0] & (rng.random(80) < first), 1, rng.random(80) * 0.7)
    z = np.where(captions[:, 1] & (rng.random(80) < second), 1, z)
    on, counted = z > 0.6, z > 0.4
    neither = ~captions.any(1)
    significant = []
    for has in (captions[:, 0] & ~captions[:, 1], captions[:, 1] & ~captions[:, 0]):
        table = [[int((group & on).sum()), int((group & ~counted).sum())] for group in (has, neither)]
        significant.append(sum(table[0]) > 0 and fisher_exact(table, alternative="greater").pvalue < ALPHA)
    responses = Responses(make(on[None], counted[None], captions))
    assert responses.to_both(0, 0, 1) == responses.to_both(0, 1, 0) == all(significant)


def test_a_word_that_the_feature_does_not_respond_to_joins_no_name() -> None:
    """Two samples with it say nothing, though "one of the two" is better."""
    captions, on = np.zeros((60, 3), bool), np.zeros((1, 60), bool)
    captions[:7, 1] = on[0, :7] = True
    captions[7:9, 2] = on[0, 7] = True
    trial, feature, word = make(on, on, captions), np.zeros(3, np.int64), np.arange(3)
    assert np.diff(trial.accuracy(np.zeros(2, np.int64), [[1], [1, 2]]))[0] >= SECOND_GAIN
    assert choose(feature, word, trial) == {0: [1]}
    captions[7:14, 2] = on[0, 7:14] = True
    assert choose(feature, word, make(on, on, captions)) == {0: [1, 2]}
