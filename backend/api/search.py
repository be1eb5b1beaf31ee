"""Search by words, and by images and texts through the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, HTTPException, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from backend.deps import AnsweredDep, Cached, StateDep, StoreDep
from backend.links import Links, check_sample
from backend.live import live_answers as live_answers
from backend.live.model_worker import Reservation
from backend.live.recompute import events_if_ready, original_images
from backend.live.uploads import read_upload
from backend.replies import json_reply
from backend.schemas.live import LiveSearch, ScoredPair, WordSearch
from backend.stores import OpenStore, State

router = APIRouter(tags=["search"])


@router.get("/search", summary="Search labels, promoted tokens and captions by words", dependencies=[Cached])
def get_search(
    request: Request,
    store: StoreDep,
    q: Annotated[str, Query(min_length=1, max_length=500, description="Words to search for.")],
    limit: Annotated[int, Query(ge=1, le=200, description="Number of features and of samples.")] = 20,
) -> WordSearch:
    answer = store.store.search.words(q, limit)
    answer["samples"] = Links(request, store).all_images(answer["samples"])
    return WordSearch.model_validate(answer)


async def live_search(
    request: Request,
    reservation: Reservation,
    store: OpenStore,
    images: Sequence[Image.Image],
    text: str | None,
    limit: int = 24,
) -> dict[str, Any]:
    """Search by images, words or both through the model."""
    work = partial(live_answers.search, store=store, text=(text or "").strip(), images=images, limit=limit)
    return await reservation.call(work, request)


async def stored_search(
    request: Request, state: State, store: OpenStore, sample_id: str, limit: int = 24
) -> dict[str, Any]:
    """Search by a stored sample, from what the pass has stored. HTTP 404 if there is no such sample."""
    row = await run_in_threadpool(check_sample, store, sample_id)
    missing = [] if store.store.events.has(row) else [row]
    computed = await events_if_ready(state.live, store, missing, request)
    return await run_in_threadpool(live_answers.search_stored, store, row, computed.get(row), limit)


def as_live_search(request: Request, store: OpenStore, answer: dict[str, Any]) -> LiveSearch:
    """The reply to a search, with addresses of the images."""
    samples = Links(request, store).all_images(answer["samples"])
    return LiveSearch.model_validate({**answer, "samples": samples})


async def sample_images(store: OpenStore, sample_id: str) -> list[Image.Image]:
    """The images of a stored sample, for a search with words through the model. HTTP 404 if there is no such sample,
    422 if it has no image, 409 if the data is missing."""
    row = await run_in_threadpool(check_sample, store, sample_id)
    images = await run_in_threadpool(original_images, store, sample_id, row)
    if not images:
        raise HTTPException(422, f"Sample {sample_id!r} has no image: send the words alone, or it without words.")
    return images


@dataclass(frozen=True)
class SearchForm:
    """What is searched for: an image, a sample of the store, words, or words with one of the two."""

    image: Annotated[UploadFile | None, File()] = None
    text: Annotated[str | None, Form(max_length=4000)] = None
    sample_id: Annotated[str | None, Form(description="A sample of the store, instead of `image`.")] = None


@router.post(
    "/search",
    response_model=LiveSearch,
    summary="Search by an image, a stored sample, words or both, through the live model",
)
async def post_search(
    request: Request,
    state: StateDep,
    store: StoreDep,
    answered: AnsweredDep,
    form: Annotated[SearchForm, Depends()],
    limit: Annotated[int, Query(ge=1, le=200, description="Number of features in the reply.")] = 24,
) -> Response:
    """A search by a stored sample without words is answered from the store, even if the model is off."""
    image, text, sample_id = form.image, form.text, form.sample_id
    words = (text or "").strip()
    if sample_id is not None and image is not None:
        raise HTTPException(422, "Give `sample_id` or `image`, not both.")
    if sample_id is None and image is None and not words:
        raise HTTPException(422, "Send an image (`image`), a sample's id (`sample_id`) or words (`text`).")
    if sample_id is not None and not words:
        answer = await stored_search(request, state, store, sample_id, limit)
    else:
        reservation = answered.enter_context(state.live.reserve(store.name))
        if sample_id is not None:
            images = await sample_images(store, sample_id)
        else:
            images = [await read_upload(image, state.settings)] if image is not None else []
        answer = await live_search(request, reservation, store, images, text, limit)
    return await json_reply(partial(as_live_search, request, store, answer))


@router.post("/score", response_model=ScoredPair, summary="Scores and flags of a pair that is not in the store")
async def post_score(
    request: Request,
    state: StateDep,
    store: StoreDep,
    answered: AnsweredDep,
    text: Annotated[str, Form(max_length=20_000)],
    image: Annotated[UploadFile, File()],
) -> Response:
    reservation = answered.enter_context(state.live.reserve(store.name))
    pixels = await read_upload(image, state.settings)
    answer = await reservation.call(partial(live_answers.score, store=store, text=text, image=pixels), request)
    return await json_reply(partial(ScoredPair.model_validate, answer))
