"""Features: the list, one feature, and where it fires."""

import io
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, cast

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from backend.annotations.filters import filter_of_notes
from backend.api.map import features_in_area
from backend.deps import Cached, StoreDep, VisitDep
from backend.links import ImageLinks, check_feature
from backend.live.effects import request_effect
from backend.live.recompute import events_if_ready
from backend.params import Cursor, FeatureId, Limit, QueryModel, Words, parse_numbers
from backend.replies import json_reply
from backend.schemas.common import Band, FeatureSort, Modality, Order, Page, VerdictFilter
from backend.schemas.effect import FeatureEffect
from backend.schemas.features import Example, Feature, FeatureDetail, FeatureVector
from backend.stores import OpenStore
from precompute.store.events import SampleEvents
from precompute.store.lists.filters import FeatureFilters

router = APIRouter(tags=["features"], dependencies=[Cached])

Bound = Annotated[float | None, Query(allow_inf_nan=False)]


class FeatureQuery(QueryModel):
    """Order and filters of the list of features."""

    sort: FeatureSort = "id"
    """Figure to sort by; `match`: the features of the words (`q`), in order `desc` the best first."""
    order: Order = "asc"
    verdict: list[VerdictFilter] | None = None
    """May be repeated."""
    min_agreement: Bound = None
    """Least agreement."""
    max_agreement: Bound = None
    """Largest agreement."""
    min_label_score: Bound = None
    """Least name score."""
    max_label_score: Bound = None
    """Largest name score."""
    min_pair_lift: Bound = None
    """Least pair lift."""
    max_pair_lift: Bound = None
    """Largest pair lift."""
    min_lift: Bound = None
    """Least lift of ω."""
    max_lift: Bound = None
    """Largest lift of ω."""
    min_omega: Bound = None
    """Least ω."""
    max_omega: Bound = None
    """Largest ω."""
    min_density_text: Bound = None
    """Least share of text tokens that activate it."""
    max_density_text: Bound = None
    """Largest share of text tokens that activate it."""
    min_density_image: Bound = None
    """Least share of image patches that activate it."""
    max_density_image: Bound = None
    """Largest share of image patches that activate it."""
    min_n_samples: Bound = None
    """Least number of samples."""
    max_n_samples: Bound = None
    """Largest number of samples."""
    min_place_share: Bound = None
    """Least share of its image activation in one place."""
    max_place_share: Bound = None
    """Largest share of its image activation in one place."""
    max_density: Bound = None
    """Largest density, in the modality where it is denser."""
    place: Annotated[str | None, Query(max_length=40)] = None
    """A place (`row 3`), a kind (`patch`, `row`, `column`), `any` of them, or `none`."""
    family: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    """Number of a family."""
    q: Words = None
    """Words in the label or the promoted tokens, or in what people wrote: their label, note or tags."""
    has_label: bool | None = None
    """Only features with, or without, an automatic label."""
    tag: Annotated[str | None, Query(max_length=60)] = None
    """Only features that people gave this tag."""
    reviewed: bool | None = None
    """Only features that a person has reviewed, or that nobody has."""
    fold: Literal["families", "names"] | None = None
    """One line for each family, or for each family and each first word of a name that passes its test: the strongest
    of those that match."""
    ids: Annotated[str | None, Query(max_length=6000)] = None
    """Feature numbers, separated by commas."""
    area: Annotated[str | None, Query(max_length=3000)] = None
    """Corners of an area of the map, `x-y_x-y_x-y`, in the units of `map.bin`: the features inside."""
    limit: Limit = 50
    cursor: Cursor = None


@router.get("/features", summary="List of features, filtered and sorted")
def get_features(store: StoreDep, query: Annotated[FeatureQuery, Query()]) -> Page[Feature]:
    page = store.reader.features.list(
        sort=query.sort, order=query.order, limit=query.limit, cursor=query.cursor, **filters_of(store, query)
    )
    items = [{**item, **store.annotations.list_fields("feature", item["id"])} for item in page.items]
    return Page[Feature].model_validate({**page._asdict(), "items": items})


def features_of_words(store: OpenStore, words: str, limit: int) -> list[Feature]:
    """The features that words, or a number such as `#12`, can mean, the best match first."""
    number = number_of(words)
    if number is not None:
        return get_features(store, FeatureQuery(ids=str(number))).items
    return get_features(store, FeatureQuery(q=words, sort="match", order="desc", limit=limit)).items


