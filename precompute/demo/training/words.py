"""Thirty words, listed before any SAE-V was trained, and how well a feature stands for one of them.

A feature is good at a word when it fires on the word's tokens *and* on the patches that show the thing: the
smaller of its two F1 scores.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from precompute.demo.scenes import COLOURS, SIZE, Scene, Split, scenes_from

WORDS: dict[str, list[str]] = json.loads((Path(__file__).parent / "words.json").read_text())
ALL_WORDS = [*WORDS["objects"], *WORDS["colours"], *WORDS["shapes"]]
COVER = 0.4  # of a patch inside the box, from which on it shows the thing


def cover(box: tuple[int, int, int, int], grid: int = 7) -> NDArray[np.float64]:
    """(grid²,) share of each patch, row-major, that lies in a box of pixels."""
    edge = np.arange(grid + 1) * SIZE / grid
    x = np.clip(np.minimum(edge[1:], box[2]) - np.maximum(edge[:-1], box[0]), 0, None)
    y = np.clip(np.minimum(edge[1:], box[3]) - np.maximum(edge[:-1], box[1]), 0, None)
    return np.outer(y, x).ravel() / (SIZE / grid) ** 2


def patches_of(scene: Scene, word: str) -> NDArray[np.bool_]:
    """(49,) which patches show the word: ≥ 40 % in the box of such a thing; for a colour also, where it is
    the background's, the patches clear of everything."""
    is_visible = np.zeros(49, dtype=bool)
    for entity in scene.entities:
        if word in (entity.noun, entity.colour):
            is_visible |= cover(entity.box) >= COVER
    if word in COLOURS and scene.background == word:
        clear = sum((cover(e.box) for e in scene.entities), np.zeros(49)) == 0
        is_visible |= clear
    return is_visible


def scenes_with_words(split: Split, n_each: int, words: Iterable[str] = ALL_WORDS, start: int = 0) -> list[Scene]:
    """The first scenes of a split that bring every word into at least `n_each` captions."""
    n_lacking = dict.fromkeys(words, n_each)
    result = []
    for scene in scenes_from(split, start):
        if all(n <= 0 for n in n_lacking.values()):
            break
        words_in_caption = set(scene.caption.replace(",", " ").split()) & n_lacking.keys()
        if any(n_lacking[w] > 0 for w in words_in_caption):
            result.append(scene)
            for word in words_in_caption:
                n_lacking[word] -= 1
    return result


class F1(NamedTuple):
    """(W, F) F1 of "the feature is active" against "the word is here", on text tokens and on patches."""

    text_wf: NDArray[np.float64]
    """On text tokens."""
    image_wf: NDArray[np.float64]
    """On patches."""

    @property
    def both_wf(self) -> NDArray[np.float64]:
        """The smaller of the two."""
        return np.minimum(self.text_wf, self.image_wf)


def f1(hits_wf: NDArray[np.float64], fired_f: NDArray[np.float64], here_w: NDArray[np.float64]) -> NDArray[np.float64]:
    """F1 = 2 · hits / (fired + here); 0 where nothing fired and nothing is there."""
    return 2 * hits_wf / np.maximum(fired_f[None] + here_w[:, None], 1)
