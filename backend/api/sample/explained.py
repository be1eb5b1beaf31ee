"""Why a sample has its scores, and the samples nearest to it."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from backend.api.samples import OF_EVENTS, events_reply
from backend.deps import Cached, StoreDep, VisitDep
from backend.links import ImageLinks, InPath, add_sample_route, check_sample
from backend.problems import http_status
from backend.schemas.common import Modality, ScoreName
from backend.schemas.samples import NearSamples, WhyScore
from backend.stores import OpenStore
from precompute.scoring.why import why
from precompute.store.events import SampleEvents

router = APIRouter(tags=["samples"])
at_sample = partial(add_sample_route, router)


@dataclass(frozen=True)
class WhyQuery:
    """A score, and how much of its reasons."""

    score: Annotated[ScoreName, Query(description="A score that is made of features.")] = "pooled-cosine"
    limit: Annotated[int, Query(ge=1, le=500, description="Features of each list.")] = 12


@at_sample("/why", "Which features raise and lower a score of a sample", response_model=WhyScore, **OF_EVENTS)
async def get_why(
    visit: VisitDep, response: Response, sample_id: InPath, query: Annotated[WhyQuery, Depends()]
) -> Response:
    make = partial(why_score, visit.store, sample_id, query.score, query.limit)
    return await events_reply(visit, response, sample_id, make)


def why_score(store: OpenStore, sample_id: str, score: ScoreName, limit: int, events: SampleEvents | None) -> WhyScore:
    """Raises EventsNotStored if the events are not in the store or `events`."""
    row = check_sample(store, sample_id)
    with http_status(422):
        item: dict[str, Any] = why(store.reader, row, score, limit, events or store.recomputed.missing_events(row))
    return WhyScore.model_validate({"sample_id": sample_id, **item})


@at_sample("/nearest", "The samples nearest to a sample", dependencies=[Cached])
def get_nearest(
    request: Request,
    store: StoreDep,
    sample_id: InPath,
    modality: Annotated[Modality, Query(description="Compare images, or compare texts.")] = "image",
    limit: Annotated[int, Query(ge=1, le=100)] = 12,
) -> NearSamples:
    row = check_sample(store, sample_id)
    result = store.reader.nearest.of(row, modality, limit)
    items = ImageLinks(request, store).all_images(result.pop("items"))
    return NearSamples.model_validate({"sample_id": sample_id, "modality": modality, **result, "items": items})
