"""`store.quality`: scores and flags of the samples, thresholds, reasons, and the rows that a filter keeps."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Row, and_, func, or_, select

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.core import NAME_FIELDS, Core
from precompute.store.sql import column_values, fetch_plain, scalars
from precompute.utils.types import Array, Item

N_REASON_FEATURES = 24


class Quality:
    """Scores (higher is better) and flags (higher is worse)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._score_values: dict[str, Array] = {}
        self._flag_masks: dict[str, Array] = {}

    @cached_property
    def scores(self) -> list[Item]:
        """Each score with its distribution, rank correlation with length and calibration, as `schema.SCORES`."""
        return [_distribution(self._score_rows[name]) for name in s.SCORES]

    @cached_property
    def flags(self) -> list[Item]:
        """Each flag with count, threshold, histogram and calibration, as `schema.FLAGS`."""
        rows = {r.name: r for r in self._core.rows(select(s.flags))}
        return [_distribution(rows[name]) for name in s.FLAGS]

    @cached_property
    def thresholds(self) -> list[tuple[str, float]]:
        """(name, threshold) of each flag."""
        return [(flag["name"], flag["threshold"]) for flag in self.flags]

    @cached_property
    def n_flagged(self) -> int:
        """Number of samples with at least one flag."""
        exceeds_any = or_(*(s.samples.c[s.flag_column(flag["name"])] > flag["threshold"] for flag in self.flags))
        return int(self._core.rows(select(func.count()).select_from(s.samples).where(exceeds_any))[0][0])

    @cached_property
    def features_of_reasons(self) -> list[int]:
        """The features that the reasons of flags name in the most samples, at most `N_REASON_FEATURES`, most first."""
        query = (
            "SELECT f.value FROM flag_reasons r, json_each(r.reason, '$.features') f "
            "GROUP BY f.value ORDER BY count(DISTINCT r.row) DESC, f.value LIMIT ?"
        )
        return [int(k) for (k,) in fetch_plain(self._core.engine, query, (N_REASON_FEATURES,))]

    def flag(self, name: str) -> Item:
        """One of `flags`. Raises SaevxError where there is no such flag."""
        for flag in self.flags:
            if flag["name"] == name:
                return flag
        raise SaevxError(f"Unknown flag {name!r}: use one of {', '.join(s.FLAGS)}.")

    def exceeds(self, name: str, threshold: float | None = None) -> ColumnElement[bool]:
        """The condition on the table `samples` that a sample's score of a flag is above the flag's threshold, or above
        another. Raises SaevxError where there is no such flag."""
        limit = self.flag(name)["threshold"] if threshold is None else threshold
        return s.samples.c[s.flag_column(name)] > limit

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
        """A stored reason with its feature ids turned into what names a feature."""
        ids = reason.get("features", [])
        refs = self._core.feature_refs(ids)
        features = [{name: refs[k][name] for name in NAME_FIELDS} for k in ids]
        return {"text": reason["text"], "features": features, "tokens": reason.get("tokens", [])}

    def score_values(self, name: str) -> Array:
        """float64 [N]: a score of every sample, in row order, NaN where it was not computed. Read once.

        Raises:
            SaevxError: no such score.
        """
        if name not in s.SCORES:
            raise SaevxError(f"Unknown score {name!r}: use one of {', '.join(s.SCORES)}.")
        if name not in self._score_values:
            core = self._core
            self._score_values[name] = column_values(core.engine, s.score_column(name), core.n_samples)
        return self._score_values[name]

    def best_rows(
        self,
        *,
        by: str | None,
        keep: float,
        flags: Sequence[str] = (),
        require: Sequence[str] = (),
        within: Array | None = None,
    ) -> Array:
        """int64 [K], rising: rows of the `keep` percent with the highest score, of the samples that none of `flags`
        marks and all of `require` do. Ties, missing scores and the rounding are those of `best_rows_of`.

        Args:
            by: a score; None takes all of these samples.
            keep: percent, 0–100.
            flags: names of flags; `name:value` takes another threshold than the stored one.
            require: likewise.
            within: bool [N], only these samples.

        Raises:
            SaevxError: unknown score or flag, percentage out of range, a score this store has not computed, or a part
                without a score to rank by.
        """
        check_keep(keep)
        is_allowed = self.matching(flags, require, within)
        if by is None:
            if keep != 100:
                raise SaevxError(f"To keep {keep:g} % of the pairs, name a score that ranks them (by).")
            return np.flatnonzero(is_allowed)
        score = self.score_values(by)
        if np.isnan(score).all():
            raise SaevxError(f"This store has no {by!r} score: run `saevx precompute` with it, or choose another.")
        return best_rows_of(score, is_allowed, keep)

    def matching(self, flags: Sequence[str], require: Sequence[str] = (), within: Array | None = None) -> Array:
        """bool [N]: the samples that none of `flags` marks and all of `require` do, each NAME or NAME:THRESHOLD, among
        those of `within` (bool [N])."""
        is_allowed = np.ones(self._core.n_samples, dtype=bool) if within is None else within.copy()
        for option in flags:
            is_allowed &= ~self.flagged(option)
        for option in require:
            is_allowed &= self.flagged(option)
        return is_allowed

    def flagged(self, option: str) -> Array:
        """bool [N]: the samples that a flag marks, NAME or NAME:THRESHOLD; those of stored thresholds are read once."""
        if option not in self._flag_masks:
            query = select(s.samples.c.row).where(self.exceeds(*flag_and_limit(option)))
            has_flag = np.zeros(self._core.n_samples, dtype=bool)
            has_flag[np.fromiter(scalars(self._core.engine, query), np.int64)] = True
            if ":" in option:
                return has_flag
            self._flag_masks[option] = has_flag
        return self._flag_masks[option]

    def overlap(self, options: Sequence[str]) -> list[list[int]]:
        """How many samples have both of two flags, for each pair of these: NAME or NAME:THRESHOLD; on the diagonal, how
        many have the one."""
        masks = [self.flagged(option) for option in options]
        return [[int(np.count_nonzero(mask & other_mask)) for other_mask in masks] for mask in masks]

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

    def score_ends(self, name: str) -> tuple[float, float]:
        """The values of a score that 1 % and 99 % of the samples do not exceed; NaN where no sample has one."""
        quantiles = self._score_rows[name].quantiles
        return (quantiles[10], quantiles[990]) if quantiles else (math.nan, math.nan)

    @cached_property
    def _score_rows(self) -> dict[str, Row[Any]]:
        return {r.name: r for r in self._core.rows(select(s.scores))}


