"""Samples: the list, one pair, what fires in it and where, and its images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from PIL import Image
from pydantic import BaseModel

from backend.annotations.filters import filter_of_notes
from backend.deps import Cached, StoreDep, Visit, VisitDep
from backend.links import ImageLinks, InPath, add_sample_route, check_feature, check_sample
from backend.live.recompute import with_events
from backend.params import Cursor, Limit, QueryModel, Version, Words, parse_box, parse_numbers, parse_patch, split_names
from backend.problems import MEDIA_TYPE, check_modified, http_status
from backend.replies import as_json, render_webp
from backend.schemas.common import FlagName, Order, Page, Problem, SampleSort, ScoreName
from backend.schemas.samples import Activations, FeaturesHere, Sample, SampleDetail
from backend.stores import OpenStore
from precompute.store.events import EventsNotStored, SampleEvents
from precompute.store.lists.marked import Marked
from precompute.store.mapfile import NO_SAMPLES, SAMPLES_NAME
from precompute.store.selection.area import parse_area
from precompute.store.selection.filters import Side
from precompute.store.sql import Page as StorePage

router = APIRouter(tags=["samples"])

NO_EVENTS = "The store has no activations of this sample, and the live model is not available."
OF_EVENTS: dict[str, Any] = {
    "dependencies": [Cached],
    "responses": {503: {"model": Problem, "content": {MEDIA_TYPE: {}}, "description": NO_EVENTS}},
}
"""Options of a route that needs a sample's activations."""
ADVICE = "check the store with `saevx verify`"


at_sample = partial(add_sample_route, router)


class SampleQuery(QueryModel):
    """Order and filters of the list of samples."""

    flag: FlagName | None = None
    """Only samples above the threshold of this flag."""
    threshold: Annotated[float | None, Query(allow_inf_nan=False)] = None
    """Threshold to use instead of the flag's own."""
    flags: Annotated[list[str], Query(max_length=50)] = []  # noqa: RUF012 - pydantic copies it
    """Only samples that have these flags: names, repeated or separated by commas; NAME:0.4 sets another threshold."""
    match: Literal["any", "all"] | None = None
    """Whether one of `flags` is enough, or all are needed, which is the default."""
    q: Words = None
    """Words in the text, or in what people wrote about the sample: label, note or tags."""
    tag: Annotated[str | None, Query(max_length=60)] = None
    """Only samples that people gave this tag."""
    reviewed: bool | None = None
    """Only samples that a person has reviewed, or that nobody has."""
    feature: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    """Only samples on which this feature is on: its largest activation is a tenth of its p99.9 or more. Where
    the store does not hold all activations, or more than 50 million, it must also be among the 256 strongest features
    of that side of a sample."""
    side: Side | None = None
    """Where the feature is on; without it, on the image, whatever it does in the text."""
    by: ScoreName | None = None
    """The score of `min_score` and `max_score`."""
    min_score: Annotated[float | None, Query(allow_inf_nan=False)] = None
    max_score: Annotated[float | None, Query(allow_inf_nan=False)] = None
    min_length: Annotated[int | None, Query(ge=0)] = None
    """Tokens of the text."""
    max_length: Annotated[int | None, Query(ge=0)] = None
    area: Annotated[str | None, Query(max_length=3000)] = None
    """Corners of an area of the map of samples, `x-y_x-y_x-y`, in the units of `sample_map.bin`: the samples inside."""
    sort: SampleSort = "row"
    """`row`, a score or a flag."""
    order: Order = "asc"
    limit: Limit = 50
    cursor: Cursor = None

    def selection(self, store: OpenStore) -> dict[str, Any]:
        """The filters as `store.selection` takes them. HTTP 404 for an area where the store has no map of samples, 422
        for one that is none."""
        if self.area is not None:
            check_sample_map(store)
            with http_status(422):
                parse_area(self.area)
        flag = self.flag if self.flag is None or self.threshold is None else f"{self.flag}:{self.threshold!r}"
        order = {"sort", "order", "limit", "cursor"}
        of_others = type(self).model_fields.keys() - SampleQuery.model_fields.keys()
        excluded_names = {*order, "threshold", "tag", "reviewed", *of_others}
        changes = {"flags": split_names(self.flags) or None, "flag": flag, "marked": self.marks_of_notes(store)}
        return self.model_dump(exclude=excluded_names, exclude_none=True) | changes

    def marks_of_notes(self, store: OpenStore) -> Marked | None:
        """Which samples by what people wrote about them."""
        return filter_of_notes(
            store.annotations, store.reader, "sample", tag=self.tag, reviewed=self.reviewed, q=self.q
        )

    def filters(self) -> dict[str, Any]:
        """The filters alone, as parameters of an address."""
        ignored_names = {"sort", "order", "limit", "cursor"} | ({"side"} if self.feature is None else set())
        return self.model_dump(include=SampleQuery.model_fields.keys() - ignored_names, exclude_defaults=True)

    def is_plain(self) -> bool:
        """Whether `store.samples` answers at once from an index: with more than one flag the database would look up
        every sample of one of them."""
        limits = (self.feature, self.min_score, self.max_score, self.min_length, self.max_length, self.area)
        one_flag = len(split_names(self.flags)) + (self.flag is not None) < 2
        return one_flag and limits == (None,) * len(limits)


