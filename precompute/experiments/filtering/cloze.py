"""Held-out attribute accuracy: the true caption of an unseen scene is read word by word, and at each noun, colour,
number and place the likeliest word of its kind must be one that is true there."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from precompute.demo.dataset import SWAP_GROUPS
from precompute.demo.scenes import COLOURS, NUMBERS, OBJECTS, SHAPES, Scene


class Blank(NamedTuple):
    """A place in a tokenised caption where a word is asked for."""

    token: int
    """Index in the caption's tokens."""
    group: int
    right: frozenset[str]
    """Words that are true here; the group's others are not."""
    spaced: bool
    """Whether the word is written with a leading space."""


def right_words(scene: Scene, group: int, word: str, words_before: Sequence[str], next_text: str) -> frozenset[str]:
    """What may truly stand in the place of `word`, given the words before it: any thing of the scene that has not been
    named, of a shape that of the colour just said."""
    entities = [e for e in scene.entities if e.noun not in words_before]
    kind = SWAP_GROUPS[group]
    if kind == tuple(OBJECTS):
        return frozenset(e.noun for e in entities if e.colour is None)
    if kind == SHAPES:
        return frozenset(e.noun for e in entities if e.colour and words_before and e.colour == words_before[-1])
    if kind == tuple(COLOURS):
        if next_text == "background":
            return frozenset({scene.background})
        return frozenset(e.colour for e in entities if e.colour)
    if kind == tuple(NUMBERS.values()):
        return frozenset({NUMBERS[len(scene.entities)]})
    return frozenset({word})


class Words:
    """The words asked for, as tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: dict[tuple[int, bool], tuple[list[str], Tensor]] = {}
        for group, words in enumerate(SWAP_GROUPS):
            for has_space in (True, False):
                tokens = {w: tokenizer((" " if has_space else "") + w).input_ids for w in words}
                of_one = [w for w, ids in tokens.items() if len(ids) == 1]
                self.ids[group, has_space] = of_one, torch.tensor([tokens[w][0] for w in of_one], dtype=torch.long)

    def blanks(self, scene: Scene) -> list[Blank]:
        """All places of a scene's own caption where a word of one token is asked for."""
        ids = self.tokenizer(scene.caption).input_ids
        texts = [self.tokenizer.decode([i]) for i in ids]
        result = []
        for t, text in enumerate(texts):
            word, has_space = text.strip(), text.startswith(" ")
            words_before = "".join(texts[:t]).replace(",", " ").split()
            next_text = texts[t + 1].strip() if t + 1 < len(texts) else ""
            for group in range(len(SWAP_GROUPS)):
                if word in self.ids[group, has_space][0]:
                    right = right_words(scene, group, word, words_before, next_text)
                    result.append(Blank(t, group, right, has_space))
        return result

    def is_right(self, blank: Blank, logits_v: Tensor) -> bool:
        """Is the likeliest word of the group a true one?"""
        words, ids = self.ids[blank.group, blank.spaced]
        return words[int(logits_v[ids].argmax())] in blank.right
