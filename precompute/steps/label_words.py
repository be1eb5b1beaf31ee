"""The words that names of features are chosen from: those of all captions, and where each occurs.

In scripts that separate words, these are the words. In others (utils/text.py) they are strings of one to a few
characters that recur in captions: which of them is a word shows in what it tells apart, so overlapping strings compete
for a feature.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
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


def read_words(texts: list[str]) -> Words:
    """The words of all captions."""
    unspaced = {number: None for number, text in enumerate(texts) if is_unspaced(text)}
    separate = [_separate(text) if number in unspaced else words_of(text) for number, text in enumerate(texts)]
    known = {word for words in separate for word in words}
    base = {word: _singular(word, known) for word in known}
    width = recurring(list(dict.fromkeys(texts[number] for number in unspaced)))
    longest = max(width.values(), default=0)
    name = sorted(set(base.values()))
    n_separate = len(name)
    name += sorted(width, key=lambda string: (-width[string], string))
    number_of = {word: i for i, word in enumerate(name)}
    id_of = {word: number_of[base[word]] for word in known} | {string: number_of[string] for string in width}
    ids = [[id_of[word] for word in words] for words in separate]
    n_units = sum(map(len, ids))
    for number in unspaced:
        for run in runs(texts[number]):
            ids[number] += [id_of[string] for string, _, _ in strings(run, longest) if string in width]
            n_units += len(run)
    row = np.repeat(np.arange(len(ids)), [len(one) for one in ids])
    column = np.array([word for one in ids for word in one], dtype=np.int64)
    matrix = csr_matrix((np.ones(len(row), np.int32), (row, column)), shape=(len(texts), len(name)))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    count_w = np.bincount(column, minlength=len(name)) * np.array([width.get(word, 1) for word in name], np.int64)
    return Words(id_of, name, n_separate, longest, matrix, count_w, n_units)


def _separate(text: str) -> list[str]:
    return [unit.text for unit in units(text) if unit.spaced]


def _singular(word: str, known: set[str]) -> str:
    for ending, stem in (("ies", "y"), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 2 and word[: -len(ending)] + stem in known:
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


def strings(run: Run, longest: int) -> Iterator[tuple[str, int, int]]:
    """Every string of up to `longest` characters of a run, with the place of its first and of its last."""
    texts = [unit.text for unit in run]
    for first in range(len(texts)):
        string = ""
        for last, text in enumerate(texts[first : first + longest], first):
            string += text
            yield string, first, last


def recurring(captions: Sequence[str]) -> dict[str, int]:
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
            inside = {tuple(run[i : i + length]) for run in caption_runs for i in range(len(run) - length + 1)}
            level.update(one for one in inside if length == 1 or (one[:-1] in shorter and one[1:] in shorter))
        shorter = {
            one: n for one, n in level.items() if n > 1 and (length <= LONGEST_HAN or not _HAN.search("".join(one)))
        }
        for one, n in shorter.items():
            for part in (one[:-1], one[1:]):
                if count.get(part) == n:
                    del count[part]
        count |= shorter if length > 1 else {one: n for one, n in level.items() if _HAN.match(one[0])}
        if not shorter:
            break
    return {"".join(one): len(one) for one in count}
