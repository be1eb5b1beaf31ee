"""Search by words, and by what the model sees in a picture or reads in a text."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, File, Form, HTTPException, Query, Request, UploadFile
from PIL import Image

from backend import query
from backend.deps import Cached, OpenStore, State, StateDep, StoreDep
from backend.links import Links
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
    request: Request,
    state: State,
    store: OpenStore,
    image: Image.Image | None,
    text: str | None,
    limit: int = 24,
) -> LiveSearch:
    """What the model makes of a picture, words or both. HTTP 422 without either, 503 while it rests."""
    words = (text or "").strip()
    if image is None and not words:
        raise HTTPException(422, "Send a picture (`image`), words (`text`) or both.")
    work = partial(query.search, store=store, text=words, image=image, limit=limit)
    found = await state.live.call(store.name, work)
    found["samples"] = Links(request, store).all_images(found["samples"])
    return LiveSearch.model_validate(found)


@router.post("/search", summary="By a picture, words or both, through the live model")
async def post_search(
    request: Request,
    state: StateDep,
    store: StoreDep,
    image: Annotated[UploadFile | None, File()] = None,
    text: Annotated[str | None, Form(max_length=4000)] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Features in the reply.")] = 24,
) -> LiveSearch:
    picture = await read_upload(image, state.settings) if image is not None else None
    return await live_search(request, state, store, picture, text, limit)


@router.post("/score", summary="All scores and flags of a pair that is not in the store")
async def post_score(
    state: StateDep,
    store: StoreDep,
    text: Annotated[str, Form(max_length=20_000)],
    image: Annotated[UploadFile, File()],
) -> ScoredPair:
    state.live.admit(store.name)
    picture = await read_upload(image, state.settings)
    work = partial(query.score, store=store, text=text, image=picture)
    return ScoredPair.model_validate(await state.live.call(store.name, work))
