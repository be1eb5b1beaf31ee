"""Search by words, and by what the model sees in a picture or reads in a text."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, Response, UploadFile
from PIL import Image

from backend import query
from backend.deps import AnsweredDep, Cached, OpenStore, StateDep, StoreDep
from backend.links import Links
from backend.live import Reservation
from backend.replies import json_reply
from backend.schemas import LiveSearch, ScoredPair, WordSearch
from backend.uploads import read_upload

router = APIRouter(tags=["search"])


@router.get("/search", summary="By words: labels, promoted tokens, captions", dependencies=[Cached])
def get_search(
    request: Request,
    store: StoreDep,
    q: Annotated[str, Query(min_length=1, max_length=500)],
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> WordSearch:
    found = store.store.search_words(q, limit)
    found["samples"] = Links(request, store).all_images(found["samples"])
    return WordSearch.model_validate(found)


async def live_search(
    request: Request, place: Reservation, store: OpenStore, image: Image.Image | None, text: str | None, limit: int = 24
) -> dict[str, Any]:
    """What the model makes of a picture, words or both."""
    work = partial(query.search, store=store, text=(text or "").strip(), image=image, limit=limit)
    return await place.call(work, request)


def as_live_search(request: Request, store: OpenStore, found: dict[str, Any]) -> LiveSearch:
    samples = Links(request, store).all_images(found["samples"])
    return LiveSearch.model_validate({**found, "samples": samples})


@router.post("/search", response_model=LiveSearch, summary="By a picture, words or both, through the live model")
async def post_search(
    request: Request,
    response: Response,
    state: StateDep,
    store: StoreDep,
    answered: AnsweredDep,
    image: Annotated[UploadFile | None, File()] = None,
    text: Annotated[str | None, Form(max_length=4000)] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Features in the reply.")] = 24,
) -> Response:
    if image is None and not (text or "").strip():
        raise HTTPException(422, "Send a picture (`image`), words (`text`) or both.")
    place = answered.enter_context(state.live.reserve(store.name))
    picture = await read_upload(image, state.settings) if image is not None else None
    found = await live_search(request, place, store, picture, text, limit)
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
