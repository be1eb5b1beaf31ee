"""Whole lists of features: as a file, a random one of them, by verdict, and how their figures are distributed."""

from itertools import chain
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from backend.api.features import FeatureQuery, filters_of
from backend.deps import Cached, StoreDep
from backend.schemas.common import FeatureDistribution, Page, VerdictCounts
from backend.schemas.features import Feature
from backend.stores import OpenStore
from precompute.scoring.csv_parquet import csv_parts, parquet_parts
from precompute.store.companion_files import HALLUCINATION
from precompute.store.features import LISTED
from precompute.store.schema import features
from precompute.utils.text import ascii_name

router = APIRouter(tags=["features"], dependencies=[Cached])

WRITTEN = {"own_label": "string", "tags": "string", "reviewed": "bool"}
"""Columns with what people wrote; tags with commas between them."""
MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


@router.get(
    "/features.{format}",
    summary="All features that the filters leave, as a file",
    response_class=StreamingResponse,
    responses={200: {"content": {media.partition(";")[0]: {} for media in MEDIA.values()}, "description": "A table."}},
)
def get_table(
    store: StoreDep, format: Literal["csv", "parquet"], query: Annotated[FeatureQuery, Query()]
) -> StreamingResponse:
    """Filters and order as of `GET /features`; `limit` and `cursor` mean nothing here."""
    chunks = store.reader.features.whole_list(sort=query.sort, order=query.order, **filters_of(store, query))
    all_chunks = chain([next(chunks, [])], chunks)  # a request that cannot be answered fails before the reply begins
    separation = store.reader.hallucination.separation
    full_chunks = ([(*row, separation.get(row[0]), *own_values(store, row[0])) for row in rows] for rows in all_chunks)
    types = arrow_types()
    body = csv_parts(list(types), full_chunks) if format == "csv" else parquet_parts(types, full_chunks)
    headers = {"Content-Disposition": f'attachment; filename="{ascii_name(store.name)}-features.{format}"'}
    return StreamingResponse(body, media_type=MEDIA[format], headers=headers)


@router.get("/features/distributions", summary="How the figures that filters limit are distributed")
def get_distributions(store: StoreDep) -> Page[FeatureDistribution]:
    items = store.reader.features.distributions
    return Page[FeatureDistribution].model_validate({"items": items, "total": len(items)})


@router.get("/features/verdicts", summary="How many features of each verdict the other filters leave")
def get_verdicts(store: StoreDep, query: Annotated[FeatureQuery, Query()]) -> VerdictCounts:
    """Filters and `fold` as of `GET /features`; `verdict` is ignored."""
    return VerdictCounts(verdicts=store.reader.features.verdict_counts(**filters_of(store, query)))


@router.get("/features/random", summary="A random feature of those that the filters leave")
def get_random(store: StoreDep, query: Annotated[FeatureQuery, Query()]) -> Feature:
    """Filters as of `GET /features`."""
    feature = random_feature(store, query)
    return Feature.model_validate(store.reader.features.list(ids=[feature]).items[0])


def random_feature(store: OpenStore, query: FeatureQuery) -> int:
    """Its number. Raises HTTP 404."""
    feature = store.reader.features.random(**filters_of(store, query))
    if feature is None:
        raise HTTPException(404, "No feature passes these filters: relax one.")
    return feature


def own_values(store: OpenStore, feature: int) -> tuple[str | None, str, bool]:
    """What people wrote about a feature, in the order of WRITTEN."""
    notes = store.annotations.list_fields("feature", feature)
    return notes.get("own_label"), ", ".join(notes.get("tags", ())), notes.get("reviewed", False)


def arrow_types() -> dict[str, str]:
    """Arrow's type of each column; those that no table of the store has are counts."""
    types, columns = {"INTEGER": "int64", "FLOAT": "float64", "TEXT": "string"}, features.c
    figures = {name: types[str(columns[name].type)] if name in columns else "int64" for name in LISTED}
    return figures | {HALLUCINATION: "float64"} | WRITTEN
