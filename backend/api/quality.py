"""Quality of the data: flags, scores, and the ids that a filter keeps."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from backend.annotations.filters import rightly_flagged
from backend.deps import Cached, StoreDep
from backend.params import QueryModel, split_names
from backend.problems import http_status
from backend.schemas.common import FilterName, FlagName, Page
from backend.schemas.quality import FilterPreview, FlagOverlap
from backend.schemas.samples import Flag, Score
from backend.stores import OpenStore
from precompute.scoring.csv_parquet import MAX_NAMED, csv_of, file_stem, parquet_of
from precompute.scoring.filter import kept_rows, lines_of
from precompute.store.quality import flag_and_limit
from precompute.store.schema import FLAGS, SCORES, SELECTIONS
from precompute.utils.types import Array

router = APIRouter(tags=["quality"], dependencies=[Cached])


@router.get("/scores", summary="Scores, each with its distribution and calibration")
def get_scores(store: StoreDep) -> Page[Score]:
    return Page[Score].model_validate({"items": store.reader.quality.scores, "total": len(store.reader.quality.scores)})


@router.get("/flags", summary="Flags, each with its threshold, count and calibration")
def get_flags(store: StoreDep) -> Page[Flag]:
    return Page[Flag].model_validate({"items": store.reader.quality.flags, "total": len(store.reader.quality.flags)})


MAX_SELECTED = 50_000
"""Samples among which a request may choose a set."""
N_PREVIEW = 20
MEDIA = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "ids": "text/plain; charset=utf-8",
}
ENDINGS = {"ids": "txt"}
"""Of file names, where they differ from the format's."""


def flag_names(values: list[str]) -> list[str]:
    """Flags from repeated parameters or lists separated by commas, each as NAME or NAME:THRESHOLD; `all` stands for
    every flag at its own threshold."""
    names = split_names(values)
    names_with_limit = {name.partition(":")[0] for name in names if ":" in name}
    if "all" in names:
        names += [name for name in FLAGS if name not in names_with_limit]
    return [name for name in dict.fromkeys(names) if name != "all"]


class FilterQuery(QueryModel):
    """Which samples a filter keeps."""

    by: FilterName | None = None
    """Score that ranks the samples, or a way to look at the whole set; without it the filter keeps all that is left."""
    keep: Annotated[float | None, Query(ge=0, le=100)] = None
    """Percent of the remaining samples; 50 if left out, or 100 without `by`."""
    flags: Annotated[list[str], Query(max_length=50)] = []  # noqa: RUF012 - pydantic copies it
    """Leave out samples with any of these flags: NAME, NAME:THRESHOLD or `all`."""
    require: Annotated[list[str], Query(max_length=50)] = []  # noqa: RUF012
    """Only samples with all of these flags: NAME or NAME:THRESHOLD."""

    without_right: Annotated[list[FlagName], Query(max_length=50)] = []  # noqa: RUF012
    """Leave out exactly the samples on which people marked this flag as right; may be repeated."""
    only_right: Annotated[list[FlagName], Query(max_length=50)] = []  # noqa: RUF012
    """Only samples on which people marked this flag as right; may be repeated."""

    def choice(self) -> dict[str, Any]:
        """The keywords that `kept_rows` and `file_stem` share."""
        keep = self.keep if self.keep is not None else 100.0 if self.by is None else 50.0
        flags, require = flag_names(self.flags), flag_names(self.require)
        return {"by": self.by, "keep": keep, "flags": flags, "require": require}

    def within(self, store: OpenStore) -> Array | None:
        """bool [N]: the samples that the marks leave; None where no marks count."""
        if not self.without_right and not self.only_right:
            return None
        mask = np.ones(store.reader.n_samples, bool)
        for flag in self.without_right:
            mask &= ~rightly_flagged(store.annotations, store.reader, flag)
        for flag in self.only_right:
            mask &= rightly_flagged(store.annotations, store.reader, flag)
        return mask

    def stem(self, store: OpenStore) -> str:
        """Name of the file, without its ending."""
        marks = [f"marked-{flag}" for flag in self.only_right] + [f"not-marked-{flag}" for flag in self.without_right]
        marks = marks if len(marks) <= MAX_NAMED else [f"{len(marks)}-marks"]
        return file_stem(store.reader, **self.choice(), marks=marks)