def check_keep(keep: float) -> None:
    """Raises SaevxError for what is no percentage."""
    if not 0 <= keep <= 100:
        raise SaevxError(f"{keep:g} is no percentage of pairs to keep: give one from 0 to 100.")


def flag_and_limit(option: str) -> tuple[str, float | None]:
    """The flag and the threshold of NAME:THRESHOLD; None where NAME stands alone. Raises SaevxError for others."""
    name, colon, value = option.partition(":")
    if name not in s.FLAGS:
        raise SaevxError(f"Unknown flag {name!r}: use one of {', '.join(s.FLAGS)}.")
    try:
        return name, float(value) if colon else None
    except ValueError:
        raise SaevxError(f"{option!r} is no flag with a threshold: write {name}:0.9, say.") from None


def n_kept(n: int, keep: float) -> int:
    """So many of n are `keep` percent, rounded to the nearest."""
    return int(np.floor(n * keep / 100 + 0.5))


def best_rows_of(score: Array, is_allowed: Array, keep: float) -> Array:
    """int64 [K], rising: of the rows allowed, the `keep` percent with the highest score, the number rounded to the
    nearest; NaN comes last, ties go to the smaller row.

    Args:
        score: float64 [N]. is_allowed: bool [N].
    """
    rows = np.flatnonzero(is_allowed)
    value = np.nan_to_num(score[rows], nan=-np.inf)
    n = n_kept(len(rows), keep)
    if n in (0, len(rows)):
        return rows[:n]
    min_value = np.partition(value, len(rows) - n)[len(rows) - n]  # the n-th largest; no need to sort a million for it
    is_above = value > min_value
    level = np.flatnonzero(value == min_value)[: n - int(is_above.sum())]
    is_above[level] = True
    return rows[is_above]


def _distribution(row: Row[Any]) -> Item:
    """A row of `scores` or `flags` as the API shows it: `auroc` with its interval, without the quantiles."""
    item = dict(row._mapping)
    item["histogram"] = item.pop("hist")
    for part_name in ("median", "quantiles"):
        item.pop(part_name, None)
    low, high = item.pop("auroc_low", None), item.pop("auroc_high", None)
    if isinstance(item["auroc"], int | float):
        item["auroc"] = {"value": item["auroc"], "low": low, "high": high}
    return item
