"""`store.quality`: scores and flags of the samples, their thresholds and reasons."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import Any

import numpy as np
from sqlalchemy import Row, and_, select

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.core import Core
from precompute.store.sql import scalars
from precompute.utils.types import Array

Item = dict[str, Any]


class Quality:
    """Scores (higher is better) and flags (higher is worse)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._score_values: dict[str, Array] = {}

    @cached_property
    def scores(self) -> list[Item]:
        """Each score with its distribution, rank correlation with length and calibration, as `schema.SCORES`."""
        return [_distribution(self._score_rows[name]) for name in s.SCORES]

    @cached_property
    def flags(self) -> list[Item]:
        """Each flag with count, threshold, histogram and calibration, as `schema.FLAGS`."""
        rows = {r.name: r for r in self._core.rows(select(s.flags))}
        return [_distribution(rows[name]) for name in s.FLAGS]

    def flag(self, name: str) -> Item:
        """One of `flags`. Raises SaevxError where there is no such flag."""
        for flag in self.flags:
            if flag["name"] == name:
                return flag
        raise SaevxError(f"Unknown flag {name!r}: use one of {', '.join(s.FLAGS)}.")

    def raised(self, row: int, name: str, score: float) -> Item:
        """A flag that a sample has, with the sample's score and the reason: {name, title, score, threshold, reason}."""
        flag = self.flag(name)
        r = s.flag_reasons.c
        reasons = self._core.rows(select(r.reason).where(and_(r.row == row, r.flag == name)))
        return {
            "name": name,
            "title": flag["title"],
            "score": score,
            "threshold": flag["threshold"],
            "reason": self.reason(reasons[0][0]) if reasons else None,
        }

    def reason(self, reason: Item) -> Item:
        """A stored reason with its feature ids turned into {id, label}."""
        ids = reason.get("features", [])
        refs = self._core.feature_refs(ids)
        features = [{"id": k, "label": refs[k]["label"]} for k in ids]
        return {"text": reason["text"], "features": features, "tokens": reason.get("tokens", [])}

    def score_values(self, name: str) -> Array:
        """float64 [N]: a score of every sample, in row order, NaN where it was not computed. Read once.

        Raises:
            SaevxError: no such score.
        """
        if name not in s.SCORES:
            raise SaevxError(f"Unknown score {name!r}: use one of {', '.join(s.SCORES)}.")
        if name not in self._score_values:
            query = select(s.samples.c[s.score_column(name)]).order_by(s.samples.c.row)
            values = (np.nan if value is None else value for value in scalars(self._core.engine, query))
            self._score_values[name] = np.fromiter(values, np.float64, self._core.n_samples)
        return self._score_values[name]

    def score_median(self, name: str) -> float:
        """The median of a score over all samples, NaN where no sample has the score."""
        value = self._score_rows[name].median
        return np.nan if value is None else float(value)

    def rank_scores(self, scores: Item) -> dict[str, float | None]:
        """Share of the store's samples with a lower score, per score, rounded down to a thousandth."""
        ranks: dict[str, float | None] = {}
        for name, value in scores.items():
            quantiles = self._score_rows[name].quantiles
            n_below = bisect_left(quantiles, value) if value is not None else 0
            ranks[name] = max(n_below - 1, 0) / 1000 if value is not None and quantiles else None
        return ranks

    @cached_property
    def _score_rows(self) -> dict[str, Row[Any]]:
        return {r.name: r for r in self._core.rows(select(s.scores))}


def _distribution(row: Row[Any]) -> Item:
    """A row of `scores` or `flags` as the API shows it: `auroc` with its interval, without the quantiles."""
    item = dict(row._mapping)
    item["histogram"] = item.pop("hist")
    for inner in ("median", "quantiles"):
        item.pop(inner, None)
    low, high = item.pop("auroc_low", None), item.pop("auroc_high", None)
    if isinstance(item["auroc"], int | float):
        item["auroc"] = {"value": item["auroc"], "low": low, "high": high}
    return item
