"""Are names true of held-out pairs beside hard negatives: captions that differ in the name's word alone, and samples on
which the nearest feature of another family fires?"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from precompute.data.halves import halves
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from precompute.store.sql import fetch_plain
from precompute.utils.ragged import csr_rows
from precompute.utils.stats import auroc
from precompute.utils.text import name_words, words_of
from precompute.utils.types import Array

OTHERS = 4
"""Captions at most with which each is compared that differ from it in one word."""
STRONGEST = 16
"""Samples of the nearest feature, those on which it is strongest."""
SPACE = 0
"""Of `Features.neighbours`: nearest by decoder direction."""


class Wins(NamedTuple):
    """Of every feature that could be tested, the share of comparisons in which it is stronger on the sample whose
    caption has its name's word, ties counted half: float64 [f] each."""

    either: Array
    """By the largest activation on text or image."""
    image: Array
    """By the image alone."""


class Held(NamedTuple):
    """The held-out samples, n of them, and what a store knows of its features."""

    captions: list[list[str]]
    """Words of each."""
    either: csc_matrix
    """float64 [n, F]: largest activation on text or image."""
    image: csc_matrix
    """float64 [n, F], on the image."""
    names: list[list[str]]
    """Words of each feature's name."""
    nearest: Array
    """int64 [F]: the nearest feature of another family and name, −1 where there is none."""

    @classmethod
    def of_store(cls, store: Store) -> Self:
        rows = fetch_plain(store.engine, "SELECT sample_id, text FROM samples ORDER BY row")
        scoring = halves([row[0] for row in rows]).scoring
        text, image = (maxima(store, m)[scoring] for m in (TEXT, IMAGE))
        labels = fetch_plain(store.engine, "SELECT label FROM features ORDER BY id")
        names = [name_words(label) for (label,) in labels]
        nearest_f = nearest_others(store.features.neighbours["other"][:, SPACE], store.features.family, names)
        captions = [words_of(rows[row][1] or "") for row in scoring.tolist()]
        return cls(captions, text.maximum(image).tocsc(), image.tocsc(), names, nearest_f)


def maxima(store: Store, modality: int) -> csr_matrix:
    """float64 CSR [N, F]: the stored maxima of one modality, in stored units."""
    events, at = store.events, np.arange(store.n_samples) * 2 + modality
    return csr_rows(at, events.max_offset, events.max_feature, events.max_value, store.n_features)


def nearest_others(other_fn: Array, family_f: Array, names: Sequence[Sequence[str]]) -> Array:
    """int64 [F]: of each feature's neighbours the first that is of another family and has another first word; −1 where
    there is none. Args: int [F, n], nearest first, −1 beyond the end; int [F]."""
    nearest_f = np.full(len(family_f), -1, np.int64)
    for k, others_k in enumerate(other_fn.tolist()):
        for k2 in others_k:
            if k2 >= 0 and family_f[k2] != family_f[k] and names[k2][:1] != names[k][:1]:
                nearest_f[k] = k2
                break
    return nearest_f


def one_word_apart(captions: Sequence[Sequence[str]]) -> dict[str, list[tuple[int, int]]]:
    """word → (caption with it, caption that has another word in its place and is else the same), in order; each caption
    beside at most OTHERS."""
    groups: dict[tuple[int, tuple[str, ...]], list[tuple[int, str]]] = defaultdict(list)
    for i, words in enumerate(captions):
        for at, word in enumerate(words):
            groups[at, (*words[:at], *words[at + 1 :])].append((i, word))
    pairs: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for members in groups.values():
        for i, word in members:
            if not (neighbours := [j for j, word2 in members if word2 != word]):
                continue
            first = i % len(neighbours)  # not the same few for all
            pairs[word] += [(i, j) for j in (neighbours[first:] + neighbours[:first])[:OTHERS]]
    return dict(pairs)


def against_one_word(table: Held) -> Wins:
    """Beside captions that differ in the name's word alone."""
    pairs = one_word_apart(table.captions)

    def pairs_of(k: int) -> tuple[Array, Array] | None:
        name = set(table.names[k])
        of_name = [(i, j) for word in table.names[k] for i, j in pairs.get(word, [])]
        with_other_name = [(i, j) for i, j in of_name if not name & set(table.captions[j])]
        right, wrong = np.array(with_other_name, np.int64).reshape(-1, 2).T
        return (right, wrong) if len(right) else None

    def share(value_n: Array, right: Array, wrong: Array) -> float:
        return float(((value_n[right] > value_n[wrong]) + 0.5 * (value_n[right] == value_n[wrong])).mean())

    return wins(table, pairs_of, share)


def against_nearest(table: Held) -> Wins:
    """Beside the strongest samples of the nearest feature of another family whose captions lack the name's words."""
    of_word: dict[str, list[int]] = defaultdict(list)
    for i, words in enumerate(table.captions):
        for word in set(words):
            of_word[word].append(i)

    def pairs_of(k: int) -> tuple[Array, Array] | None:
        right = np.unique([i for word in table.names[k] for i in of_word.get(word, [])]).astype(np.int64)
        if not len(right) or table.nearest[k] < 0:
            return None
        column = table.either[:, [int(table.nearest[k])]]
        by_value = column.indices[np.argsort(-column.data, kind="stable")]
        wrong = by_value[~np.isin(by_value, right)][:STRONGEST]
        return (right, wrong) if len(wrong) else None

    def share(value_n: Array, right: Array, wrong: Array) -> float:
        figure = auroc(value_n[right], value_n[wrong], resamples=1)
        return figure["value"] if figure else 0.5

    return wins(table, pairs_of, share)


def wins(
    table: Held, compare: Callable[[int], tuple[Array, Array] | None], share: Callable[[Array, Array, Array], float]
) -> Wins:
    """Every named feature that can be tested.

    Args:
        compare: of a feature, samples whose captions have its name's word, and such that lack it, int64 each; None
            where there are none.
        share: of activations, float64 [n], and these samples.
    """
    result: list[tuple[float, float]] = []
    for k in range(len(table.names)):
        if (samples := compare(k)) is not None:
            columns = (table.either[:, [k]], table.image[:, [k]])
            any_side, image = (share(column.toarray().ravel(), *samples) for column in columns)
            result.append((any_side, image))
    either_f, image_f = np.array(result, np.float64).reshape(-1, 2).T
    return Wins(either_f, image_f)
