"""A feature's evidence in words, from the store's own figures: the top word of each side, which lists show, and the
description that stands for a name that fails its test."""

from typing import NamedTuple, TypedDict

import numpy as np
from scipy.sparse import csr_matrix

from precompute.store.making.unfinished import Collected
from precompute.store.schema import IMAGE, TEXT
from precompute.utils.text import is_blank
from precompute.utils.token_text import MARKS
from precompute.utils.types import Array

MIN_SHARE, TIMES_BASE = 0.3, 2.0
"""Least share of the strongest tokens or images that have a top word, and how many times its share of all captions the
share of the images must be."""
MOSTLY = 0.7
"""Share of the strongest tokens that are the first of their captions, or the last, for the feature to be called so."""


class TopWord(TypedDict):
    """A word, and how many of the strongest tokens or images have it."""

    word: str
    n: int
    of: int


class TopWords(TypedDict):
    """The word of each side of a feature; None where none stands out."""

    text: TopWord | None
    image: TopWord | None


class Counts(NamedTuple):
    """What the strongest examples of each feature show."""

    token_fw: csr_matrix
    """int32 [F, W]: of its strongest text tokens, those that are part of each word."""
    image_fw: csr_matrix
    """int32 [F, W]: of its strongest images, those whose caption has each word."""
    n_fm: Array
    """int64 [F, 2]: its strongest samples per modality."""
    end_f: Array
    """float64 [F, 2]: share of its strongest text tokens that begin their caption, and that end it; NaN without."""
    share_w: Array
    """float64 [W]: share of the captions with each word."""


def caption_ends(data: Collected) -> Array:
    """float64 [F, 2]: share of a feature's strongest text tokens that begin their caption, and that end it; NaN where
    no text activates it."""
    row, position = (data.examples[f"top_{name}"][:, TEXT] for name in ("row", "position"))
    rows, where = np.unique(row[row >= 0], return_inverse=True)
    first, last = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    for i, sample in enumerate(rows.tolist()):
        text = np.flatnonzero(data.events.tokens(sample).modality_t == TEXT)
        first[i], last[i] = text[0], text[-1]
    n_f = (row >= 0).sum(1)
    share = np.zeros((2, *row.shape))
    for i, edge in enumerate((first, last)):
        share[i][row >= 0] = position[row >= 0] == edge[where.ravel()]
    with np.errstate(invalid="ignore"):
        result: Array = (share.sum(2) / n_f).T
    return result


def place_words(place: str, grid: tuple[int, int]) -> str:
    """A place in words: "top-left corner" for "patch 0,0"; "" without a place.

    Args:
        grid: rows and columns of the map of places.
    """
    if not place:
        return ""
    kind, _, number = place.partition(" ")
    at = [int(part) for part in number.split(",")]
    row, column = (at[0], at[1]) if kind == "patch" else (at[0], None) if kind == "row" else (None, at[0])
    vertical = "" if row is None else _end(row, grid[0], "top", "bottom")
    horizontal = "" if column is None else _end(column, grid[1], "left", "right")
    if kind == "patch":
        return f"{vertical}-{horizontal} corner" if vertical and horizontal else f"patch {row},{column}"
    return f"{vertical or horizontal} {kind}" if vertical or horizontal else place


def _end(at: int, n: int, low: str, high: str) -> str:
    return low if at == 0 else high if at == n - 1 else ""