class ExportQuery(FilterQuery):
    """Which samples a filter keeps, and how they are written."""

    format: Literal["jsonl", "csv", "parquet", "ids"] = "jsonl"
    """`jsonl`: one object per line; `csv` and `parquet`: one column per field; `ids`: one id per line."""


@router.get(
    "/filter",
    summary="Samples that a filter keeps, streamed",
    response_class=StreamingResponse,
    responses={200: {"content": {media: {} for media in MEDIA.values()}, "description": "One sample per line."}},
)
def get_filter(store: StoreDep, query: Annotated[ExportQuery, Query()]) -> StreamingResponse:
    rows = filtered_rows(store, query)
    with http_status(422):
        body: Iterator[str] | Iterator[bytes]
        match query.format:
            case "csv":
                body = csv_of(store.reader, rows, query.by)
            case "parquet":
                body = parquet_of(store.reader, rows, query.by)
            case format:
                body = lines_of(store.reader, rows, query.by, format)
    name = f"{query.stem(store)}.{ENDINGS.get(query.format, query.format)}"
    headers = {
        "X-Total-Count": str(store.reader.n_samples),
        "X-Kept-Count": str(len(rows)),
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return StreamingResponse(body, media_type=MEDIA[query.format], headers=headers)


@router.get("/filter/preview", summary="How many samples a filter keeps, and the first of them")
def get_filter_preview(store: StoreDep, query: Annotated[FilterQuery, Query()]) -> FilterPreview:
    return preview_of(store, query, filtered_rows(store, query))


def preview_of(store: OpenStore, query: FilterQuery, rows: Array) -> FilterPreview:
    """What `GET /filter` would stream.

    Args:
        rows: int64 [K], those that the filter keeps.
    """
    choice = query.choice()
    values = store.reader.quality.score_values(choice["by"])[rows] if choice["by"] in SCORES else np.zeros(0)
    values = values[np.isfinite(values)]
    return FilterPreview(
        total=store.reader.n_samples,
        matching=int(store.reader.quality.matching(choice["flags"], choice["require"], query.within(store)).sum()),
        n_kept=len(rows),
        cut=float(values.min()) if len(values) else None,
        file=query.stem(store),
        filters={name: value for name, value in query.model_dump(exclude_none=True).items() if value != []},
        ids=[store.reader.samples.sample_id(int(row)) for row in rows[:N_PREVIEW]],
    )


def filtered_rows(store: OpenStore, query: FilterQuery) -> Array:
    """int64 [K], rising: rows that the filter keeps. Raises HTTP 422."""
    if query.by in SELECTIONS and store.reader.n_samples > MAX_SELECTED:
        raise HTTPException(422, f"{query.by} takes minutes for so many samples: use the command saevx filter.")
    with http_status(422):
        return kept_rows(store.reader, **query.choice(), within=query.within(store))


@router.get("/flags/overlap", summary="How many samples have both of two flags")
def get_overlap(
    store: StoreDep,
    flags: Annotated[
        list[str], Query(max_length=50, description="NAME:THRESHOLD of flags whose threshold is another.")
    ] = [],  # noqa: B006 - FastAPI copies it
) -> FlagOverlap:
    option_of = {name.partition(":")[0]: name for name in flag_names(flags)}
    with http_status(422):
        for option in option_of.values():
            flag_and_limit(option)
        options = [option_of.get(name, name) for name in FLAGS]
        counts = store.reader.quality.overlap(options)
        n_flagged = store.reader.n_samples - int(store.reader.quality.matching(options).sum())
    return FlagOverlap(flags=options, counts=counts, n_flagged=n_flagged)
