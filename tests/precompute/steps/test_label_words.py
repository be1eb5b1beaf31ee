"""Words that features can be named with: also in languages that put no space between them."""

import random

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from precompute.steps import label
from precompute.steps.label_words import LONGEST_HAN, read_words, recurring_strings
from precompute.steps.names.choice import candidates, choose, log_odds
from precompute.steps.names.name_test import NameTest
from precompute.store.making.unfinished import Collected
from tests.helpers.unfinished import Part

CHINESE = [
    "一只猫坐在红色的垫子上",
    "两只狗和一个球在草地上",
    "红色的猫和蓝色的狗",
    "孩子们在海边玩沙子",
    "一杯咖啡放在木桌上",
]


def test_words_are_rejoined_from_pieces(part: Part) -> None:
    """Of each text token the word that it is a piece of."""
    data = Collected(part.path, part.manifest)
    words = read_words([str(record["text"]) for record in data.samples])
    row = next(row for row, one in enumerate(data.samples) if "umbrella" in one["text"].split())
    low, high = data.events.sample_token[row : row + 2]
    positions = np.flatnonzero(data.events.token_modality[low:high] == 0).tolist()
    result = label.words_at(data, words, row, positions)
    pieces = [data.vocabulary[t] for t in data.events.token_id[low:high][positions]]
    named = [[words.name[word] for word in one] for one in result]
    assert named[pieces.index(" umb")] == named[pieces.index("rella")] == ["umbrella"]
    assert all(one == [] for piece, one in zip(pieces, named, strict=True) if piece == ".")
    expected = [[piece.strip()] for piece in pieces if piece not in (" umb", "rella", ".")]
    assert [one for piece, one in zip(pieces, named, strict=True) if piece not in (" umb", "rella", ".")] == expected


def test_strings_that_recur_are_words_and_whole_captions_are_not() -> None:
    result = recurring_strings(CHINESE)
    assert {"猫", "狗", "红色的", "只", "草"} <= set(result)
    assert "红" not in result and "红色" not in result, "they occur only in 红色的"
    assert all(n <= LONGEST_HAN and n == len(one) for one, n in result.items())
    words = read_words(CHINESE * 12)
    assert not set(words.name) & set(CHINESE)
    assert words.in_caption.shape == (60, len(words.name))
    assert words.in_caption[:, words.id_of["猫"]].sum() == 24
    assert recurring_strings([]) == {} and recurring_strings(["a red dog"]) == {}


def test_the_word_that_tells_apart_wins() -> None:
    """Of strings of a sentence the one that its captions share and others lack."""
    rng = random.Random(0)
    slots = [
        (("一只{0}坐在{1}的{2}上", "{1}{0}"), ["猫", "狗", "大象", "乌龟"], ["红色", "蓝色"], ["垫子", "桌子"]),
        (("{0}สี{1}นั่งบน{2}", "มี{0}บน{2}"), ["แมว", "หมา", "ช้าง"], ["แดง", "ดำ"], ["พรม", "โต๊ะ"]),
        (("{0}が{1}{2}の上にいる", "{2}の横の{0}"), ["猫", "犬", "キリン"], ["赤い", "青い"], ["テーブル", "机"]),
    ]
    for forms, things, colours, places in slots:
        picks = [(rng.choice(things), rng.choice(colours), rng.choice(places)) for _ in range(600)]
        words = read_words([rng.choice(forms).format(*pick) for pick in picks])
        df = np.asarray(words.in_caption.sum(0)).ravel()
        for thing in things:
            rows = [i for i, pick in enumerate(picks) if pick[0] == thing]
            count = csr_matrix(words.in_caption[rows].sum(0))
            evidence = log_odds(count, np.array([len(rows)]), df, 600.0)
            on = csr_matrix(np.isin(np.arange(600), rows)[None])
            feature, word = candidates(evidence, lambda feature, word: np.ones(len(feature), bool))
            first, *second = choose(feature, word, NameTest(on, on, words.in_caption), words)[0]
            assert words.name[first] == thing
            assert not any(set(words.name[first]) & set(words.name[other]) for other in second)


def test_a_name_is_tested_by_its_longest_words() -> None:
    words = read_words(CHINESE * 2)
    assert [words.name[one] for one in words.named_in("红色的猫，dog")] == ["红色的", "猫"]
    mixed = read_words(["a dog 一只猫", "two dogs 一只狗"])
    assert [mixed.name[one] for one in mixed.named_in("Dogs 一只")] == ["dog", "一只"]
    assert mixed.n_units == mixed.token_count[: mixed.n_separate].sum() + 6


@pytest.mark.parametrize("text", ["a red dog", "two dogs and a cat"])
def test_without_such_scripts_words_are_counted_as_ever(text: str) -> None:
    words = read_words([text, "a dog"])
    assert words.n_separate == len(words.name) and words.longest == 0
    assert words.token_count.sum() == words.n_units == len(f"{text} a dog".split())
