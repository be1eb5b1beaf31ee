"""What a word is, and what can be told of a text without the model.

In most scripts a word is a run of letters, digits and their marks. Chinese, Japanese, Thai, Lao, Khmer and Burmese put
no space between words, and telling them apart takes a dictionary of each language. Without one, each of their
characters is a unit, and a string of units stands for a word: search looks for the string, labels choose among those
that recur.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import groupby, islice
from typing import NamedTuple

import regex

_BASE = r"[[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{lb=SA}]&&[\p{L}\p{N}]]"
_JOINERS = r"\u200c\u200d"  # inside Persian and Indic words
_WORD = rf"[[\p{{L}}\p{{N}}]--{_BASE}][[\p{{L}}\p{{N}}\p{{M}}{_JOINERS}]--{_BASE}]*"
_UNSPACED = regex.compile(_BASE, regex.V1)
_UNIT = regex.compile(rf"({_BASE}\p{{M}}*)|{_WORD}", regex.V1)
_UNIT_OR_SIGN = regex.compile(rf"{_BASE}\p{{M}}*|{_WORD}|[\p{{P}}\p{{S}}\p{{Co}}\p{{Cn}}]", regex.V1)
_ASCII_WORD = regex.compile(r"[a-z0-9]+")  # these two say the same of lower-case ASCII, several times as fast
_ASCII_WORD_OR_SIGN = regex.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")

# Not \p{Cn}: the newest emoji, which this Unicode may not know yet.
_BLANK = regex.compile(r"[\p{Cc}\p{Cf}\p{Z}\p{M}\p{Default_Ignorable_Code_Point}\u2800]*", regex.V1)

# What people leave out when they type: accents of Latin and Greek letters, Hebrew points, Arabic vowels.
_ACCENTS = regex.compile(
    r"(?<=[\p{Latin}\p{Greek}][\u0300-\u036f]*)[\u0300-\u036f]+|[\u0591-\u05c7\u0640\u064b-\u065f]"
)
_FULL_WIDTH = regex.compile(r"[\uff00-\uffef]+")
_BREAKS = regex.compile(r"[\p{Cc}\p{Cs}\p{Z}]+")
_QUOTES_AND_DASHES = str.maketrans("‘’ʼ‐‑‒–—", "'''-----")
_HIDDEN = regex.compile(r"[\p{Cf}\ufe00-\ufe0f]+")

# Punctuation around a word of a query. What begins or ends words such as .net, #1, @user, -5, 50%, w/ or C-- stays.
_BEFORE = regex.compile(r"^[\p{P}--[.#@%&/\\\-]]+", regex.V1)
_AFTER = regex.compile(r"[\p{P}--[#@%&/\\\-]]+$", regex.V1)
_PUNCTUATION = regex.compile(r"\p{P}*")


class Unit(NamedTuple):
    """A word, or one character of a script without spaces."""

    text: str
    """In lower case."""
    start: int
    stop: int
    """Its place in the text."""
    spaced: bool
    """Whether it is a word by itself."""


def units(text: str) -> Iterator[Unit]:
    """The words of a text, in order; where words are not separated, the characters."""
    for match in _UNIT.finditer(text):
        unit = unicodedata.normalize("NFC", match[0].lower())
        yield Unit(unit, match.start(), match.end(), match.lastindex is None)


def is_unspaced(text: str) -> bool:
    """Whether any of it is written without spaces between words."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def words_of(text: str) -> list[str]:
    """The texts of `units`."""
    return _ASCII_WORD.findall(text.lower()) if text.isascii() else [unit.text for unit in units(text)]


ENGLISH_FUNCTION_WORDS = frozenset(
    words_of(
        "a an the this that these those it its he him his she her hers they them their i me my we us our you your "
        "there here and or but nor so yet if as than then because while when where which who whom whose what is are "
        "was were be been being am has have had having do does did can could will would shall should may might must "
        "not no of in on at to from with without by for into onto upon over about off up out some any each every both "
        "all another other such same very too also just only s t "
        "image photo photograph picture see seen show shown"
    )
)
"""Closed classes: articles, pronouns, conjunctions, auxiliaries and the prepositions that do not name a place; and the
words in which captions speak of the image itself."""


def has_letters(text: str) -> bool:
    """Whether a letter or a digit is in it."""
    return any(map(str.isalnum, text))


def is_blank(text: str) -> bool:
    """Whether nothing is to be seen in it: spaces, line breaks, control and joining characters, marks of no letter."""
    return _BLANK.fullmatch(text) is not None


