"""`store.top_words`: the word on which a feature is strongest, and the word that its strongest images share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from precompute.store import schema as s
from precompute.store.core import Core, Vocabulary
from precompute.store.sql import fetch_plain, in_chunks, marks
from precompute.utils.text import ENGLISH_FUNCTION_WORDS, is_unspaced, units, words_of
from precompute.utils.token_text import MARKS
from precompute.utils.types import Array

Item = dict[str, Any]

AROUND = 8
"""Text tokens on either side in which the rest of a token's word is looked for."""
N_CAPTIONS = 1000
"""Captions, evenly spaced over the data, from which the base rate of a word is taken."""
MIN_SHARE, TIMES_BASE = 0.3, 2.0
"""Least share of the strongest tokens or images that have a word, and how many times its base rate that must be."""


class TopWords:
    """Both sides of a feature in a word each."""

    def __init__(self, core: Core, vocabulary: Vocabulary) -> None:
        self._core = core
        self._vocabulary = vocabulary

    def of(self, feature: int) -> dict[str, Item | None]:
        """"text": the word of which most of the feature's strongest text tokens are part. "image": the word most
        frequent in the captions of its strongest images beyond its base rate, function words left out. Each with `n`,
        how many of the `of` strongest samples have it; None where it has no such samples, or no word stands out.

        Raises:
            SaevxError: no such feature.
        """
        self._core.check_feature(feature)
        query = "SELECT modality, row, position FROM examples WHERE feature = ? AND band = -1 ORDER BY modality, rank"
        strongest = fetch_plain(self._core.engine, query, (int(feature),))
        tokens = [(row, position) for modality, row, position in strongest if modality == s.TEXT]
        images = [row for modality, row, _ in strongest if modality == s.IMAGE]
        of_tokens = Counter(self._word(row, position) for row, position in tokens)
        word, n = of_tokens.most_common(1)[0] if of_tokens else ("", 0)
        text = {"word": word, "n": n, "of": len(tokens)} if word and n >= MIN_SHARE * len(tokens) else None
        return {"text": text, "image": self._shared_word(images, word)}

    def _word(self, row: int, position: int) -> str:
        """The word, in lower case, that the token at this position of a sample is part of; the token itself where it is
        part of none."""
        events = self._core.events.tokens(row)
        text_at = np.flatnonzero(events.modality_t == s.TEXT)
        centre = int(np.searchsorted(text_at, position))
        first, last = self._around(events.token_id_t[text_at], centre)
        pieces = self._vocabulary.texts(events.token_id_t[text_at], slice(first, last + 1))
        token = pieces[centre - first]
        begin = sum(map(len, pieces[: centre - first])) + len(token) - len(token.lstrip())
        if not is_unspaced(token):
            for unit in units("".join(pieces)):
                if unit.start <= begin < unit.stop:
                    return unit.text
        return MARKS.sub("", token).strip().lower()

    def _around(self, token_id_t: Array, centre: int) -> tuple[int, int]:
        """The first and the last of the tokens around one that can be of its word: up to those that begin with a space.
        """
        first = last = centre
        text = self._vocabulary.text
        while first > max(0, centre - AROUND) and not text(int(token_id_t[first])).startswith(" "):
            first -= 1
        end = min(len(token_id_t) - 1, centre + AROUND)
        while last < end and not text(int(token_id_t[last + 1])).startswith(" "):
            last += 1
        return first, last

    def _shared_word(self, rows: list[int], preferred: str) -> Item | None:
        """The word that the captions of these samples share; of two as good, the one preferred."""
        count = self._n_captions(rows)
        best: tuple[float, bool, str] = (0.0, False, "")
        for word, n in count.items():
            share, base = n / len(rows), self._base_rate.get(word, 0.0)
            if word not in ENGLISH_FUNCTION_WORDS and share >= max(MIN_SHARE, TIMES_BASE * base):
                best = max(best, ((share - base) / (1 - base), word == preferred, word))
        return {"word": best[2], "n": count[best[2]], "of": len(rows)} if best[2] else None

    def _n_captions(self, rows: Iterable[int]) -> Counter[str]:
        """Number of these samples whose caption has each word."""
        count: Counter[str] = Counter()
        for chunk in in_chunks(rows):
            query = f"SELECT text FROM samples WHERE row IN ({marks(len(chunk))})"
            for (text,) in fetch_plain(self._core.engine, query, chunk):
                count.update(set(words_of(text)))
        return count

    @cached_property
    def _base_rate(self) -> dict[str, float]:
        """Share of the store's captions that have each word."""
        n = min(N_CAPTIONS, self._core.n_samples)
        count = self._n_captions(i * self._core.n_samples // n for i in range(n))
        return {word: c / n for word, c in count.items()}
