"""`store.selection`: samples by several flags, a feature, a range of a score and the length of their caption at once.

The columns that filters read are held in memory, 8 bytes a sample, from their first use on: a million samples are
filtered in a few milliseconds, and a list is ordered once for all its pages.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.core import Core
from precompute.store.features import Features
from precompute.store.lists.marked import Marked
from precompute.store.mapfile import SAMPLES_NAME, SampleMap, read_sample_map
from precompute.store.quality import Quality, flag_and_limit
from precompute.store.samples import Samples
from precompute.store.selection.area import parse_area, points_inside
from precompute.store.sql import Page, column_values, fetch_of, fetch_plain, match_words, next_cursor, page_start
from precompute.utils.types import Array, check_keywords

Side = Literal["image-only", "text-only", "both", "image", "text"]
SIDES: dict[str, tuple[bool | None, bool | None]] = {
    "image-only": (False, True),
    "text-only": (True, False),
    "both": (True, True),
    "image": (None, True),
    "text": (True, None),
}
"""Where a feature must be on (True) and off (False): in the caption, on the image."""
_CACHED_LISTS, _CACHED_FEATURES = 16, 64


class SelectionFilters(TypedDict, total=False):
    """Which samples; each filter may be left out or None."""

    q: str | None
    """Words of the caption."""
    flag: str | None
    """A flag that every sample must have, as one of `flags`."""
    flags: Iterable[str] | None
    """Names of flags; NAME:THRESHOLD takes another threshold than the stored one."""
    match: Literal["any", "all"] | None
    """Whether one of the flags is enough, or all are needed, which is the default."""
    feature: int | None
    side: Side | None
    """Where the feature is on: its largest activation is at least a tenth of its p99.9; "image" without one. Where not
    `events.scans_all`, it must also be among the 256 strongest features of that side of the sample."""
    by: str | None
    """The score of `min_score` and `max_score`."""
    min_score: float | None
    max_score: float | None
    min_length: int | None
    """Tokens of the text."""
    max_length: int | None
    area: str | None
    """Corners of an area of the map of samples, as `area.parse_area` reads them."""
    marked: Marked | None


class Selection:
    """The samples that pass filters."""

    def __init__(self, core: Core, features: Features, quality: Quality, samples: Samples) -> None:
        self._core, self._features, self._quality, self._samples = core, features, quality, samples
        self._flag_values: dict[str, Array] = {}
        self._cached_order = lru_cache(maxsize=_CACHED_LISTS)(self._order)
        self._feature_rows = lru_cache(maxsize=_CACHED_FEATURES)(self._rows_with)

    def list(
        self,
        *,
        sort: str = "row",
        order: str = "asc",
        limit: int = 50,
        cursor: str | None = None,
        **filters: Unpack[SelectionFilters],
    ) -> Page:
        """One page of the samples that pass all filters, as `samples.list`.

        Raises:
            SaevxError: a sort, order, flag, score, side or feature that does not exist, or the cursor of another list.
        """
        if order not in ("asc", "desc"):
            raise SaevxError(f"Unknown order {order!r}: use asc or desc.")
        rows = self.ordered_rows(sort, order, **filters)
        tag = self._core.list_tag("selection", sort=sort, order=order, **filters)
        start, limit = page_start(tag, cursor), max(1, min(int(limit), 1000))
        page_rows = rows[start : start + limit].tolist()
        items = self._samples.items(page_rows)
        return Page([items[row] for row in page_rows], len(rows), next_cursor(tag, start + limit, len(rows)))

    def ordered_rows(self, sort: str = "row", order: str = "asc", **filters: Unpack[SelectionFilters]) -> Array:
        """int64 [n]: rows of all samples that pass the filters, in that order; those without the value come last.

        Raises:
            SaevxError: as `list`.
        """
        check_keywords(filters, SelectionFilters)
        if sort not in s.SAMPLE_SORTS:
            raise SaevxError(f"Cannot sort samples by {sort!r}: use one of {', '.join(s.SAMPLE_SORTS)}.")
        given_filters = {name: value for name, value in filters.items() if value is not None}
        if "flags" in given_filters:
            given_filters["flags"] = list(given_filters["flags"])  # type: ignore[call-overload]
        return self._cached_order(sort, order, json.dumps(given_filters, sort_keys=True, default=asdict))

    def rows_of(self, ids: Iterable[str]) -> dict[str, int]:
        """id → row of those samples that there are."""
        return dict(fetch_of(self._core.engine, "SELECT sample_id, row FROM samples WHERE sample_id IN (?)", ids))

    def _order(self, sort: str, order: str, filters_json: str) -> Array:
        rows = np.flatnonzero(self._mask(json.loads(filters_json)))
        if sort == "row":
            return rows if order == "asc" else rows[::-1]
        value = self.values(sort)[rows]
        is_known = ~np.isnan(value)
        rising_rows = rows[is_known][np.argsort(value[is_known], kind="stable")]
        return np.concatenate([rising_rows if order == "asc" else rising_rows[::-1], rows[~is_known]])

    def _mask(self, filters: dict[str, Any]) -> Array:
        """bool [N]: the samples that pass."""
        mask = np.ones(self._core.n_samples, dtype=bool)
        if flags := filters.get("flags"):
            has_flag = np.stack([self._has_flag(option) for option in flags])
            mask &= has_flag.any(axis=0) if filters.get("match") == "any" else has_flag.all(axis=0)
        if flag := filters.get("flag"):
            mask &= self._has_flag(flag)
        if filters.get("feature") is not None:
            mask &= self._with_feature(int(filters["feature"]), filters.get("side") or "image")
        if (low := filters.get("min_score")) is not None:
            mask &= self.values(_score(filters)) >= low
        if (high := filters.get("max_score")) is not None:
            mask &= self.values(_score(filters)) <= high
        if (min_length := filters.get("min_length")) is not None:
            mask &= self._length >= min_length
        if (max_length := filters.get("max_length")) is not None:
            mask &= self._length <= max_length
        if area := filters.get("area"):
            is_inside = np.zeros_like(mask)
            is_inside[points_inside(self.map, parse_area(area))] = True
            mask &= is_inside
        marks = Marked(**filters.get("marked", {}))
        mask &= marks.mask(len(mask))
        if (q := filters.get("q")) and q.strip():
            has_words = np.zeros_like(mask)
            has_words[list(marks.word_matches)] = True
            if query := match_words(q):
                rowids = "SELECT rowid FROM sample_fts WHERE sample_fts MATCH ?"
                has_words[[row for (row,) in fetch_plain(self._core.engine, rowids, (query,))]] = True
            mask &= has_words
        return mask

    @cached_property
    def map(self) -> SampleMap:
        """Where each sample lies on the map of samples."""
        return read_sample_map(self._core.file(SAMPLES_NAME))

    def values(self, name: str) -> Array:
        """float64 [N]: a score or the score of a flag, NaN where there is none. Read once."""
        if name in s.SCORES:
            return self._quality.score_values(name)
        if name not in self._flag_values:
            core = self._core
            self._flag_values[name] = column_values(core.engine, s.flag_column(name), core.n_samples)
        return self._flag_values[name]

    @cached_property
    def _length(self) -> Array:
        """float64 [N]: tokens of each sample's text."""
        return column_values(self._core.engine, "n_text", self._core.n_samples)

    def _has_flag(self, option: str) -> Array:
        name, limit = flag_and_limit(option)
        return np.asarray(self.values(name) > (self._quality.flag(name)["threshold"] if limit is None else limit))

    def _with_feature(self, feature: int, side: str) -> Array:
        """bool [N]: the samples on which a feature is on and off as `side` says."""
        self._core.check_feature(feature)
        if side not in SIDES:
            raise SaevxError(f"Unknown side {side!r}: use one of {', '.join(SIDES)}.")
        mask = np.ones(self._core.n_samples, dtype=bool)
        for rows, is_on_required in zip(self._feature_rows(feature), SIDES[side], strict=True):
            if is_on_required is not None:
                is_on = np.zeros_like(mask)
                is_on[rows] = True
                mask &= is_on == is_on_required
        return mask

    def _rows_with(self, feature: int) -> Sequence[Array]:
        """Rows of the samples with the feature on, int64 [n] for text and for image: one pass over the events or the
        maxima (`Events.sides_with`), which are sorted by sample and not by feature."""
        side, z = self._core.events.sides_with(feature)
        side = side[z >= s.DELTA_SHARE * self._features.table["p999"][feature]]
        return [side[side % 2 == m] // 2 for m in range(len(s.MODALITIES))]


def _score(filters: dict[str, Any]) -> str:
    """The score whose range is limited. Raises SaevxError where none is named."""
    name = filters.get("by")
    if name not in s.SCORES:
        message = f"Unknown score {name!r}" if name else "A range needs the name of its score in `by`"
        raise SaevxError(f"{message}: use one of {', '.join(s.SCORES)}.")
    return str(name)
