"""Search by words, by an image, or by both through the model."""

from __future__ import annotations

import base64
import contextlib
import io
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, File, Form, HTTPException, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from PIL import Image

from backend.api import samples as samples_api
from backend.api import search as search_api
from backend.deps import StateDep, StoreDep
from backend.live.model_worker import Reservation
from backend.live.uploads import read_upload
from backend.pages.cards import card, previews
from backend.pages.heat import Heat, HeatImage, finest, heat, patch_path
from backend.params import FormQuery
from backend.schemas.live import FeatureHit, LiveSearch
from backend.stores import OpenStore, State
from backend.templating import SampleKey, render_for
from precompute.live.search import OUTSIDE

router = APIRouter(default_response_class=HTMLResponse)

NO_RESULTS: dict[str, Any] = {"ranked": None, "words": None, "dense": [], "n_dense": 0, "heats": {}, "groups": []}
"""The parts of a search result, each empty."""
REGION_LEVEL = 5
"""Step of the colour scale in which a region is drawn."""


class SearchQuery(FormQuery):
    """What an address searches for."""

    q: str = ""
    model: bool = False
    """Whether the words go through the model."""
    sample: str = ""
    """Id of a stored sample, whose image is searched for."""
    sample_key: SampleKey = None
    """The same, as forms name it."""


@dataclass(frozen=True)
class SearchForm:
    """The same with an uploaded image, which an address cannot carry."""

    q: Annotated[str, Form()] = ""
    model: Annotated[bool, Form()] = False
    sample: Annotated[str, Form()] = ""
    sample_key: Annotated[SampleKey, Form()] = None
    image: Annotated[UploadFile | None, File()] = None


@router.get("/search")
async def search(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[SearchQuery, Query()]
) -> HTMLResponse:
    """By words, through the model if `model` is set; or by the image of `sample`."""
    return await answer(request, state, open_store, SearchForm(**query.model_dump()))


@router.post("/search")
async def search_image(
    request: Request, state: StateDep, open_store: StoreDep, form: Annotated[SearchForm, Depends()]
) -> HTMLResponse:
    """The same with an uploaded image."""
    return await answer(request, state, open_store, form)


async def answer(request: Request, state: State, open_store: OpenStore, form: SearchForm) -> HTMLResponse:
    """The page with the results of the form, or with the reason of a refusal."""
    refusal: HTTPException | None = None
    results: dict[str, Any] | None = None
    image: ImageQuery | None = None
    q, model, sample = form.q or None, form.model, form.sample or form.sample_key
    upload = form.image if form.image is not None and form.image.size else None
    try:
        if upload is not None or sample or (q and model):
            # The pass has stored all that a search by a sample without words needs.
            from_store = upload is None and sample is not None and not (q or "").strip()
            with contextlib.nullcontext() if from_store else state.live.reserve(open_store.name) as reservation:
                image = await query_image(request, state, open_store, sample, upload)
                results = await live_search(request, state, open_store, reservation, q, image)
        elif q:
            results = await run_in_threadpool(word_search, request, open_store, q)
    except HTTPException as error:  # shown on the page instead of the results
        refusal = error
    fields = {"q": q or "", "through_model": model, "sample_id": sample or "", "image": image and image.url}
    page = await run_in_threadpool(search_page, request, state, open_store, fields, results, refusal)
    page.headers.update((refusal.headers if refusal else None) or {})
    return page


def search_page(
    request: Request,
    state: State,
    open_store: OpenStore,
    fields: dict[str, Any],
    results: dict[str, Any] | None,
    refusal: HTTPException | None,
) -> HTMLResponse:
    """The page as HTML."""
    ids = [f.id for f in [*(results["ranked"] or []), *(results["words"] or [])]] if results else []
    ids += [family.features[0].id for group in (results or NO_RESULTS)["groups"] for family in group["families"]]
    return render_for(
        request,
        "search.html",
        state,
        open_store,
        section="/search",
        status=refusal.status_code if refusal else 200,
        live=state.live.status(open_store.name),
        error=str(refusal.detail) if refusal else None,
        results=results,
        outside=OUTSIDE,
        previews=previews(request, open_store, ids),
        **fields,
    )


