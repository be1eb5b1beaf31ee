"""The word of each side, against a plain count."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from precompute.store.reader import Store
from precompute.utils.text import ENGLISH_FUNCTION_WORDS, words_of
from tests.helpers import synthetic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    path: Path = synthetic.small_store(tmp_path_factory)
    return Store.open(path)


def naive_image_word(store: Store, feature: int, base: dict[str, float]) -> tuple[int, set[str]]:
    """How many captions have the best words, and those words."""
    examples = store.examples.of(feature, modality="image")
    count = Counter(word for one in examples for word in set(words_of(one["text"])))
    gain = {}
    for word, n in count.items():
        share = n / len(examples)
        if word not in ENGLISH_FUNCTION_WORDS and share >= 0.3 and share >= 2 * base[word]:
            gain[word] = (share - base[word]) / (1 - base[word])
    best = {word for word, value in gain.items() if value == max(gain.values())}
    return count[min(best)] if best else 0, best


def test_both_words_are_counted(store: Store) -> None:
    texts = [one["text"] for one in store.samples.items(range(store.n_samples)).values()]
    assert len(texts) <= 1000
    base = {word: n / len(texts) for word, n in Counter(w for text in texts for w in set(words_of(text))).items()}
    shared = 0
    for feature in range(store.n_features):
        words = store.top_words.of(feature)
        examples = store.examples.of(feature, modality="text")
        if (text := words["text"]) is not None:
            assert text["of"] == len(examples)
            assert sum(one["token"].strip().lower() in text["word"] for one in examples) >= text["n"] > 0
        n, best = naive_image_word(store, feature, base)
        image = words["image"]
        assert (image["n"] if image else 0) == n and (not best or (image and image["word"] in best))
        shared += bool(best)
    assert shared > 5
