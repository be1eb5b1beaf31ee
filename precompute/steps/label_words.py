"""The words that names of features are chosen from: those of all captions, and where each occurs.

In scripts that separate words, these are the words. In others (utils/text.py) they are strings of one to a few
characters that recur in captions: which of them is a word shows in what it tells apart, so overlapping strings compete
for a feature.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import regex
from scipy.sparse import csr_matrix

from precompute.utils.text import Unit, is_unspaced, units, words_of
from precompute.utils.types import Array

Run = list[Unit]
"""Neighbouring characters of a script without spaces."""

LONGEST, LONGEST_HAN = 8, 4
"""Characters of a string at most: Thai and kana words are longer than Chinese ones."""
MAX_CAPTIONS = 20_000
"""Different captions in which strings are looked for that recur; more would find hardly any other."""
_HAN = regex.compile(r"\p{Han}+")


class Place(NamedTuple):
    """A word of `Words` in a text."""

    start: int
    stop: int
    word: int


class Words(NamedTuple):
    """The words of all captions; plurals are counted with their singular where both occur."""

    id_of: dict[str, int]
    name: list[str]
    """Separate words in alphabetical order, then strings, the longer first: of equal evidence the first word wins."""
    n_separate: int
    """How many are separate words."""
    longest: int
    """Characters of a string at most."""
    in_caption: csr_matrix
    """int32 [N, W] of ones."""
    token_count: Array
    """int64 [W]: units of all captions that are part of each word."""
    n_units: int
    """Units of all captions."""

    @property
    def caption_share(self) -> Array:
        """float64 [W]: share of the captions with each word."""
        return np.asarray(self.in_caption.sum(0)).ravel() / max(self.in_caption.shape[0], 1)

    def places(self, text: str) -> Iterator[Place]:
        """Every known word in the text; strings overlap."""
        for unit in units(text):
            if unit.spaced and unit.text in self.id_of:
                yield Place(unit.start, unit.stop, self.id_of[unit.text])
        for run in runs(text) if self.longest else ():
            for string, first, last in strings(run, self.longest):
                if string in self.id_of:
                    yield Place(run[first].start, run[last].stop, self.id_of[string])

    def named_in(self, text: str) -> list[int]:
        """The words of a name, each once: of strings that overlap the first and longest."""
        words: dict[int, None] = {}
        end = 0
        for place in sorted(self.places(text), key=lambda place: (place.start, -place.stop)):
            if place.start >= end:
                words[place.word], end = None, place.stop
        return list(words)

    def clash(self, a: int, b: int) -> bool:
        """Whether two words would say the same twice in a name: strings with a character in common."""
        return min(a, b) >= self.n_separate and not set(self.name[a]).isdisjoint(self.name[b])


def read_words(texts: Sequence[str]) -> Words:
    """The words of all captions, which are read more than once and never held."""
    number_of_word, row, column, unspaced_texts = separate_words(texts)
    base = {word: _singular(word, number_of_word) for word in number_of_word}
    width = recurring_strings(list(dict.fromkeys(texts[number] for number in unspaced_texts)))
    max_length = max(width.values(), default=0)
    name = sorted(set(base.values()))
    n_separate = len(name)
    name += sorted(width, key=lambda string: (-width[string], string))
    number_of = {word: i for i, word in enumerate(name)}
    id_of = {word: number_of[base[word]] for word in number_of_word} | {string: number_of[string] for string in width}
    base_of = np.array([number_of[base[word]] for word in number_of_word], np.int32)
    of_strings, row_of_strings, n_units = array("i"), array("i"), len(column)
    for number in unspaced_texts:
        n_before = len(of_strings)
        for run in runs(texts[number]):
            of_strings.extend(id_of[string] for string, _, _ in strings(run, max_length) if string in width)
            n_units += len(run)
        row_of_strings.extend([number] * (len(of_strings) - n_before))
    column_n = np.concatenate([base_of[np.array(column, np.int32)], np.array(of_strings, np.int32)])
    row_n = np.concatenate([np.array(row, np.int32), np.array(row_of_strings, np.int32)])
    matrix = csr_matrix((np.ones(len(row_n), np.int32), (row_n, column_n)), shape=(len(texts), len(name)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    count_w = np.bincount(column_n, minlength=len(name)) * np.array([width.get(word, 1) for word in name], np.int64)
    return Words(id_of, name, n_separate, max_length, matrix, count_w, n_units)


class SeparateWords(NamedTuple):
    """The words of texts that their scripts separate."""

    known: dict[str, int]
    """Each word, with a number."""
    row: array[int]
    """Of each occurrence of a word, its text."""
    column: array[int]
    """And the word's number."""
    unspaced: array[int]
    """The texts with scripts that do not separate words."""


def separate_words(texts: Iterable[str]) -> SeparateWords:
    """The words of all texts, whose strings are held once each."""
    result = SeparateWords({}, array("i"), array("i"), array("i"))
    number_of_word, row, column, unspaced_texts = result
    for number, text in enumerate(texts):
        if is_unspaced(text):
            unspaced_texts.append(number)
            words = [unit.text for unit in units(text) if unit.spaced]
        else:
            words = words_of(text)
        column.extend(number_of_word.setdefault(word, len(number_of_word)) for word in words)
        row.extend([number] * len(words))
    return result


def _singular(word: str, words: Container[str]) -> str:
    for ending, stem in (("ies", "y"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 2 and word[: -len(ending)] + stem in words:
            return word[: -len(ending)] + stem
    return word


def runs(text: str) -> Iterator[Run]:
    """The runs of characters that nothing separates."""
    run: Run = []
    for unit in units(text):
        if run and (unit.spaced or unit.start != run[-1].stop):
            yield run
            run = []
        if not unit.spaced:
            run.append(unit)
    if run:
        yield run


def strings(run: Run, max_length: int) -> Iterator[tuple[str, int, int]]:
    """Every string of up to `max_length` characters of a run, with the place of its first and of its last."""
    texts = [unit.text for unit in run]
    for first in range(len(texts)):
        string = ""
        for last, text in enumerate(texts[first : first + max_length], first):
            string += text
            yield string, first, last


def recurring_strings(captions: Sequence[str]) -> dict[str, int]:
    """The strings that at least two captions have, and single ideographs, with their number of characters.

    A string that occurs only as a part of a longer one is left out: the longer one is the word. Only Han characters
    mean something alone.

    Args:
        captions: each but once.
    """
    captions = captions[:: -(-len(captions) // MAX_CAPTIONS) or 1]
    runs_of = [[[unit.text for unit in run] for run in runs(caption)] for caption in captions]
    count: dict[tuple[str, ...], int] = {}
    shorter: dict[tuple[str, ...], int] = {}
    for length in range(1, LONGEST + 1):
        level: Counter[tuple[str, ...]] = Counter()
        for caption_runs in runs_of:
            pieces = {tuple(run[i : i + length]) for run in caption_runs for i in range(len(run) - length + 1)}
            level.update(s for s in pieces if length == 1 or (s[:-1] in shorter and s[1:] in shorter))
        shorter = {s: n for s, n in level.items() if n > 1 and (length <= LONGEST_HAN or not _HAN.search("".join(s)))}
        for string, n in shorter.items():
            for part in (string[:-1], string[1:]):
                if count.get(part) == n:
                    del count[part]
        count |= shorter if length > 1 else {string: n for string, n in level.items() if _HAN.match(string[0])}
        if not shorter:
            break
    return {"".join(string): len(string) for string in count}
