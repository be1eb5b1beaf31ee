"""Search on the demo's finished store: each of thirty words by itself, in "a WORD", and by the image of a lone thing.

Beside each stands a control that must fail: the answers to the other words.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from precompute.demo.drawing import draw
from precompute.demo.scenes import Scene, scenes_from
from precompute.demo.training.words import ALL_WORDS
from precompute.live.engine import read_query
from precompute.live.feature_search import maxima, rank
from precompute.live.regions import groups
from precompute.model.mllm import Mllm
from precompute.sae.sae import SaeV
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from precompute.utils.text import bare_name

N_FIRST, N_GROUPS = 10, 3


class Answer(NamedTuple):
    """Names of the features that answer a query."""

    first: list[str | None]
    """Of the first ten features."""
    grouped: list[str | None]
    """Of the best feature of each family in the first three groups."""


def scene_of_word(word: str) -> Scene:
    """The first validation scene with nothing in it but this thing, or a shape of this colour."""
    lone_scenes = (scene for scene in scenes_from("validation", 300_000) if len(scene.entities) == 1)
    return next(scene for scene in lone_scenes if word in (scene.entities[0].noun, scene.entities[0].colour))


def names(label: str | None, word: str) -> bool:
    """Is the word one of the label's? One in brackets only tells it from its like."""
    return word in re.findall(r"[a-z]+", bare_name(label or "").lower())


def answer(store: Store, mllm: Mllm, sae: SaeV, text: str, image: Image.Image | None) -> Answer:
    """As the app answers; features too dense are set apart."""
    query = read_query(mllm, sae, store.manifest, text, [image] if image else [])
    events = query.events(store.scale_log2)
    max_f = maxima(events, store.n_features)
    ranking = rank(max_f, store.features, (IMAGE,) if image else (TEXT,))
    first = [int(k) for k in ranking.feature[~ranking.dense][:N_FIRST]]
    refs = store.features.refs(first)
    top_groups = groups(store, events, query.view_lists(), ranking)[:N_GROUPS] if image else []
    group_labels = [family["features"][0]["label"] for group in top_groups for family in group["families"]]
    return Answer([refs[k]["label"] for k in first], group_labels)


def compare(labels: dict[str, list[str | None]]) -> dict[str, Any]:
    """For how many words the names of their answer hold the word; beside it the answers to the other words, shifted
    each way: mean and most."""
    words = list(labels)

    def n_named(shift: int) -> int:
        answers: list[Sequence[str | None]] = [labels[words[(w + shift) % len(words)]] for w in range(len(words))]
        return sum(any(names(label, word) for label in answer) for word, answer in zip(words, answers, strict=True))

    n_by_shift = [n_named(shift) for shift in range(1, len(words))]
    return {
        "found": n_named(0),
        "of": len(words),
        "shuffled": {"mean_found": round(float(np.mean(n_by_shift)), 2), "most": max(n_by_shift)},
        "missed": [word for word in words if not any(names(label, word) for label in labels[word])],
    }


def measure_search(store: Store, mllm: Mllm, sae: SaeV) -> dict[str, Any]:
    """Is a feature named with the word among the first ten, or in the first three groups?"""
    by_image = {word: answer(store, mllm, sae, "", draw(scene_of_word(word))) for word in ALL_WORDS}
    queries = {
        "the word alone": {word: answer(store, mllm, sae, word, None).first for word in ALL_WORDS},
        '"a WORD"': {word: answer(store, mllm, sae, f"a {word}", None).first for word in ALL_WORDS},
        "an image of a lone thing, first ten features": {word: by_image[word].first for word in ALL_WORDS},
        "an image of a lone thing, first three groups": {word: by_image[word].grouped for word in ALL_WORDS},
    }
    return {
        "search": {name: compare(labels) for name, labels in queries.items()},
        "search_labels": {word: by_image[word]._asdict() for word in ALL_WORDS},
    }
