"""The word of each side, against a plain count."""

import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from precompute.store.reader import Store
from precompute.utils.text import ENGLISH_FUNCTION_WORDS, words_of
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.small_store(tmp_path_factory)


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    return Store.open(path)


def naive_image_words(store: Store, feature: int, base: dict[str, float]) -> tuple[int, set[str]]:
    """In how many captions the most frequent of the words that stand out are, and those words."""
    captions = [set(words_of(one["text"])) for one in store.examples.of(feature, modality="image")]
    meaningful = {word for word, share in base.items() if share <= 0.5} - set(ENGLISH_FUNCTION_WORDS)
    count = Counter(word for words in captions for word in words & meaningful)
    outstanding = {word: n for word, n in count.items() if n / len(captions) >= max(0.3, 2 * base[word])}
    most = max(outstanding.values(), default=0)
    return most, {word for word, n in outstanding.items() if n == most}


def test_both_words_are_counted(store: Store) -> None:
    texts = [one["text"] for one in store.samples.items(range(store.n_samples)).values()]
    base = {word: n / len(texts) for word, n in Counter(w for text in texts for w in set(words_of(text))).items()}
    n_image = n_text = 0
    for feature in range(store.n_features):
        words = store.top_words.of(feature)
        examples = store.examples.of(feature, modality="text")
        if (text := words["text"]) is not None:
            of_word = sum(one["token"].strip().lower() in text["word"].lower() for one in examples)
            assert (text["of"], True) == (len(examples), of_word >= text["n"] >= 0.3 * len(examples))
            n_text += 1
        image = words["image"]
        if store.features.get(feature)["verdict"] == "text-only":
            assert image is None
            continue
        n, most = naive_image_words(store, feature, base)
        assert (image["n"] if image else 0) == n and (not most or (image and image["word"] in most))
        n_image += bool(most)
    assert min(n_image, n_text) > 5


def test_a_list_has_the_words_of_each(store: Store) -> None:
    ids = range(store.n_features - 1, -1, -1)
    assert store.top_words.of_all(ids) == {feature: store.top_words.of(feature) for feature in ids}
    assert store.top_words.of_all([]) == {}


def test_a_store_without_the_table_opens_without_the_words(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(path, old)
    with sqlite3.connect(old / "store.sqlite") as db:
        db.execute("DROP TABLE top_words")
    db.close()
    assert Store.open(old).top_words.of(0) == {"text": None, "image": None}