def repeated_share(text: str) -> float:
    """Share of the text's word pairs that occurred before in it; 0 for texts of fewer than four words.

    Of a script without spaces two characters count as a word, which is about their length in Chinese and Japanese."""
    words = words_of(text)
    halves = [1 if is_unspaced(word) else 2 for word in words] if is_unspaced(text) else [2] * len(words)
    if sum(halves) < 8:
        return 0.0
    pairs = list(_pairs(words, halves))
    return 1 - len(set(pairs)) / len(pairs)


def _pairs(words: list[str], halves: list[int]) -> Iterator[tuple[str, ...]]:
    """From each word on, as many as make two: (w, w') of words, four characters of a script without spaces."""
    stop, length = 0, 0
    for start in range(len(words)):
        while length < 4 and stop < len(words):
            length += halves[stop]
            stop += 1
        if length < 4:
            return
        yield tuple(words[start:stop])
        length -= halves[start]


def repeated_words(text: str, n: int) -> list[str]:
    """The n words that a text has most often, each more than once; of scripts without spaces strings of two to four
    characters."""
    counts: Counter[str] = Counter()
    width: dict[str, int] = {}
    for is_spaced, group in groupby(units(text), key=lambda unit: unit.spaced):
        run = [unit.text for unit in group]
        for size in (1,) if is_spaced else (4, 3, 2):
            for part in zip(*(islice(run, i, None) for i in range(size)), strict=False):
                word = "".join(part)
                counts[word] += 1
                width[word] = 2 if is_spaced else size
    result: list[str] = []
    characters: set[str] = set()
    for word in sorted(counts, key=lambda word: -counts[word] * width[word]):
        if counts[word] < 2 or len(result) == n:
            continue
        if is_unspaced(word):  # its parts and overlaps repeat as often
            if characters & set(word):
                continue
            characters |= set(word)
        result.append(word)
    return result


# ---- search


def search_units(text: str) -> list[str]:
    """What full text search knows of a text: its words and characters as in `units`, in one spelling, and every sign
    (+ # . 🙂)."""
    text = _fold(text)
    return (_ASCII_WORD_OR_SIGN if text.isascii() else _UNIT_OR_SIGN).findall(text)


def _fold(text: str) -> str:
    """In one case and one spelling; nothing in it that full text search cannot take."""
    if text.isascii():
        return _BREAKS.sub(" ", text).lower()
    text = _FULL_WIDTH.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = _HIDDEN.sub("", _BREAKS.sub(" ", text))
    text = unicodedata.normalize("NFD", text.casefold().translate(_QUOTES_AND_DASHES))
    return unicodedata.normalize("NFC", _ACCENTS.sub("", text))


def query_words(text: str) -> list[list[list[str]]]:
    """A person's words, each as the strings of search units of which a text must have one.

    Punctuation around a word is left out, and so are words of nothing else, unless there are no others: `C++,` is
    c + +, `"dog"` is dog, a lone `?` is itself. Punctuation inside a word may be missing in the text: `t-shirt` is
    t - shirt or t shirt."""
    words = _fold(text).split()
    bare_words = [_AFTER.sub("", _BEFORE.sub("", word)) for word in words]
    words = [word for word in bare_words if not _PUNCTUATION.fullmatch(word)] or words
    strings = [string for word in words if (string := search_units(word))]
    return [[string, *([joint] if (joint := _without_inner(string)) != string else [])] for string in strings]


def _without_inner(word: list[str]) -> list[str]:
    """Without the punctuation between letters."""
    at_letters = [i for i, unit in enumerate(word) if has_letters(unit)]
    inner_range = range(at_letters[0], at_letters[-1]) if at_letters else range(0)
    return [unit for i, unit in enumerate(word) if not (i in inner_range and unicodedata.category(unit[0])[0] == "P")]


def bare_name(name: str) -> str:
    """A feature's name without the word in brackets that tells it from others of the same name."""
    return name.partition(" (")[0]


def ascii_name(name: str) -> str:
    """A name as a part of a file's: headers of HTTP and old file systems take ASCII alone."""
    return regex.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "store"


def tested_name(label: str | None) -> str:
    """The part of a name by which it is tested: of `token “dog”` the quoted one."""
    name = bare_name(label or "")
    quotation = regex.search("“(.*)”", name)
    return str(quotation[1]) if quotation else name


def name_words(label: str | None) -> list[str]:
    """The words of `tested_name`."""
    return words_of(tested_name(label))
