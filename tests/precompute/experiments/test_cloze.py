"""Held-out attribute accuracy: what is asked for, and what counts as right."""

from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from precompute.demo.assemble import base_lm
from precompute.demo.dataset import SWAP_GROUPS
from precompute.demo.scenes import Entity, Scene, make_scene
from precompute.experiments.filtering.cloze import Blank, Words, right_words
from precompute.experiments.filtering.pairs import held_out, make_pairs

BOX = (0, 0, 80, 80)


@pytest.fixture(scope="module")
def words() -> Words:
    return Words(AutoTokenizer.from_pretrained(base_lm(), trust_remote_code=False))


def scene(caption: str, *entities: Entity, background: str = "blue") -> Scene:
    return Scene("validation", 0, list(entities), background, caption)


def query(words: Words, of: Scene) -> list[tuple[str, frozenset[str]]]:
    ids = words.tokenizer(of.caption).input_ids
    return [(words.tokenizer.decode([ids[b.token]]).strip(), b.right) for b in words.blanks(of)]


def test_any_thing_not_yet_named_is_right(words: Words) -> None:
    of = scene(
        "a dog, a red circle and a cat on a blue background",
        Entity("dog", None, BOX),
        Entity("circle", "red", BOX),
        Entity("cat", None, BOX),
    )
    assert query(words, of) == [
        ("dog", frozenset({"dog", "cat"})),
        ("red", frozenset({"red"})),
        ("circle", frozenset({"circle"})),
        ("cat", frozenset({"cat"})),
        ("blue", frozenset({"blue"})),
    ]


def test_numbers_with_and_without_a_space_and_places(words: Words) -> None:
    three = [Entity("star", "pink", BOX)] * 3
    assert query(words, scene("three pink stars", *three)) == [
        ("three", frozenset({"three"})),
        ("pink", frozenset({"pink"})),
    ]
    assert query(words, scene("there are three pink stars", *three))[0] == ("three", frozenset({"three"}))
    placed = scene("a dog in the top left", Entity("dog", None, BOX))
    assert [right for _, right in query(words, placed)][1:] == [frozenset({"top"}), frozenset({"left"})]


def test_every_own_caption_is_right_and_a_wrong_scene_is_not(words: Words) -> None:
    """On 200 real scenes each blank's own word is among the right ones, and another scene's things are not."""
    n = 0
    for of in held_out(200):
        for word, right in query(words, of):
            assert word in right, (of.caption, word, right)
            n += 1
    assert n > 400
    dog, cat = (scene(f"a {noun}", Entity(noun, None, BOX)) for noun in ("dog", "cat"))
    assert not right_words(dog, 0, "dog", ["a"], "") & right_words(cat, 0, "cat", ["a"], "")


def test_the_likeliest_word_of_the_group_decides(words: Words) -> None:
    names, ids = words.ids[0, True]
    logits_v = torch.full((len(words.tokenizer),), -9.0)
    logits_v[ids[names.index("cat")]] = 1.0
    logits_v[words.tokenizer(" the").input_ids[0]] = 5.0  # not asked
    assert words.is_right(Blank(0, 0, frozenset({"cat"}), True), logits_v)
    assert not words.is_right(Blank(0, 0, frozenset({"dog"}), True), logits_v)


@pytest.mark.parametrize("group", range(len(SWAP_GROUPS)))
def test_all_words_are_single_tokens(words: Words, group: int) -> None:
    assert set(words.ids[group, True][0]) == set(SWAP_GROUPS[group])


def test_swapped_pairs_carry_a_strangers_caption() -> None:
    pairs = make_pairs(40, 0.3)
    assert sum(pair.swapped for pair in pairs) == 12
    assert make_pairs(40, 0.3) == pairs
    for pair in pairs:
        nouns: set[Any] = {e.noun for e in pair.scene.entities}
        message = set(pair.caption.replace(",", " ").split())
        assert (pair.caption == pair.scene.caption) != pair.swapped
        if pair.swapped:
            assert not nouns & message
    assert not any(pair.swapped for pair in make_pairs(10, 0.0))
    assert make_scene("train", 50_000) == pairs[0].scene
