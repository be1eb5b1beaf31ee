"""Search by words, by an image, or by both through the model."""

from __future__ import annotations

import base64
import contextlib
import io
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from PIL import Image

from backend.api import samples as samples_api
from backend.api import search as search_api
from backend.deps import OpenStore, State, StateDep, StoreDep
from backend.live.model_worker import Reservation
from backend.live.uploads import read_upload
from backend.pages.cards import card, glimpses
from backend.pages.heat import Picture, finest, heat
from backend.schemas import FeatureHit
from backend.templating import MaybeStr, SampleKey, render_for

router = APIRouter(default_response_class=HTMLResponse)

NOTHING: dict[str, Any] = {"ranked": None, "words": None, "dense": [], "n_dense": 0, "heats": {}}
"""A search result with no part filled in."""


@router.get("/search")
async def search(
    request: Request,
    state: StateDep,
    served: StoreDep,
    q: MaybeStr = None,
    model: bool = False,
    sample: MaybeStr = None,
    sample_key: SampleKey = None,
) -> HTMLResponse:
    """By words; through the model if `model` asks for it; with the picture of `sample` if that is given."""
    return await found(request, state, served, q, model, sample or sample_key, None)


@router.post("/search")
async def search_picture(
    request: Request,
    state: StateDep,
    served: StoreDep,
    q: Annotated[str, Form()] = "",
    model: Annotated[bool, Form()] = False,
    sample: Annotated[str, Form()] = "",
    sample_key: Annotated[SampleKey, Form()] = None,
    image: Annotated[UploadFile | None, File()] = None,
) -> HTMLResponse:
    """The same with a picture's bytes, which have no address."""
    upload = image if image is not None and image.size else None
    return await found(request, state, served, q or None, model, sample or sample_key, upload)


async def found(
    request: Request,
    state: StateDep,
    served: StoreDep,
    q: str | None,
    model: bool,
    sample: str | None,
    image: UploadFile | None,
) -> HTMLResponse:
    refused: HTTPException | None = None
    results: dict[str, Any] | None = None
    picture: ImageQuery | None = None
    try:
        if image is not None or sample or (q and model):
            told = image is None and sample is not None and not (q or "").strip()  # by the pass
            with contextlib.nullcontext() if told else state.live.reserve(served.name) as place:
                picture = await query_image(request, state, served, sample, image)
                results = await live_search(request, state, served, place, q, picture)
        elif q:
            results = await run_in_threadpool(word_search, request, served, q)
    except HTTPException as error:  # shown in its place on the page, not instead of it
        refused = error
    asked = {"q": q or "", "through_model": model, "sample_id": sample or "", "picture": picture and picture.url}
    page = await run_in_threadpool(search_page, request, state, served, asked, results, refused)
    page.headers.update((refused.headers if refused else None) or {})
    return page


def search_page(
    request: Request,
    state: State,
    served: OpenStore,
    asked: dict[str, Any],
    results: dict[str, Any] | None,
    refused: HTTPException | None,
) -> HTMLResponse:
    ids = [f.id for f in [*(results["ranked"] or []), *(results["words"] or [])]] if results else []
    return render_for(
        request,
        "search.html",
        state,
        served,
        section="/search",
        status=refused.status_code if refused else 200,
        live=state.live.status(served.name),
        error=str(refused.detail) if refused else None,
        results=results,
        glimpses=glimpses(request, served, ids),
        **asked,
    )


def word_search(request: Request, served: OpenStore, q: str) -> dict[str, Any]:
    """Features and captions that have the words."""
    hits = search_api.get_search(request, served, q)
    return {
        **NOTHING,
        "words": hits.features,
        "nearest": [("Captions with these words", [card(one) for one in hits.samples])],
        "n": len(hits.features),
    }


class ImageQuery(NamedTuple):
    """The image of a search: its size, an address that shows it small, and either its pixels or its sample."""

    size: tuple[int, int]
    url: str
    upload: Image.Image | None
    sample_id: str | None


async def query_image(
    request: Request, state: State, served: OpenStore, sample: str | None, upload: UploadFile | None
) -> ImageQuery | None:
    """The uploaded image, else that of `sample`, else None."""
    if upload is not None:
        image = await read_upload(upload, state.settings)
        return ImageQuery(image.size, await run_in_threadpool(data_url, image), image, None)
    if sample is None:
        return None
    images = (await run_in_threadpool(samples_api.get_sample, request, served, sample, 1)).images
    if not images:
        raise HTTPException(422, f"Sample {sample!r} has no image to search with.")
    return ImageQuery((images[0].width, images[0].height), images[0].url, None, sample)


def data_url(picture: Image.Image, edge: int = 160) -> str:
    """A small copy inside the page: an upload is kept nowhere, so it has no address to show it from."""
    small = picture.copy()
    small.thumbnail((edge, edge))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


async def live_search(
    request: Request,
    state: State,
    served: OpenStore,
    place: Reservation | None,
    q: str | None,
    image: ImageQuery | None,
) -> dict[str, Any]:
    """What the model makes of an image, words or both, each feature with its heat on the image. Of a stored sample
    without words the pass has told already: then no `place` is needed."""
    if place is None:
        assert image is not None and image.sample_id is not None
        answer = await search_api.stored_search(request, state, served, image.sample_id)
    else:
        images = [] if image is None or image.upload is None else [image.upload]
        if image is not None and image.sample_id is not None:
            images = await search_api.sample_images(served, image.sample_id)
        answer = await search_api.live_search(request, place, served, images, q)
    return await run_in_threadpool(live_results, request, served, q, image, answer)


def live_results(
    request: Request, served: OpenStore, q: str | None, image: ImageQuery | None, answer: dict[str, Any]
) -> dict[str, Any]:
    found = search_api.as_live_search(request, served, answer)
    sides = [name for name, given in (("words", q), ("image", image)) if given]
    return {
        **NOTHING,
        "ranked": found.features,
        "heats": {hit.id: heat_on(hit, image) for hit in found.features} if image else {},
        "dense": found.dense,
        "n_dense": found.n_dense,
        "how": f"strongest on the {' and the '.join(sides)}, times how few samples have them",
        "words": search_api.get_search(request, served, q).features if q else None,
        "nearest": [
            (title, [card(one, one.cosine) for one in found.samples if one.modality == side])
            for side, title in (("image", "Nearest images"), ("text", "Nearest captions"))
            if any(one.modality == side for one in found.samples)
        ],
        "n": len(found.features),
    }


def heat_on(hit: FeatureHit, image: ImageQuery) -> Picture:
    """The query's image with this feature's values over it, in the finest view where it fires."""
    grid = finest([grid for grid in hit.grids or [] if grid.image == 0])
    if grid is None:
        return Picture(image.url, None)
    top = max((value for row in grid.values for value in row), default=0.0)
    return Picture(image.url, heat(grid, grid.values, top=top, size=image.size))
