"""Search by words, and by images and texts through the model."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, Response, UploadFile
from fastapi import Query as QueryParam
from fastapi.concurrency import run_in_threadpool
from PIL import Image

from backend.deps import AnsweredDep, Cached, StoreDep, Visit, VisitDep
from backend.links import ImageLinks, check_sample
from backend.live import live_answers
from backend.live.query import Query
from backend.live.reading import read_pair
from backend.live.recompute import events_if_ready, original_pair
from backend.live.sources import check_one_source
from backend.live.uploads import read_upload, uploaded_pixels
from backend.params import QueryModel, parse_patch
from backend.replies import json_reply
from backend.schemas.live import LiveSearch, WordSearch
from backend.schemas.samples import ScoredPair
from backend.stores import OpenStore

router = APIRouter(tags=["search"])


@router.get("/search", summary="Search labels, promoted tokens and captions by words", dependencies=[Cached])
def get_search(
    request: Request,
    store: StoreDep,
    q: Annotated[str, QueryParam(min_length=1, max_length=500, description="Words to search for.")],
    limit: Annotated[int, QueryParam(ge=1, le=200, description="Number of features and of samples.")] = 20,
) -> WordSearch:
    answer = with_annotated(store, store.reader.search.words(q, limit), limit)
    answer["samples"] = ImageLinks(request, store).all_images(answer["samples"])
    return WordSearch.model_validate(answer)


def with_annotated(store: OpenStore, answer: dict[str, Any], limit: int) -> dict[str, Any]:
    """The results with the features and samples first that people wrote the words about, and all own labels."""
    book, reader, q = store.annotations, store.reader, answer["q"]
    ids = sorted(n for key in book.search("feature", q) if (n := int(key)) < reader.n_features)[:limit]
    rows = sorted(reader.selection.rows_of(book.search("sample", q)).values())[:limit]
    ids_in_answer = {f["id"] for f in answer["features"]}
    other_ids = [id for id in ids if id not in ids_in_answer]
    features = sorted([*reader.search.features(other_ids), *answer["features"]], key=lambda item: item["id"] not in ids)
    first = reader.samples.items(rows)
    new_rows = set(rows) - {item["row"] for item in answer["samples"]}
    others_shown = [item for item in answer["samples"] if item["row"] not in first]
    samples = [*(first[row] for row in rows), *others_shown]
    return {
        **answer,
        "n_features": answer["n_features"] + len(other_ids),
        "n_samples": answer["n_samples"] + len(new_rows),
        "features": [{**item, **book.list_fields("feature", item["id"])} for item in features[:limit]],
        "samples": [{**item, **book.list_fields("sample", item["sample_id"])} for item in samples[:limit]],
    }


class SearchInput(NamedTuple):
    """What a search is for: words, an image, or both."""

    words: str = ""
    upload: UploadFile | None = None
    image_hash: str | None = None
    """Of an image that the server holds."""
    sample_id: str | None = None
    """A stored sample, whose image is searched for."""


async def query_of(visit: Visit, inputs: SearchInput) -> Query:
    """The query, through the live model; a sample without words is read from what the pass has stored.

    Raises:
        HTTPException: 503 if the model is needed and not available, 404, 409, 413 or 422 for an image or a sample.
        ClientLeft: the client closed the connection.
    """
    words, _, image_hash, sample_id = inputs
    if sample_id is not None and not words:
        row = await run_in_threadpool(check_sample, visit.store, sample_id)
        rows_without_events = [] if visit.reader.events.has(row) else [row]
        events = await events_if_ready(visit, rows_without_events)
        return await run_in_threadpool(live_answers.stored_query, visit.store, row, events.get(row))
    key = (words, image_hash, sample_id)
    is_cacheable = image_hash is not None or sample_id is not None
    if is_cacheable and (query := visit.store.recomputed.queries.get(key)) is not None:
        return query
    with visit.reserve() as reservation:
        images = await input_images(visit, inputs)
        work = partial(live_answers.live_query, store=visit.store, text=words, images=images)
        query = await reservation.call(work, visit.request)
    if is_cacheable:
        visit.store.recomputed.queries.put(key, query)
    return query


async def input_images(visit: Visit, inputs: SearchInput) -> list[Image.Image]:
    """The images that the model is to read. HTTP 404 if there is no such sample or upload, 413 or 422 for an image
    that cannot be read, 422 for a sample without an image, 409 if its data is missing."""
    _, upload, image_hash, sample_id = inputs
    if upload is not None:
        return [await read_upload(upload, visit.state.settings)]
    if image_hash is not None:
        return [await run_in_threadpool(uploaded_pixels, visit.state.uploads, image_hash, visit.state.settings)]
    if sample_id is None:
        return []
    row = await run_in_threadpool(check_sample, visit.store, sample_id)
    pair = await run_in_threadpool(original_pair, visit.store, sample_id, row)
    if not pair.images:
        raise HTTPException(422, f"Sample {sample_id!r} has no image: send the words alone, or it without words.")
    return list(pair.images)


def as_live_search(request: Request, store: OpenStore, answer: dict[str, Any]) -> LiveSearch:
    """The reply to a search, with addresses of the images."""
    samples = ImageLinks(request, store).all_images(answer["samples"])
    return LiveSearch.model_validate({**answer, "samples": samples})


@dataclass(frozen=True)
class SearchForm:
    """What is searched for: an image, a sample of the store, words, or words with one of the two."""

    image: Annotated[UploadFile | None, File()] = None
    image_hash: Annotated[
        str | None, Form(max_length=64, description="`hash` of an uploaded image (`POST /images`), instead of `image`.")
    ] = None
    text: Annotated[str | None, Form(max_length=4000)] = None
    sample_id: Annotated[str | None, Form(description="A sample of the store, instead of `image`.")] = None


@router.post(
    "/search",
    response_model=LiveSearch,
    summary="Search by an image, a stored sample, words or both, through the live model",
)
async def post_search(
    visit: VisitDep,
    form: Annotated[SearchForm, Depends()],
    limit: Annotated[int, QueryParam(ge=1, le=200, description="Number of features in the reply.")] = 24,
    patch: Annotated[
        str | None, QueryParam(description="view,row,col: only features that are active on this patch are ranked.")
    ] = None,
) -> Response:
    """A search by a stored sample without words is answered from the store, even if the model is off."""
    inputs = SearchInput((form.text or "").strip(), form.image, form.image_hash, form.sample_id)
    check_one_source(*inputs[1:])
    if inputs == SearchInput():
        raise HTTPException(422, "Send an image (`image`), a sample's id (`sample_id`) or words (`text`).")
    return await live_reply(visit, inputs, limit, patch)


class LiveQuery(QueryModel):
    """A search through the live model, with the names of the page's address."""

    q: Annotated[str, QueryParam(max_length=4000)] = ""
    """Words."""
    image: Annotated[str | None, QueryParam(max_length=64)] = None
    """`hash` of an uploaded image (`POST /images`)."""
    sample: str | None = None
    """A sample of the store, instead of `image`."""
    patch: str | None = None
    """view,row,col: only features that are active on this patch are ranked."""
    limit: Annotated[int, QueryParam(ge=1, le=200)] = 24
    """Number of features in the reply."""