def number_of(words: str) -> int | None:
    """What `4167` or `#4167` names; None where it is no number of a feature."""
    text = words.strip().removeprefix("#")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def filters_of(store: OpenStore, query: FeatureQuery) -> FeatureFilters:
    """The filters alone, as the store takes them."""
    ids = None if query.ids is None else parse_numbers(query.ids, "ids")
    if query.area is not None:
        ids_in_area = features_in_area(store, query.area)
        ids = ids_in_area if ids is None else sorted(set(ids) & set(ids_in_area))
    filters: dict[str, Any] = {name: getattr(query, name, None) for name in FeatureFilters.__annotations__}
    note_filter = filter_of_notes(
        store.annotations, store.reader, "feature", tag=query.tag, reviewed=query.reviewed, q=query.q
    )
    return cast(FeatureFilters, {**filters, "ids": ids, "marked": note_filter})


@router.get("/features/{feature}", summary="One feature with all its figures")
def get_feature(store: StoreDep, feature: FeatureId) -> FeatureDetail:
    check_feature(store, feature)
    reader = store.reader
    item = {**reader.features.get(feature), **store.annotations.list_fields("feature", feature)}
    return FeatureDetail.model_validate({**item, "words": reader.top_words.of(feature)})


@router.get(
    "/features/{feature}/vector",
    response_model=FeatureVector,
    summary="The feature's decoder direction",
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def get_vector(
    response: Response,
    store: StoreDep,
    feature: FeatureId,
    format: Annotated[
        Literal["json", "npy"], Query(description="npy: a NumPy file, float32 [2, d], of the raw and the centred one.")
    ] = "json",
) -> Response | FeatureVector:
    check_feature(store, feature)
    vector, centred_vector = store.reader.directions.get(feature)
    if format == "json":
        item = store.reader.features.list(ids=[feature]).items[0]
        return FeatureVector(
            id=feature,
            length=float(np.linalg.norm(vector)),
            mean_cosine=item["mean_cosine"],
            raw=vector.tolist(),
            centred=centred_vector.tolist(),
        )
    file = io.BytesIO()
    np.save(file, np.stack([vector, centred_vector]))
    name = f'attachment; filename="feature-{feature}.npy"'
    headers = {**dict(response.headers), "Content-Disposition": name}
    return Response(file.getvalue(), media_type="application/octet-stream", headers=headers)


class ExampleQuery(QueryModel):
    modality: Modality | None = None
    """Default: both."""
    band: Band = "-1"
    """-1: the strongest examples; 0 to 3: octaves below the highest activation; counter: captions with a word of the
    label where the feature is off, and strong examples without one."""
    limit: Annotated[int, Query(ge=1, le=200)] = 20
    """Number of examples; of counter-examples, for each kind and modality."""
    recompute: bool = True
    """Let the live model, if it is ready, compute activations that the store does not hold."""


@router.get("/features/{feature}/examples", response_model=Page[Example], summary="Where the feature fires")
async def get_examples(
    visit: VisitDep,
    response: Response,
    feature: FeatureId,
    query: Annotated[ExampleQuery, Query()],
) -> Response:
    def read(**options: Any) -> Page[Example]:
        items = example_items(visit.request, visit.store, feature, query, **options)
        return Page[Example].model_validate({"items": items, "total": len(items)})

    events_of: dict[int, SampleEvents] = {}
    if query.recompute and visit.reader.events.kept_rows is not None and visit.model.state == "ready":
        rows_without_events: list[int] = []
        await run_in_threadpool(read, rows_without_events=rows_without_events)
        events_of = await events_if_ready(visit, rows_without_events)
    return await json_reply(partial(read, events_of=events_of), response)


def example_items(
    request: Request,
    store: OpenStore,
    feature: int,
    query: ExampleQuery,
    *,
    events_of: Mapping[int, SampleEvents] | None = None,
    rows_without_events: list[int] | None = None,
) -> list[dict[str, Any]]:
    """The fields of `Example` of each.

    Args:
        events_of: by row, the events of samples whose events the store does not hold.
        rows_without_events: is filled with the rows of the examples' samples whose events the store does not hold.
    """

    def compute(row: int) -> SampleEvents | None:
        if rows_without_events is not None:
            rows_without_events.append(row)
        return (events_of or {}).get(row)

    check_feature(store, feature)
    if query.band == "counter":
        items = store.reader.counterexamples.of(feature, modality=query.modality, limit=query.limit, compute=compute)
    else:
        items = store.reader.examples.of(
            feature, modality=query.modality, band=int(query.band), limit=query.limit, compute=compute
        )
    return ImageLinks(request, store).all_images(items)


@router.get(
    "/features/{feature}/effect",
    response_model=FeatureEffect,
    summary="What ablating the feature where it fires does to the next tokens, through the live model",
)
async def get_effect(visit: VisitDep, response: Response, feature: FeatureId) -> Response:
    check_feature(visit.store, feature)
    effect = await request_effect(visit, feature)
    return await json_reply(lambda: effect, response)
