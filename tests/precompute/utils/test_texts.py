"""What a word is, in every script; what repeats; what a query looks for."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precompute.utils.text import is_blank, query_words, repeated_share, repeated_words, search_units, units, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The red-dog, isn't_it?", ["the", "red", "dog", "isn", "t", "it"]),
        ("", []),
        ("?!", []),
        ("2 cats", ["2", "cats"]),
        ("Un CAFÉ, cafe\u0301", ["un", "café", "café"]),
        ("बिल्ली और कुत्ता", ["बिल्ली", "और", "कुत्ता"]),
        ("고양이가 앉아", ["고양이가", "앉아"]),
        ("القطة", ["القطة"]),
        ("红猫 and 3狗", ["红", "猫", "and", "3", "狗"]),
        ("ボール", ["ボ", "ー", "ル"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("ແມວ", ["ແ", "ມ", "ວ"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_units_stand_where_they_say(text: str) -> None:
    result = list(units(text))
    assert words_of(text) == [unit.text for unit in result]
    assert all(before.stop <= after.start for before, after in pairwise(result))
    assert all(unit.start < unit.stop <= len(text) for unit in result)


@given(st.text(st.sampled_from("abX 12-,'")))
def test_of_english_words_are_what_they_always_were(text: str) -> None:
    words = re.findall(r"[^\W_]+", text.lower())
    assert words_of(text) == words
    seen = list(pairwise(words))
    assert repeated_share(text) == (1 - len(set(seen)) / len(seen) if len(words) >= 4 else 0)


def test_what_repeats_without_spaces_repeats_as_with_them() -> None:
    assert repeated_share("红色的猫" * 7) > 0.8
    assert repeated_share("红色的猫" * 7) == repeated_share(" ".join(["红色的猫"] * 7))
    assert repeated_share("แมวสีแดง" * 6) > 0.7
    assert repeated_share("红色的猫和蓝色的狗在红色的房子前面") == 0
    assert repeated_share("红色的猫红色") == 0, "six characters are three words or so"
    assert repeated_share("红猫 red cat " * 4) > 0.5


def test_repeated_words_are_words() -> None:
    assert repeated_words("a red dog a red dog a cup", 3) == ["a", "red", "dog"]
    assert repeated_words("红色的猫" * 7, 4) == ["红色的猫"]
    assert repeated_words("一只猫，一只猫 and 一只狗 and", 2) == ["一只猫", "and"]
    assert repeated_words("red dog", 4) == repeated_words("", 4) == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("red dog", [["red"], ["dog"]]),
        ("C++", [["c + +"]]),
        ("“C++”, c#.", [["c + +"], ["c #"]]),
        (".NET", [[". net"]]),
        ("#4167 50%", [["# 4167"], ["50 %"]]),
        ("🙂", [["🙂"]]),
        ("👩\u200d💻", [["👩 💻"]]),
        ("❤\ufe0f", [["❤"]]),
        ('"red dog"*', [["red"], ["dog"]]),
        ("t-shirt", [["t - shirt", "t shirt"]]),
        ("don’t", [["don ' t", "don t"]]),
        ("dog - cat & ... /", [["dog"], ["cat"]]),
        ("-5, C--", [["- 5"], ["c - -"]]),
        ("?", [["?"]]),
        ('"', [['"']]),
        ("垫子。", [["垫 子"]]),
        ("Ｃ＋＋", [["c + +"]]),
        ("CAFE\u0301", [["cafe"]]),
        ("Straße", [["strasse"]]),
        ("السَّجادة", [["السجادة"]]),
        ("dog\0cat", [["dog"], ["cat"]]),
        ("\0", []),
        ("\ud800\u200b", []),
        ("", []),
    ],
)
def test_a_query_looks_for_what_it_says(query: str, words: list[list[str]]) -> None:
    assert [[" ".join(one) for one in word] for word in query_words(query)] == words


@given(st.text(st.characters()))
def test_search_units_have_no_blank_and_no_control_character(text: str) -> None:
    result = search_units(text)
    assert all(unit and unit.split() == [unit] and unit.isascii() <= unit.isprintable() for unit in result)
    assert search_units(" ".join(result)) == result
    "".join(result).encode()


def test_what_cannot_be_seen_is_blank() -> None:
    assert all(map(is_blank, ("", " \n\t", "\u200b", "\u00a0", "\u0301", "\0", "\u3164", "\ufeff")))
    assert not any(map(is_blank, ("a", ".", "猫", "🙂", "🫨", "\ue000", "e\u0301")))
