"""Search by words, and by what the model sees in a picture or reads in a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from backend.deps import AnsweredDep, Cached, OpenStore, State, StateDep, StoreDep
from backend.links import Links, check_sample
from backend.live import live_answers as query
from backend.live.model_worker import Reservation
from backend.live.recompute import events_if_ready, original_images
from backend.live.uploads import read_upload
from backend.replies import json_reply
from backend.schemas import LiveSearch, ScoredPair, WordSearch

router = APIRouter(tags=["search"])


@router.get("/search", summary="By words: labels, promoted tokens, captions", dependencies=[Cached])
def get_search(
    request: Request,
    store: StoreDep,
    q: Annotated[str, Query(min_length=1, max_length=500)],
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> WordSearch:
    found = store.store.search.words(q, limit)
    found["samples"] = Links(request, store).all_images(found["samples"])
    return WordSearch.model_validate(found)


async def live_search(
    request: Request,
    place: Reservation,
    store: OpenStore,
    images: Sequence[Image.Image],
    text: str | None,
    limit: int = 24,
) -> dict[str, Any]:
    """What the model makes of images, words or both."""
    work = partial(query.search, store=store, text=(text or "").strip(), images=images, limit=limit)
    return await place.call(work, request)


async def stored_search(
    request: Request, state: State, store: OpenStore, sample_id: str, limit: int = 24
) -> dict[str, Any]:
    """What the pass has stored of a sample, as a query. HTTP 404 where there is none."""
    row = await run_in_threadpool(check_sample, store, sample_id)
    missing = [] if store.store.events.has(row) else [row]
    computed = await events_if_ready(state.live, store, missing, request)
    return await run_in_threadpool(query.search_stored, store, row, computed.get(row), limit)


def as_live_search(request: Request, store: OpenStore, found: dict[str, Any]) -> LiveSearch:
    samples = Links(request, store).all_images(found["samples"])
    return LiveSearch.model_validate({**found, "samples": samples})


async def sample_images(store: OpenStore, sample_id: str) -> list[Image.Image]:
    """The images of a stored sample, to be shown to the model with words beside them. HTTP 404 where there is no such
    sample, 422 where it has no image, 409 where the data is gone."""
    row = await run_in_threadpool(check_sample, store, sample_id)
    images = await run_in_threadpool(original_images, store, sample_id, row)
    if not images:
        raise HTTPException(422, f"Sample {sample_id!r} has no image to search with: leave the words out.")
    return images


@router.post(
    "/search",
    response_model=LiveSearch,
    summary="By an image, a stored sample, words or both, through the live model",
)
async def post_search(
    request: Request,
    response: Response,
    state: StateDep,
    store: StoreDep,
    answered: AnsweredDep,
    image: Annotated[UploadFile | None, File()] = None,
    text: Annotated[str | None, Form(max_length=4000)] = None,
    sample_id: Annotated[str | None, Form(description="In place of `image`: a sample of the store.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Features in the reply.")] = 24,
) -> Response:
    """A stored sample without words is answered from the store, also where the model is off."""
    words = (text or "").strip()
    if sample_id is not None and image is not None:
        raise HTTPException(422, "Give `sample_id` or `image`, not both.")
    if sample_id is None and image is None and not words:
        raise HTTPException(422, "Send an image (`image`), a sample's id (`sample_id`), or words (`text`).")
    if sample_id is not None and not words:
        found = await stored_search(request, state, store, sample_id, limit)
    else:
        place = answered.enter_context(state.live.reserve(store.name))
        if sample_id is not None:
            images = await sample_images(store, sample_id)
        else:
            images = [await read_upload(image, state.settings)] if image is not None else []
        found = await live_search(request, place, store, images, text, limit)
    return await json_reply(partial(as_live_search, request, store, found), response)


@router.post("/score", response_model=ScoredPair, summary="All scores and flags of a pair that is not in the store")
async def post_score(
    request: Request,
    response: Response,
    state: StateDep,
    store: StoreDep,
    answered: AnsweredDep,
    text: Annotated[str, Form(max_length=20_000)],
    image: Annotated[UploadFile, File()],
) -> Response:
    place = answered.enter_context(state.live.reserve(store.name))
    picture = await read_upload(image, state.settings)
    found = await place.call(partial(query.score, store=store, text=text, image=picture), request)
    return await json_reply(partial(ScoredPair.model_validate, found), response)