def word_search(request: Request, open_store: OpenStore, q: str) -> dict[str, Any]:
    """Features and captions with the words."""
    hits = search_api.get_search(request, open_store, q)
    return {
        **NO_RESULTS,
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
    request: Request, state: State, open_store: OpenStore, sample: str | None, upload: UploadFile | None
) -> ImageQuery | None:
    """The uploaded image, else that of `sample`, else None."""
    if upload is not None:
        image = await read_upload(upload, state.settings)
        return ImageQuery(image.size, await run_in_threadpool(data_url, image), image, None)
    if sample is None:
        return None
    images = (await run_in_threadpool(samples_api.get_sample, request, open_store, sample, 1)).images
    if not images:
        raise HTTPException(422, f"Sample {sample!r} has no image to search with.")
    return ImageQuery((images[0].width, images[0].height), images[0].url, None, sample)


def data_url(image: Image.Image, edge: int = 160) -> str:
    """A small copy of the image inside the page: uploads are not stored, so they have no address."""
    small = image.copy()
    small.thumbnail((edge, edge))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


async def live_search(
    request: Request,
    state: State,
    open_store: OpenStore,
    reservation: Reservation | None,
    q: str | None,
    image: ImageQuery | None,
) -> dict[str, Any]:
    """Results of a search by an image, words or both through the model, each feature with its heat on the image. A
    search by a stored sample without words needs no `reservation`: the pass has stored its activations."""
    if reservation is None:
        assert image is not None and image.sample_id is not None
        reply = await search_api.stored_search(request, state, open_store, image.sample_id)
    else:
        images = [] if image is None or image.upload is None else [image.upload]
        if image is not None and image.sample_id is not None:
            images = await search_api.sample_images(open_store, image.sample_id)
        reply = await search_api.live_search(request, reservation, open_store, images, q)
    return await run_in_threadpool(live_results, request, open_store, q, image, reply)


def live_results(
    request: Request, open_store: OpenStore, q: str | None, image: ImageQuery | None, reply: dict[str, Any]
) -> dict[str, Any]:
    """The reply of the model as search.html shows it."""
    hits = search_api.as_live_search(request, open_store, reply)
    sides = [name for name, value in (("words", q), ("image", image)) if value]
    return {
        **NO_RESULTS,
        "ranked": hits.features,
        "heats": {hit.id: heat_on(hit, image) for hit in hits.features} if image else {},
        "groups": group_cards(hits, image) if image else [],
        "dense": hits.dense,
        "n_dense": hits.n_dense,
        "how": f"ranked by activation on the {' and the '.join(sides)} × specificity",
        "words": search_api.get_search(request, open_store, q).features if q else None,
        "nearest": [
            (title, [card(one, one.cosine) for one in hits.samples if one.modality == side])
            for side, title in (("image", "Nearest images"), ("text", "Nearest captions"))
            if any(one.modality == side for one in hits.samples)
        ],
        "n": len(hits.features),
    }


def group_cards(hits: LiveSearch, image: ImageQuery) -> list[dict[str, Any]]:
    """The groups as search.html shows them, each region over the query's image."""
    cards: list[dict[str, Any]] = []
    for number, group in enumerate(hits.groups, 1):
        patches = [patch for patch in group.patches if hits.views[patch.view].image == 0]
        path = "".join(patch_path(hits.views[patch.view], patch.row, patch.col) for patch in patches)
        over = HeatImage(image.url, Heat(*image.size, [(REGION_LEVEL, path)])) if path else None
        title = {"background": "Background", "place": "Tied to a place"}.get(group.kind, f"Region {number}")
        cards.append({"kind": group.kind, "title": title, "image": over, "families": group.families})
    return cards


def heat_on(hit: FeatureHit, image: ImageQuery) -> HeatImage:
    """The query's image with this feature's activations over it, in the finest view in which it fires."""
    grid = finest([grid for grid in hit.grids or [] if grid.image == 0])
    if grid is None:
        return HeatImage(image.url, None)
    top = max((value for row in grid.values for value in row), default=0.0)
    return HeatImage(image.url, heat(grid, grid.values, top=top, size=image.size))