def top_words(data: Collected, counts: Counts, names: list[str], barred_w: Array) -> list[TopWords]:
    """Of each feature the word of most of its strongest text tokens, or their commonest token, and of the words that
    stand out in the captions of its strongest images the one that most of these have.

    Args:
        names: of the words. barred_w: bool [W], words that tell nothing of an image.
    """
    image_words = most_frequent(outstanding(counts, barred_w))
    columns = (*counts.n_fm.T, *most_frequent(counts.token_fw), *image_words)
    result: list[TopWords] = []
    for k, (n_text, n_image, text_word, n_with, image_word, n_showing) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        of_sides: TopWords = {"text": None, "image": None}
        if n_text:
            is_common = n_with >= max(1, MIN_SHARE * n_text)
            of_word = TopWord(word=names[text_word], n=n_with, of=n_text) if is_common else None
            of_sides["text"] = of_word or commonest_token(data, k, n_text)
        if n_image and n_showing:
            of_sides["image"] = TopWord(word=names[image_word], n=n_showing, of=n_image)
        result.append(of_sides)
    return result


def describe(counts: Counts, words: list[TopWords], places: list[str]) -> list[str]:
    """The description of each feature; "" for those without examples.

    Args:
        words: of `top_words`. places: of each feature, as `place_words` gives it.
    """
    descriptions, noun = [], "caption" if counts.n_fm[:, IMAGE].any() else "text"
    for k, place in enumerate(places):
        sides = []
        if counts.n_fm[k, TEXT]:
            ends = [name for name, share in zip(("start", "end"), counts.end_f[k], strict=True) if share >= MOSTLY]
            where = f"on {_quote(word)}" if (word := words[k]["text"]) else "various tokens"
            sides.append(", ".join([where, *(f"{name} of {noun}" for name in ends[:1])]))
        if counts.n_fm[k, IMAGE]:
            caption = f"with {_quote(word)}" if (word := words[k]["image"]) else ""
            images = f"images {caption}" if caption else "various images"
            sides.append(", ".join(filter(None, (place, caption))) if place else images)
        both_vary = sides == ["various tokens", "various images"]
        descriptions.append("various tokens and images" if both_vary else "; ".join(sides))
    return descriptions


def _quote(word: TopWord) -> str:
    return f"“{word['word']}” {100 * word['n'] / word['of']:.0f} %"


def commonest_token(data: Collected, feature: int, n: int) -> TopWord | None:
    """The token most frequent among the feature's `n` strongest text tokens; None where it is blank or has less than
    `MIN_SHARE` of them."""
    row, position = (data.examples[f"top_{name}"][feature, TEXT] for name in ("row", "position"))
    at = row >= 0
    token, count = np.unique(data.events.token_id[data.events.sample_token[row[at]] + position[at]], return_counts=True)
    commonest = int(count.argmax())
    text = data.vocabulary[int(token[commonest])].strip()
    if count[commonest] < MIN_SHARE * n or is_blank(MARKS.sub("", text)):
        return None
    return {"word": text, "n": int(count[commonest]), "of": n}


def outstanding(counts: Counts, barred_w: Array) -> csr_matrix:
    """int [F, W]: of each feature's strongest images those whose caption has each word, where they are at least
    `MIN_SHARE` of them and `TIMES_BASE` times the word's share of all captions.

    Args:
        barred_w: bool [W], words that are left out.
    """
    of_images = counts.image_fw.tocoo()
    least = np.maximum(MIN_SHARE, TIMES_BASE * counts.share_w[of_images.col]) * counts.n_fm[of_images.row, IMAGE]
    is_outstanding = (of_images.data >= least) & ~barred_w[of_images.col]
    return csr_matrix(
        (of_images.data[is_outstanding], (of_images.row[is_outstanding], of_images.col[is_outstanding])),
        shape=of_images.shape,
    )


def most_frequent(count_fw: csr_matrix) -> tuple[Array, Array]:
    """Of each row the word counted most often, and how often, int64 [F]; of equal ones the first; 0 and 0 without."""
    counts = count_fw.tocoo()
    order = np.lexsort((counts.col, -counts.data, counts.row))
    feature, first = np.unique(counts.row[order], return_index=True)
    word_f, n_f = np.zeros((2, count_fw.shape[0]), np.int64)
    word_f[feature], n_f[feature] = counts.col[order][first], counts.data[order][first]
    return word_f, n_f
