"""Features: the list, one feature, and where it fires."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from backend.deps import Cached, StateDep, StoreDep
from backend.links import Links, check_feature
from backend.live.recompute import events_if_ready
from backend.params import Cursor, FeatureId, Limit, Words, parse_numbers
from backend.replies import json_reply
from backend.schemas.common import FeatureSort, Modality, Order, Page, VerdictFilter
from backend.schemas.features import Example, Feature, FeatureDetail
from backend.stores import OpenStore
from precompute.store.events import SampleEvents

router = APIRouter(tags=["features"], dependencies=[Cached])

Bound = Annotated[float | None, Query(allow_inf_nan=False)]


@router.get("/features", summary="List of features, filtered and sorted")
def get_features(
    store: StoreDep,
    sort: Annotated[FeatureSort, Query(description="Figure to sort by.")] = "id",
    order: Order = "asc",
    verdict: Annotated[list[VerdictFilter] | None, Query(description="May be repeated.")] = None,
    min_omega: Annotated[Bound, Query(description="Minimum ω.")] = None,
    min_lift: Annotated[Bound, Query(description="Minimum lift.")] = None,
    min_pair_lift: Annotated[Bound, Query(description="Minimum pair lift.")] = None,
    min_agreement: Annotated[Bound, Query(description="Minimum agreement.")] = None,
    max_density: Annotated[Bound, Query(description="Largest density, in the modality where it is denser.")] = None,
    place: Annotated[
        str | None, Query(description="A place (`row 3`), a kind (`patch`, `row`, `column`), or `none`.", max_length=40)
    ] = None,
    family: Annotated[int | None, Query(description="Number of a family.", ge=0, le=2**31 - 1)] = None,
    q: Annotated[Words, Query(description="Words in the label or the promoted tokens.")] = None,
    has_label: Annotated[bool | None, Query(description="Only features with, or without, a label.")] = None,
    ids: Annotated[str | None, Query(description="Feature numbers, separated by commas.", max_length=6000)] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Feature]:
    page = store.store.features.list(
        sort=sort,
        order=order,
        limit=limit,
        cursor=cursor,
        verdict=verdict,
        min_omega=min_omega,
        min_lift=min_lift,
        min_pair_lift=min_pair_lift,
        min_agreement=min_agreement,
        max_density=max_density,
        place=place,
        family=family,
        q=q,
        ids=parse_numbers(ids, "ids") if ids is not None else None,
        has_label=has_label,
    )
    return Page[Feature].model_validate(page._asdict())


@router.get("/features/{feature}", summary="One feature with all its figures")
def get_feature(store: StoreDep, feature: FeatureId) -> FeatureDetail:
    check_feature(store, feature)
    return FeatureDetail.model_validate(store.store.features.get(feature))


@router.get("/features/{feature}/examples", response_model=Page[Example], summary="Where the feature fires")
async def get_examples(
    request: Request,
    response: Response,
    state: StateDep,
    store: StoreDep,
    feature: FeatureId,
    modality: Annotated[Modality | None, Query(description="Default: both.")] = None,
    band: Annotated[
        int, Query(ge=-1, le=3, description="-1: the strongest examples; 0 to 3: octaves below the highest activation.")
    ] = -1,
    limit: Annotated[int, Query(ge=1, le=200, description="Number of examples.")] = 20,
    recompute: Annotated[
        bool, Query(description="Let the live model, if it is ready, compute activations that the store does not hold.")
    ] = True,
) -> Response:
    read = partial(examples, request, store, feature, modality=modality, band=band, limit=limit)
    computed: dict[int, SampleEvents] = {}
    if recompute and store.store.events.kept_rows is not None and state.live.status(store.name).state == "ready":
        missing: list[int] = []
        await run_in_threadpool(read, missing=missing)
        computed = await events_if_ready(state.live, store, missing, request)
    return await json_reply(partial(read, computed=computed), response)


def examples(
    request: Request,
    store: OpenStore,
    feature: int,
    *,
    modality: Modality | None,
    band: int,
    limit: int,
    computed: Mapping[int, SampleEvents] | None = None,
    missing: list[int] | None = None,
) -> Page[Example]:
    """Where the feature fires.

    Args:
        computed: by row, the events of samples whose events the store does not hold.
        missing: is filled with the rows of the examples' samples whose events the store does not hold.
    """

    def compute(row: int) -> SampleEvents | None:
        if missing is not None:
            missing.append(row)
        return (computed or {}).get(row)

    check_feature(store, feature)
    items = store.store.examples.of(feature, modality=modality, band=band, limit=limit, compute=compute)
    linked = Links(request, store).all_images(items)
    return Page[Example].model_validate({"items": linked, "total": len(linked)})