@router.get(
    "/search/live",
    response_model=LiveSearch,
    summary="The same by address: an uploaded image, a stored sample, words or both, through the live model",
)
async def get_live_search(visit: VisitDep, query: Annotated[LiveQuery, QueryParam()]) -> Response:
    """As `POST /search`, for what an address can name."""
    inputs = SearchInput(query.q.strip(), None, query.image or None, query.sample or None)
    if inputs.image_hash is not None and inputs.sample_id is not None:
        raise HTTPException(422, "Give one of `image` and `sample`, not both.")
    if not any(inputs):
        raise HTTPException(422, "Name an uploaded image (`image`), a sample (`sample`) or words (`q`).")
    return await live_reply(visit, inputs, query.limit, query.patch)


async def live_reply(visit: Visit, inputs: SearchInput, limit: int, patch: str | None) -> Response:
    """What the live model says of it, as JSON."""
    at = parse_patch(patch) if patch is not None else None
    query = await query_of(visit, inputs)

    def make() -> LiveSearch:
        return as_live_search(visit.request, visit.store, live_answers.search(visit.store, query, limit, at))

    return await json_reply(make)


@router.post("/score", response_model=ScoredPair, summary="Scores and flags of a pair that is not in the store")
async def post_score(
    visit: VisitDep,
    answered: AnsweredDep,
    text: Annotated[str, Form(max_length=20_000)],
    image: Annotated[UploadFile, File()],
) -> Response:
    reservation = answered.enter_context(visit.reserve())
    pixels = await read_upload(image, visit.state.settings)
    answer = await reservation.call(partial(read_pair, store=visit.store, text=text, images=[pixels]), visit.request)
    return await json_reply(partial(ScoredPair.model_validate, answer.detail))
