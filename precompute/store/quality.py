"""The reader's questions about quality: scores, flags and their reasons."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import Any

import numpy as np
from sqlalchemy import Row, and_, func, select

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.base import StoreBase
from precompute.store.sql import scalars
from precompute.utils.types import Array

Item = dict[str, Any]


class QualityQueries(StoreBase):
    """Answers about scores and flags."""

    @cached_property
    def scores(self) -> list[Item]:
        """Each score with its distribution, rank correlation with length and calibration."""
        return [_distribution(self._score_rows[name]) for name in s.SCORES]

    @cached_property
    def flags(self) -> list[Item]:
        """Each flag with count, threshold, histogram and calibration."""
        rows = {r.name: r for r in self._all(select(s.flags))}
        return [_distribution(rows[name]) for name in s.FLAGS]

    def _flag(self, name: str) -> Item:
        for flag in self.flags:
            if flag["name"] == name:
                return flag
        raise SaevxError(f"Unknown flag {name!r}: use one of {', '.join(s.FLAGS)}.")

    def flag_count(self, name: str, threshold: float) -> int:
        """Samples above another threshold."""
        self._flag(name)
        query = select(func.count()).where(s.samples.c[s.flag_column(name)] > threshold)
        return int(self._all(query)[0][0])

    def _flag_hit(self, row: int, name: str, score: float) -> Item:
        flag = self._flag(name)
        r = s.flag_reasons.c
        found = self._all(select(r.reason).where(and_(r.row == row, r.flag == name)))
        return {
            "name": name,
            "title": flag["title"],
            "score": score,
            "threshold": flag["threshold"],
            "reason": self.reason(found[0][0]) if found else None,
        }

    def reason(self, reason: Item) -> Item:
        """A stored reason with its feature ids turned into {id, label}."""
        refs = self.feature_refs(reason.get("features", []))
        shown = [{"id": k, "label": refs[k]["label"]} for k in reason.get("features", [])]
        return {"text": reason["text"], "features": shown, "tokens": reason.get("tokens", [])}

    def score_values(self, name: str) -> Array:
        """float64 [N] in row order, NaN where not computed; kept once read."""
        if name not in s.SCORES:
            raise SaevxError(f"Unknown score {name!r}: use one of {', '.join(s.SCORES)}.")
        cache: dict[str, Array] = self.__dict__.setdefault("_score_values", {})
        if name not in cache:
            query = select(s.samples.c[s.score_column(name)]).order_by(s.samples.c.row)
            values = (np.nan if value is None else value for value in scalars(self.engine, query))
            cache[name] = np.fromiter(values, np.float64, self.n_samples)
        return cache[name]

    def score_median(self, name: str) -> float:
        """NaN where no sample has the score."""
        value = self._score_rows[name].median
        return np.nan if value is None else float(value)

    def rank_scores(self, scores: Item) -> dict[str, float | None]:
        """Share of the store's samples with a lower score, per score, to a thousandth below."""
        ranks: dict[str, float | None] = {}
        for name, value in scores.items():
            known = self._score_rows[name].quantiles
            below = bisect_left(known, value) if value is not None else 0
            ranks[name] = max(below - 1, 0) / 1000 if value is not None and known else None
        return ranks

    @cached_property
    def _score_rows(self) -> dict[str, Row[Any]]:
        return {r.name: r for r in self._all(select(s.scores))}


def _distribution(row: Row[Any]) -> Item:
    item = dict(row._mapping)
    item["histogram"] = item.pop("hist")
    for inner in ("median", "quantiles"):
        item.pop(inner, None)
    low, high = item.pop("auroc_low", None), item.pop("auroc_high", None)
    if isinstance(item["auroc"], int | float):
        item["auroc"] = {"value": item["auroc"], "low": low, "high": high}
    return item
