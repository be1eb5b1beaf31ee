"""`store.samples`: the list of samples, one sample, its image files, and what fires in it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
from sqlalchemy import ColumnElement, select

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.core import Core
from precompute.store.events import SampleEvents
from precompute.store.features import Features
from precompute.store.lists.keyset import KeysetList, keyset_page
from precompute.store.lists.marked import Marked, with_words
from precompute.store.opening import IMAGES
from precompute.store.places import Places, Window, kind_at, sides_of
from precompute.store.quality import Quality, flag_and_limit
from precompute.store.sql import Page, PlainQuery, fetch_plain
from precompute.utils.types import Item, Items, check_keywords

_SAMPLE = PlainQuery(s.samples.c)
_LISTED = PlainQuery(column for column in s.samples.c if column.name not in ("views", "extra"))
"""Without JSON that no list shows: to parse it takes longer than to read it."""
_SCORE_COLUMNS = {name: s.score_column(name) for name in s.SCORES}
_FLAG_COLUMNS = {name: s.flag_column(name) for name in s.FLAGS}


class SampleFilters(TypedDict, total=False):
    """Which samples a list has; each filter may be left out or None."""

    flag: str | None
    """Only samples whose score of this flag exceeds its threshold."""
    threshold: float | None
    """In place of the flag's own."""
    flags: Sequence[str] | None
    """Flags that a sample must all have, each NAME or NAME:THRESHOLD."""
    q: str | None
    """Words of the caption."""
    ids: Iterable[str] | None
    marked: Marked | None


