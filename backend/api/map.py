"""The map of features: the store's own file, column after column."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response

from backend.api.samples import IMMUTABLE
from backend.deps import StoreDep
from backend.links import Links
from backend.problems import NotModified
from backend.stores import OpenStore
from precompute.store import mapfile

router = APIRouter(tags=["features"])

MEDIA = "application/octet-stream"


def has_map(store: OpenStore) -> bool:
    """Whether the store has a map; stores of older versions have none."""
    return mapfile.NAME in store.manifest["files"]


@router.get(
    "/map",
    summary="Positions of all features, as one binary file",
    response_class=Response,
    responses={200: {"content": {MEDIA: {}}}, 304: {"description": "The client's copy is current."}},
)
def get_map(
    request: Request,
    store: StoreDep,
    v: Annotated[
        str | None, Query(description="Content id: an address with it may be cached for ever.", max_length=80)
    ] = None,
) -> Response:
    if not has_map(store):
        raise HTTPException(404, mapfile.ABSENT)
    etag = f'W/"{store.content_id[:16]}-map"'
    is_immutable = v == Links(request, store).version
    headers = {"ETag": etag, "Cache-Control": IMMUTABLE if is_immutable else "no-cache", "Vary": "Accept-Encoding"}
    if etag in request.headers.get("if-none-match", ""):
        raise NotModified(headers)
    return Response(store.store.read(mapfile.NAME), media_type=MEDIA, headers=headers)