class RowsQuery(SampleQuery):
    """The list of samples, or some of them by their rows."""

    rows: Annotated[str | None, Query(max_length=6000)] = None
    """Row numbers, separated by commas: these samples, whatever the filters say."""


def has_sample_map(store: OpenStore) -> bool:
    """Whether the store has a map of samples; stores of older versions have none."""
    return SAMPLES_NAME in store.manifest["files"]


def check_sample_map(store: OpenStore) -> None:
    """Raises HTTP 404 where the store has no map of samples."""
    if not has_sample_map(store):
        raise HTTPException(404, NO_SAMPLES)


def list_samples(store: OpenStore, query: SampleQuery) -> StorePage:
    """One page of the list."""
    if query.feature is not None:
        check_feature(store, query.feature)
    samples, selection = store.reader.samples, store.reader.selection
    order: dict[str, Any] = {name: getattr(query, name) for name in ("sort", "order", "limit", "cursor")}
    if not query.is_plain():
        return selection.list(**order, **query.selection(store))
    filters: dict[str, Any] = {name: getattr(query, name) for name in ("flag", "threshold", "q")}
    return samples.list(**order, **filters, flags=split_names(query.flags), marked=query.marks_of_notes(store))


def samples_in(store: OpenStore, rows: list[int]) -> StorePage:
    """The samples of these rows, in this order, without those that the store does not have."""
    items = store.reader.samples.items(dict.fromkeys(row for row in rows if row < store.reader.n_samples))
    return StorePage([items[row] for row in dict.fromkeys(rows) if row in items], len(items), None)


@router.get("/samples", summary="List of samples", dependencies=[Cached])
def get_samples_or_rows(request: Request, store: StoreDep, query: Annotated[RowsQuery, Query()]) -> Page[Sample]:
    if query.rows is None:
        return get_samples(request, store, query)
    return as_page(request, store, samples_in(store, parse_numbers(query.rows, "rows")))


def get_samples(request: Request, store: OpenStore, query: SampleQuery) -> Page[Sample]:
    """One page of the list, as the API gives it."""
    return as_page(request, store, list_samples(store, query))


def as_page(request: Request, store: OpenStore, page: StorePage) -> Page[Sample]:
    """Samples with the addresses of their images and what people wrote about them."""
    items = [
        {**item, **store.annotations.list_fields("sample", item["sample_id"])}
        for item in ImageLinks(request, store).all_images(page.items)
    ]
    return Page[Sample].model_validate({"items": items, "total": page.total, "next": page.next})


async def events_reply(
    visit: Visit, headers: Response, sample_id: str, make: Callable[[SampleEvents | None], BaseModel]
) -> Response:
    """What `make` makes of a sample's events, as JSON: those of the store, or else those of the live model."""
    return await with_events(visit, sample_id, lambda events: as_json(make(events), headers))


ChosenFeatures = Annotated[
    list[int], Query(min_length=1, max_length=64, description="Feature number; may be repeated.")
]


@at_sample("/activations", "Activations of features on every token and patch", response_model=Activations, **OF_EVENTS)
async def get_activations(visit: VisitDep, response: Response, sample_id: InPath, feature: ChosenFeatures) -> Response:
    return await events_reply(visit, response, sample_id, partial(activations, visit.store, sample_id, feature))


def activations(store: OpenStore, sample_id: str, features: list[int], live_events: SampleEvents | None) -> Activations:
    """Activations on every token and patch.

    Raises:
        EventsNotStored: the events are neither in the store nor `live_events`.
    """
    row = check_sample(store, sample_id)
    for feature in features:
        check_feature(store, feature)
    events = (live_events or store.recomputed.missing_events(row)) if features else None
    return Activations.model_validate(store.reader.samples.activations(sample_id, features, events))


@dataclass(frozen=True)
class PlaceQuery:
    """A token or a patch of a sample, and the page of the list of what fires there."""

    position: Annotated[int | None, Query(ge=0, le=2**31, description="Place in the sample's token list.")] = None
    patch: Annotated[str | None, Query(description="view,row,col", max_length=40)] = None
    limit: Limit = 50
    cursor: Cursor = None


