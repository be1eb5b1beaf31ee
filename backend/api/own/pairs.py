"""A visitor's own pair, read by the live model: what the endpoints of a sample say of a stored one."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import AfterValidator, BaseModel

from backend.deps import Visit, VisitDep
from backend.links import ImageLinks, check_feature, uploaded_image
from backend.live.live_answers import nearest
from backend.live.query import OwnPair, Reading
from backend.live.reading import read_own
from backend.params import Cursor, FormQuery, Limit, parse_patch
from backend.problems import http_status
from backend.replies import json_reply
from backend.schemas.common import ScoreName
from backend.schemas.live import TriedPair
from backend.schemas.samples import PairActivations, PairFeaturesHere, PairWhy
from backend.stores import OpenStore
from precompute.errors import PairError
from precompute.scoring.why import why_pair
from precompute.store.places import Window

router = APIRouter(tags=["try"])

NAME = "The pair"
"""What messages call it."""
MAX_TEXT = 4000
Result = Reading | HTTPException | None
"""What the model read, or why it did not; None without a pair."""


def plain_text(text: str) -> str:
    """A text as one types it: forms send line breaks as two characters, and blanks alone are none."""
    return text.replace("\r\n", "\n") if text.strip() else ""


OwnText = Annotated[str, Query(max_length=MAX_TEXT), AfterValidator(plain_text)]


class OwnQuery(FormQuery):
    """A pair as addresses name it."""

    image: Annotated[str | None, Query(max_length=64)] = None
    """`hash` of an uploaded image (`POST /images`)."""
    text: OwnText = ""
    """Its caption, or words alone."""

    def own_pair(self) -> OwnPair:
        return OwnPair(self.text, self.image)


class OwnFeatures(OwnQuery):
    """Features on the pair."""

    feature: Annotated[list[int], Query(min_length=1, max_length=64)]
    """Feature number; may be repeated."""


class OwnPlace(OwnQuery):
    """A token or a patch of the pair."""

    position: Annotated[int | None, Query(ge=0, le=2**31)] = None
    """Place in the pair's token list."""
    patch: Annotated[str | None, Query(max_length=40)] = None
    """view,row,col"""
    limit: Limit = 50
    cursor: Cursor = None


class OwnScore(OwnQuery):
    """A score of the pair, and how much of its reasons."""

    score: ScoreName = "pooled-cosine"
    limit: Annotated[int, Query(ge=1, le=500)] = 12


async def own_reply(visit: Visit, query: OwnQuery, make: Callable[[Reading], BaseModel]) -> Response:
    """What `make` makes of the pair as the model reads it, as JSON. Raises as `read_own`; HTTP 422 for neither text nor
    image."""
    pair = query.own_pair()
    if not any(pair):
        wish = "Name an uploaded image (`image`), give a text (`text`), or both."
        raise HTTPException(422, wish if visit.store.has_images else "Give a text (`text`).")
    return await json_reply(partial(make, await read_own(visit, pair)))


async def read_or_refuse(visit: Visit, pair: OwnPair) -> Result:
    """Read the pair. Raises ClientLeft: the client closed the connection while it waited."""
    try:
        return await read_own(visit, pair) if any(pair) else None
    except HTTPException as refusal:
        return refusal
    except PairError as error:
        return HTTPException(422, str(error))


def tried_pair(request: Request, store: OpenStore, pair: OwnPair, reading: Reading) -> TriedPair:
    """The reply, with addresses of the images."""
    image = own_image(request, pair, reading)
    samples = ImageLinks(request, store).all_images(nearest(store.reader, reading.query))
    own_parts = {"images": [image] if image else [], "unread": reading.unread, "samples": samples}
    return TriedPair.model_validate({**reading.detail, **own_parts})


def own_image(request: Request, pair: OwnPair, reading: Reading) -> dict[str, Any] | None:
    """As `schemas.live.OwnImageRef`."""
    if pair.image is None or reading.size is None:
        return None
    return uploaded_image(request, pair.image, reading.size)


def own_activations(store: OpenStore, reading: Reading, features: list[int]) -> PairActivations:
    """Raises HTTPException: 404 for a feature that the store does not have."""
    for feature in features:
        check_feature(store, feature)
    values = store.reader.places.activations(reading.events, reading.query.views, features)
    return PairActivations.model_validate(values)


def own_features_at(store: OpenStore, reading: Reading, place: OwnPlace) -> PairFeaturesHere:
    """Raises HTTPException: 422 without one place, 404 for one that the pair does not have."""
    if (place.position is None) == (place.patch is None):
        raise HTTPException(422, "Give one place: `position`, or `patch` as view,row,col.")
    places, events = store.reader.places, reading.events
    with http_status(404):
        position = place.position or 0
        if place.patch is not None:
            position = places.position(events, reading.pair, parse_patch(place.patch), NAME)
        window = Window(place.limit, place.cursor)
        return PairFeaturesHere.model_validate(places.features_at(events, reading.pair, position, window, NAME))


def own_why(store: OpenStore, reading: Reading, name: ScoreName, limit: int) -> PairWhy:
    """Raises HTTPException: 422 for a score that is not made of features."""
    with http_status(422):
        parts = why_pair(store.reader, reading.events, name, limit)
    return PairWhy.model_validate({**parts, "value": reading.detail["scores"][name]})


@router.get(
    "/try", response_model=TriedPair, summary="One's own image, text or both as a sample, through the live model"
)
async def get_try(visit: VisitDep, query: Annotated[OwnQuery, Query()]) -> Response:
    return await own_reply(visit, query, partial(tried_pair, visit.request, visit.store, query.own_pair()))


@router.get(
    "/try/activations",
    response_model=PairActivations,
    summary="Activations of features on every token and patch of one's own pair",
)
async def get_own_activations(visit: VisitDep, query: Annotated[OwnFeatures, Query()]) -> Response:
    return await own_reply(visit, query, lambda reading: own_activations(visit.store, reading, query.feature))


@router.get(
    "/try/features",
    response_model=PairFeaturesHere,
    summary="Features active at one token or patch of one's own pair",
)
async def get_own_features(visit: VisitDep, query: Annotated[OwnPlace, Query()]) -> Response:
    return await own_reply(visit, query, lambda reading: own_features_at(visit.store, reading, query))


@router.get("/try/why", response_model=PairWhy, summary="Which features raise and lower a score of one's own pair")
async def get_own_why(visit: VisitDep, query: Annotated[OwnScore, Query()]) -> Response:
    return await own_reply(visit, query, lambda reading: own_why(visit.store, reading, query.score, query.limit))
