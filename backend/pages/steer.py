"""Live steering."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse
from pydantic import Field

from backend.api import features as features_api
from backend.api import samples as samples_api
from backend.api.samples import SampleQuery
from backend.deps import StateDep, StoreDep
from backend.params import QueryModel
from backend.templating import MaybeStr, render_for

router = APIRouter(default_response_class=HTMLResponse)

SCOPES = ("image", "prompt", "generated")


class SteerQuery(QueryModel):
    """With what the form of the page begins."""

    sample: MaybeStr = None
    prompt: str = "What is in the image?"
    feature: list[str] = Field(default_factory=list)
    """id:mode:strength, may be repeated."""
    scope: str = ",".join(SCOPES)
    max_tokens: int = 32
    temperature: float = 0.0
    seed: int = 0


@router.get("/steer")
def steer(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[SteerQuery, Query()]
) -> HTMLResponse:
    """The form, as the address fills it."""
    first = SampleQuery(limit=1)
    start: dict[str, Any] = {
        **query.model_dump(include={"prompt", "max_tokens", "temperature", "seed"}),
        "sample": query.sample or samples_api.get_samples(request, open_store, first).items[0].sample_id,
        "features": [one for text in query.feature if (one := parse_feature(open_store, text))],
        "scope": [one for one in query.scope.split(",") if one in SCOPES],
    }
    return render_for(
        request,
        "steer.html",
        state,
        open_store,
        section="/steer",
        live=state.live.status(open_store.name),
        start=start,
    )


def parse_feature(open_store: StoreDep, text: str) -> dict[str, Any] | None:
    """One `feature=` of the address with its label; None if it cannot be read, so that old links still open."""
    number, _, tail = text.partition(":")
    mode, _, strength = tail.partition(":")
    try:
        named = features_api.get_feature(open_store, int(number))
        return {
            "id": named.id,
            **{name: getattr(named, name) for name in ("label", "label_score", "description")},
            "mode": mode if mode in ("set", "add", "ablate") else "add",
            "strength": float(strength or 1),
        }
    except (ValueError, HTTPException):
        return None