@at_sample("/features", "Features active at one token or patch", response_model=FeaturesHere, **OF_EVENTS)
async def get_features_here(
    visit: VisitDep, response: Response, sample_id: InPath, query: Annotated[PlaceQuery, Depends()]
) -> Response:
    return await events_reply(visit, response, sample_id, partial(features_here, visit.store, sample_id, query))


def features_here(
    store: OpenStore, sample_id: str, query: PlaceQuery, live_events: SampleEvents | None
) -> FeaturesHere:
    """Features active at one place. Raises EventsNotStored if the events are not in the store or `live_events`."""
    row = check_sample(store, sample_id)
    if (query.position is None) == (query.patch is None):
        raise HTTPException(422, "Give one place: `position`, or `patch` as view,row,col.")
    at = parse_patch(query.patch) if query.patch is not None else None
    read_page = partial(store.reader.samples.features_at, sample_id, position=query.position, patch=at)
    events: SampleEvents | None = None
    try:
        with http_status(404):
            read_page(limit=1)
    except EventsNotStored:  # the place exists, but the store has no activations there
        events = live_events or store.recomputed.missing_events(row)
        if events is None:
            raise
    return FeaturesHere.model_validate(read_page(limit=query.limit, cursor=query.cursor, computed=events))


@dataclass(frozen=True)
class ImageQuery:
    """Which image of a sample, and how it is cut and made smaller."""

    image: Annotated[int, Query(ge=0, le=10_000, description="Number of the image within the sample.")] = 0
    size: Annotated[int | None, Query(ge=8, le=2048, description="Longer edge in pixels.")] = None
    crop: Annotated[str | None, Query(description="x0,y0,x1,y1 in pixels of the original image.", max_length=100)] = (
        None
    )
    v: Version = None


@at_sample(
    "/image",
    "Image of a sample, as WebP",
    response_class=Response,
    responses={200: {"content": {"image/webp": {}}}, 304: {"description": "The client's copy is current."}},
)
def get_image(
    request: Request, store: StoreDep, sample_id: InPath, query: Annotated[ImageQuery, Depends()]
) -> Response:
    image, size = query.image, query.size
    box = parse_box(query.crop) if query.crop is not None else None
    shape = "full" if box is None else "x".join(f"{edge:g}" for edge in box)
    headers = {
        "ETag": f'"{store.content_id[:16]}-{image}-{size or 0}-{shape}"',
        "Cache-Control": ImageLinks(request, store).cache_control(query.v),
    }
    matches = store.reader.samples.list(ids=[sample_id], limit=1).items
    if not matches:
        raise HTTPException(404, f"There is no sample {sample_id!r} in this store.")
    check_modified(request, headers)
    images = matches[0]["images"]
    if image >= len(images):
        raise HTTPException(404, f"Sample {sample_id!r} has {len(images)} images, counted from 0.")
    path = store.reader.samples.image_path(sample_id, image)
    try:
        if size is None and box is None:
            data = path.read_bytes()
        else:
            image_info = images[image]
            data = cached_webp(store.content_id, path, (image_info["width"], image_info["height"]), size, box)
    except FileNotFoundError as error:
        raise HTTPException(404, f"The image of sample {sample_id!r} is not in the store.") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise HTTPException(503, f"The image of sample {sample_id!r} in the store is damaged: {ADVICE}.") from error
    if not store.is_current():  # it may be an image of the store that replaced it
        raise HTTPException(503, "The store was replaced while the image was read: try again.", {"Retry-After": "1"})
    return Response(data, media_type="image/webp", headers=headers)


# Ids may contain slashes, so the longer paths are registered before this one.
@at_sample("", "One pair with its scores, flags and strongest features", dependencies=[Cached])
def get_sample(
    request: Request,
    store: StoreDep,
    sample_id: InPath,
    top: Annotated[int, Query(ge=1, le=256, description="Number of features per modality.")] = 24,
) -> SampleDetail:
    check_sample(store, sample_id)
    item = {**store.reader.samples.get(sample_id, top), **store.annotations.list_fields("sample", sample_id)}
    return SampleDetail.model_validate(ImageLinks(request, store).images(item))


@lru_cache(maxsize=512)
def cached_webp(
    content_id: str,
    path: Path,
    original: tuple[int, int],
    size: int | None,
    box: tuple[float, float, float, float] | None,
) -> bytes:
    """`content_id` is part of the key, because another store may replace this one at the same path."""
    return render_webp(path, original, size, box)
