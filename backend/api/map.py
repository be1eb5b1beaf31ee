"""The maps of features and of samples: the store's own files, column after column, and further colours."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request, Response

from backend.api.samples import SampleQuery, check_sample_map
from backend.deps import Cached, StoreDep
from backend.links import ImageLinks, check_sample
from backend.params import Version
from backend.problems import check_modified, http_status
from backend.stores import OpenStore
from precompute.store import mapfile
from precompute.store.relations import map_colours
from precompute.store.schema import SCORES
from precompute.store.selection import area as areas

router = APIRouter(tags=["features"])

MEDIA = "application/octet-stream"
BINARY: dict[int | str, dict[str, Any]] = {
    200: {"content": {MEDIA: {}}},
    304: {"description": "The client's copy is current."},
}


Layout = Literal["decoder", "profile"]
if TYPE_CHECKING:
    SampleColour: TypeAlias = str
else:
    SampleColour = Literal[*map_colours.OF_SAMPLES]


def has_map(store: OpenStore, layout: str = "decoder") -> bool:
    """Whether the store has a map with this layout; stores of older versions have one or none."""
    return mapfile.LAYOUTS[layout] in store.manifest["files"]


def check_map(store: OpenStore, layout: str) -> None:
    """Raises HTTP 404 where the store has no such map."""
    if not has_map(store, layout):
        raise HTTPException(404, mapfile.ABSENT)


def features_in_area(store: OpenStore, area: str) -> list[int]:
    """The features inside an area of the map. HTTP 404 where the store has no map, 422 where it is no area."""
    layout = areas.layout_of(area)
    check_map(store, layout)
    with http_status(422):
        return [int(i) for i in areas.points_inside(store.reader.map_of(layout), areas.parse_area(area))]


@router.get("/map", summary="Positions of all features, as one binary file", response_class=Response, responses=BINARY)
def get_map(
    request: Request,
    store: StoreDep,
    layout: Annotated[
        Layout, Query(description="What lies together: similar decoder directions, or features that fire on the like.")
    ] = "decoder",
    v: Version = None,
) -> Response:
    check_map(store, layout)
    headers = validators(request, store, v, "map" if layout == "decoder" else f"map-{layout}")
    return Response(store.reader.read(mapfile.LAYOUTS[layout]), media_type=MEDIA, headers=headers)


@router.get(
    "/map/colours",
    summary="A byte for each feature, by which the map colours it",
    response_class=Response,
    responses=BINARY,
)
def get_map_colours(
    request: Request,
    store: StoreDep,
    by: Annotated[
        Literal["family", "agreement", "label_score", "place", "sample"],
        Query(description="What the bytes tell; docs/api.md says how."),
    ],
    sample: Annotated[str | None, Query(description="Id of a sample, for `by=sample`.", max_length=20_000)] = None,
    v: Version = None,
) -> Response:
    if by == "sample" and sample is None:
        raise HTTPException(422, "sample: give the id of the sample whose features are to be coloured.")
    row = check_sample(store, sample) if sample is not None and by == "sample" else None
    check_map(store, "decoder")
    headers = validators(request, store, v, f"map-{by}-{row}")
    return Response(map_colours.colours(store.reader, by, row).tobytes(), media_type=MEDIA, headers=headers)


@router.get(
    "/map/samples",
    tags=["samples"],
    summary="Positions of all samples, as one binary file",
    response_class=Response,
    responses=BINARY,
)
def get_sample_map(request: Request, store: StoreDep, v: Version = None) -> Response:
    check_sample_map(store)
    headers = validators(request, store, v, "sample-map")
    return Response(store.reader.read(mapfile.SAMPLES_NAME), media_type=MEDIA, headers=headers)


@router.get(
    "/map/samples/colours",
    tags=["samples"],
    summary="A byte for each sample, by which the map colours it",
    response_class=Response,
    responses=BINARY,
)
def get_sample_colours(
    request: Request,
    store: StoreDep,
    colour: Annotated[SampleColour, Query(description="What the bytes tell; docs/api.md says how.")] = "flags",
    v: Version = None,
) -> Response:
    headers = validators(request, store, v, f"samples-{colour}")
    if colour in SCORES:
        ends = store.reader.quality.score_ends(colour)
        headers |= {f"X-Value-{end}": repr(value) for end, value in zip(("Low", "High"), ends, strict=True)}
    return Response(map_colours.sample_colours(store.reader, colour).tobytes(), media_type=MEDIA, headers=headers)


@router.get(
    "/map/samples/selected",
    tags=["samples"],
    summary="A byte for each sample: 1 where it passes the filters",
    response_class=Response,
    responses=BINARY,
    dependencies=[Cached],
)
def get_selected_samples(response: Response, store: StoreDep, query: Annotated[SampleQuery, Query()]) -> Response:
    is_selected = np.zeros(store.reader.n_samples, dtype=np.uint8)
    is_selected[store.reader.selection.ordered_rows(**query.selection(store))] = 1
    return Response(is_selected.tobytes(), media_type=MEDIA, headers=dict(response.headers))


def validators(request: Request, store: OpenStore, v: str | None, name: str) -> dict[str, str]:
    """The headers of a reply that never changes. HTTP 304 where the client has it."""
    headers = {
        "ETag": f'W/"{store.content_id[:16]}-{name}"',
        "Cache-Control": ImageLinks(request, store).cache_control(v),
        "Vary": "Accept-Encoding",
    }
    check_modified(request, headers)
    return headers
