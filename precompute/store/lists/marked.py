"""Rows of a list that are chosen by what people wrote about them, which is in another database than the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Column, ColumnElement, not_, or_

from precompute.store.sql import has_words, is_one_of
from precompute.utils.types import Array


@dataclass(frozen=True)
class Marked:
    """Which rows, by number. A list's cursors stay valid while more is written: they hold the `name`, not the rows."""

    name: str = ""
    """What was chosen by; empty where only `word_matches` is given."""
    within: Sequence[int] | None = None
    """Only these; None for all."""
    without: Sequence[int] = ()
    word_matches: Sequence[int] = ()
    """Those that have the words of `q`, whatever the store says."""

    def __str__(self) -> str:
        return self.name

    def conditions(self, key: Column[Any]) -> list[ColumnElement[bool]]:
        """In SQL, without `word_matches`."""
        where = [] if self.within is None else [is_one_of(key, self.within)]
        return [*where, not_(is_one_of(key, self.without))] if self.without else where

    def mask(self, n: int) -> Array:
        """bool [n]: the rows 0…n−1 that are left, without `word_matches`."""
        mask = np.full(n, self.within is None)
        mask[list(self.within or ())] = True
        mask[list(self.without)] = False
        return mask


def with_words(key: Column[Any], table: str, q: str, marks: Marked | None) -> ColumnElement[bool]:
    """The condition that a row has the words in the full-text table, or is one of `marks.word_matches`."""
    words = has_words(key, table, q)
    return or_(words, is_one_of(key, marks.word_matches)) if marks and marks.word_matches else words