class Samples:
    """The samples of a store: a `row` 0…N−1 and the user's own `sample_id`."""

    def __init__(self, core: Core, features: Features, quality: Quality, places: Places) -> None:
        self._core = core
        self._features = features
        self._quality = quality
        self._places = places

    def list(
        self,
        *,
        sort: str = "row",
        order: str = "asc",
        limit: int = 50,
        cursor: str | None = None,
        **filters: Unpack[SampleFilters],
    ) -> Page:
        """One page of samples (`GET /samples`).

        Args:
            sort: "row", a score or a flag; samples without that value come last.
            order: "asc" or "desc".
            limit: samples on the page, at most 1000.
            cursor: `next` of the page before, with the same order and filters.
            filters: keywords of `SampleFilters`.

        Raises:
            SaevxError: a sort, order or flag that does not exist, or the cursor of another list.
        """
        check_keywords(filters, SampleFilters)
        flag, threshold, q, ids = (filters.get("flag"), filters.get("threshold"), filters.get("q"), filters.get("ids"))
        if sort not in s.SAMPLE_SORTS:
            raise SaevxError(f"Cannot sort samples by {sort!r}: use one of {', '.join(s.SAMPLE_SORTS)}.")
        core, c = self._core, s.samples.c
        where: list[ColumnElement[bool]] = []
        total, flag_threshold = core.n_samples, threshold
        if flag is not None:
            flag_info = self._quality.flag(flag)
            total = flag_info["count"]
            flag_threshold = flag_info["threshold"] if threshold is None else threshold
            where.append(self._quality.exceeds(flag, flag_threshold))
        flag_names = list(filters.get("flags") or ())
        where += [self._quality.exceeds(*flag_and_limit(option)) for option in flag_names]
        sample_ids = None if ids is None else [str(i) for i in ids]
        if sample_ids is not None:
            where.append(c.sample_id.in_(sample_ids))
        mark_filter = filters.get("marked")
        where += mark_filter.conditions(c.row) if mark_filter else []
        if has_q := bool(q and q.strip()):
            where.append(with_words(c.row, "sample_fts", str(q), mark_filter))
        total_is_known = (threshold, ids, mark_filter) == (None,) * 3 and not has_q and not flag_names
        marks = mark_filter or ""
        tag_filters = {
            "flag": flag,
            "over": flag_threshold,
            "q": q,
            "ids": sample_ids,
            "flags": flag_names,
            "marked": marks,
        }
        tag = core.list_tag("samples", sort=sort, order=order, **tag_filters)
        sample_list = KeysetList(
            select(s.samples), _sort_column(sort), c.row, where, tag, core.n_samples, total if total_is_known else None
        )
        rows, total, next_cursor = keyset_page(core.engine, sample_list, order=order, limit=limit, cursor=cursor)
        return Page([self._item(r._mapping) for r in rows], total, next_cursor)

    def get(self, sample_id: str, top: int = 24) -> Item:
        """One sample with scores, ranks, flags, reasons and its `top` strongest features (`GET /samples/{id}`).

        Raises:
            SaevxError: no such sample.
        """
        values = self._values(sample_id)
        row, near_row = values["row"], values["near_row"]
        item = self._item(values)
        flag_scores = {name: values[s.flag_column(name)] for name in s.FLAGS}
        other_rows = (row - 1, row + 1, -1 if near_row is None else near_row)
        query = "SELECT row, sample_id FROM samples WHERE row IN (?, ?, ?)"
        id_of = dict(fetch_plain(self._core.engine, query, other_rows))
        sides = sides_of(self._core.events, row)
        return {
            **item,
            **{k: values[k] for k in ("n_special", "n_sink", "fvu_text", "fvu_image", "extra", "near_cosine")},
            "near_sample_id": None if near_row is None else id_of[near_row],
            "views": [dict(zip(("rows", "cols", "box", "image"), v, strict=True)) for v in values["views"]],
            "score_ranks": self._quality.rank_scores(item["scores"]),
            "flags": [self._quality.raised(row, name, flag_scores[name]) for name in item["flags"]],
            "flag_scores": flag_scores,
            "top_features": {name: self._features.strongest(*sides[m], m, top) for m, name in enumerate(s.MODALITIES)},
            "groups": self._features.grouped(sides, top),
            "previous": id_of.get(row - 1),
            "next": id_of.get(row + 1),
        }

    def row(self, sample_id: str) -> int:
        """The row of a sample. Raises SaevxError where there is no such sample."""
        rows = fetch_plain(self._core.engine, "SELECT row FROM samples WHERE sample_id = ?", (str(sample_id),))
        if not rows:
            raise _no_sample(sample_id)
        return int(rows[0][0])

    def sample_id(self, row: int) -> str:
        """The id of the sample in that row, which must exist."""
        return str(fetch_plain(self._core.engine, "SELECT sample_id FROM samples WHERE row = ?", (int(row),))[0][0])

    def items(self, rows: Iterable[int]) -> dict[int, Item]:
        """row → the sample as lists show it."""
        return {values["row"]: self._item(values) for values in self._values_of_rows(rows)}

    def original(self, row: int) -> Item:
        """What identifies a sample's pair in the data: `sample_id`, `text`, `sha256` of each image file."""
        values = self._values_of_rows([row])[0]
        hashes = [image["sha256"] for image in values["images"]]
        return {"sample_id": values["sample_id"], "text": values["text"], "sha256": hashes}

    def image_path(self, sample_id: str, image: int = 0) -> Path:
        """The WebP file of one of a sample's images, at most 256 pixels a side.

        Raises:
            SaevxError: no such sample or image, or the store names a file outside its images.
        """
        images = self._values(sample_id)["images"]
        if not 0 <= image < len(images):
            raise SaevxError(f"Sample {sample_id!r} has {len(images)} images: choose one, counted from 0.")
        name = str(images[image]["path"])
        if not name.startswith(IMAGES) or ".." in Path(name).parts:  # whoever made the store may be a stranger
            raise SaevxError(f"The image of sample {sample_id!r} is not among the images of the store: {name!r}.")
        return self._core.path / name

    def activations(self, sample_id: str, features: Sequence[int], computed: SampleEvents | None = None) -> Item:
        """Values (z) of `features` on every token and patch of a sample (`GET /samples/{id}/activations`).

        Args:
            computed: the sample's events, where the store does not hold them.

        Raises:
            EventsNotStored: there are features to look up, and the store does not hold the sample's events.
            SaevxError: no such sample or feature.
        """
        values = self._values(sample_id)
        events = computed or (self._core.events.of if features else self._core.events.tokens)(values["row"])
        return {
            "sample_id": values["sample_id"],
            **self._places.activations(events, values["views"], features),
            "recomputed": computed is not None,
        }

    def features_at(
        self,
        sample_id: str,
        *,
        position: int | None = None,
        patch: tuple[int, int, int] | None = None,
        limit: int = 50,
        cursor: str | None = None,
        computed: SampleEvents | None = None,
    ) -> Item:
        """The features active on one token, or on one patch (view, row, col), in the order of `Features.strongest`.

        Args:
            position: the token's place in the sample's token list; ignored where `patch` is given.
            computed: as in `activations`.

        Raises:
            EventsNotStored: as in `activations`.
            SaevxError: no such sample, position or patch.
        """
        values = self._values(sample_id)
        name = f"Sample {values['sample_id']!r}"
        events = computed or self._core.events.tokens(values["row"])
        if patch is not None:
            position = self._places.position(events, values, patch, name)
        if kind_at(events, position, name) in (s.TEXT, s.IMAGE) and computed is None:
            events = self._core.events.of(values["row"])
        window = self._places.features_at(events, values, int(position or 0), Window(limit, cursor), name)
        return {"sample_id": values["sample_id"], **window, "recomputed": computed is not None}

    def _values(self, sample_id: str) -> Item:
        """The sample's row of the table `samples`, by column. Raises SaevxError where there is none."""
        samples = _SAMPLE.fetch(self._core.engine, "samples WHERE sample_id = ?", (str(sample_id),))
        if not samples:
            raise _no_sample(sample_id)
        return samples[0]

    def _values_of_rows(self, rows: Iterable[int]) -> Items:
        """Of samples their rows of the table `samples`, by column but `views` and `extra`, ascending."""
        return _LISTED.fetch_of(self._core.engine, "samples WHERE row IN (?)", rows)

    def _item(self, values: Mapping[Any, Any]) -> Item:
        """A sample as lists show it, from its row of the table `samples`."""
        limits = [(name, values[_FLAG_COLUMNS[name]], limit) for name, limit in self._quality.thresholds]
        return {
            **{k: values[k] for k in ("sample_id", "row", "text", "images", "n_text", "n_image")},
            "scores": {name: values[column] for name, column in _SCORE_COLUMNS.items()},
            "flags": [name for name, score, limit in limits if (score or -np.inf) > limit],
        }


def _no_sample(sample_id: str) -> SaevxError:
    return SaevxError(f"No sample {sample_id!r} in this store: take an id from the list of samples.")


def _sort_column(sort: str) -> Any:
    if sort in s.SCORES:
        return s.samples.c[s.score_column(sort)]
    return s.samples.c[s.flag_column(sort)] if sort in s.FLAGS else s.samples.c.row
