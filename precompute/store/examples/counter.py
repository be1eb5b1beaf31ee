"""`store.counterexamples`: samples in which a feature and its name part ways (METHOD, *Examples*)."""

from collections.abc import Callable, Iterator

import numpy as np

from precompute.store import schema as s
from precompute.store.core import Core, modality_code
from precompute.store.events import SampleEvents, of_bits
from precompute.store.examples.listed import Examples
from precompute.store.features import Features
from precompute.store.sql import fetch_of, fetch_plain, match_words
from precompute.utils.text import has_letters, tested_name
from precompute.utils.types import Item

N_CAPTIONS = 1000
"""Captions with a word of the name that are looked at: the first in the order of the data."""
STRONG = 0.5
"""Of p99.9: above it a feature is strong enough that its name should be in the caption."""


class CounterExamples:
    """Where a name says that a feature fires and it does not, and where it fires unnamed."""

    def __init__(self, core: Core, features: Features, examples: Examples) -> None:
        self._core = core
        self._features = features
        self._examples = examples

    def of(
        self,
        feature: int,
        *,
        modality: str | None = None,
        limit: int = 20,
        compute: Callable[[int], SampleEvents | None] | None = None,
    ) -> list[Item]:
        """The counter-examples of a feature (`GET /features/{id}/examples?band=counter`), as `Examples.of` gives
        examples, with `counter`: first "off", the samples whose caption has a word of the name and on which the feature
        is off, most confident captions first; then "unnamed", the examples above half of its p99.9 whose caption has no
        word of the name, strongest first.

        Args:
            modality: the side on which it is off or fires; None for both, one after the other. A side on which it
                never fires has none.
            limit: at most so many of each kind and side, and at most 100.
            compute: as of `Examples.of`.

        Raises:
            SaevxError: no such feature or modality.
        """
        self._core.check_feature(feature)
        sides = range(len(s.MODALITIES)) if modality is None else [modality_code(modality)]
        off_below = s.LACKS_FEATURE * self._features.table["p999"][feature]
        sides = [m for m in sides if self._features.max_by_modality[feature, m] > off_below]
        query = self._query(feature)
        if not sides or not query:
            return []
        limit = max(1, min(limit, 100))
        rows = self._captions(query)
        off_examples = [example for m in sides for example in self._off_examples(feature, m, rows, limit)]
        unnamed_examples = [example for m in sides for example in self._without_name(feature, m, query, limit)]
        return self._examples._items([*off_examples, *unnamed_examples], compute)

    def _query(self, feature: int) -> str:
        """The words by which the feature's name is tested, as a full-text query; "" where it has none."""
        query = "SELECT label FROM features WHERE id = ?"
        words = tested_name(fetch_plain(self._core.engine, query, (int(feature),))[0][0])
        return match_words(words, join=" OR ", prefix=False) if has_letters(words) else ""

    def _captions(self, query: str) -> list[int]:
        """Rows of captions with a word of the name, those that fit their image best first: by `caption-nll`, else by
        `supported-share`."""
        engine = self._core.engine
        matches = "SELECT rowid FROM sample_fts WHERE sample_fts MATCH ? LIMIT ?"
        scores = ", ".join(s.score_column(name) for name in ("caption-nll", "supported-share"))
        rows = [row for (row,) in fetch_plain(engine, matches, (query, N_CAPTIONS))]
        scored_rows = fetch_of(engine, f"SELECT row, {scores} FROM samples WHERE row IN (?)", rows)
        column = 1 if any(r[1] is not None for r in scored_rows) else 2
        return [r[0] for r in sorted(scored_rows, key=lambda r: (r[column] is None, -(r[column] or 0), r[0]))]

    def _off_examples(self, feature: int, modality: int, rows: list[int], limit: int) -> Iterator[Item]:
        """Those of the rows, at most `limit` and in their order, on which the feature is surely off."""
        for row in rows:
            if limit and (z := self._max_where_off(row, feature, modality)) is not None:
                limit -= 1
                yield {
                    "counter": "off", "feature": feature, "modality": modality, "band": None, "rank": None, "row": row,
                    "position": None, "activation": z, "n_same": 0,
                }  # fmt: skip

    def _max_where_off(self, row: int, feature: int, modality: int) -> float | None:
        """The feature's largest z in one modality of a sample, where it is off there; else None.

        A feature that is not among the sample's stored maxima is no stronger, relative to its p99.9, than the weakest
        of them. Where even that is more than off, the sample's events tell, if the store has them.
        """
        events, p999 = self._core.events, self._features.table["p999"]
        if not (events.tokens(row).modality_t == modality).any():
            return None
        feature_k, z = events.maxima(row, modality)
        at = int(np.searchsorted(feature_k, feature))
        if at < len(feature_k) and feature_k[at] == feature:
            max_z = float(z[at])
        elif len(feature_k) < s.KEPT_MAXIMA or (z / p999[feature_k]).min() <= s.LACKS_FEATURE:
            max_z = 0.0
        elif events.has(row):
            tokens, z_t = events.feature(row, feature)
            max_z = float(z_t[tokens.modality_t == modality].max())
        else:
            return None
        return max_z if max_z <= s.LACKS_FEATURE * p999[feature] else None

    def _without_name(self, feature: int, modality: int, query: str, limit: int) -> list[Item]:
        """The strongest of its examples whose caption has no word of the name."""
        engine, min_z = self._core.engine, STRONG * self._features.table["p999"][feature]
        examples = {
            example["row"]: {**example, "counter": "unnamed"}
            for example in reversed(self._examples._example_rows(feature, modality))
            if float(of_bits(example["value"])) * self._core.events.unit > min_z
        }
        matches = "SELECT rowid FROM sample_fts WHERE rowid IN (?) AND sample_fts MATCH ?"
        with_name = {row for (row,) in fetch_of(engine, matches, examples, query)}
        without_name = [example for row, example in examples.items() if row not in with_name]
        return sorted(without_name, key=lambda example: (-example["value"], example["row"]))[:limit]
