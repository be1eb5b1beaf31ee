"""Live steering."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api import samples as samples_api
from backend.deps import StateDep, StoreDep
from backend.templating import MaybeStr, render_for

router = APIRouter(default_response_class=HTMLResponse)

SCOPES = ("image", "prompt", "generated")


@router.get("/steer")
def steer(
    request: Request,
    state: StateDep,
    open_store: StoreDep,
    sample: MaybeStr = None,
    prompt: str | None = None,
    feature: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
    scope: str = ",".join(SCOPES),
    max_tokens: int = 32,
    temperature: float = 0.0,
    seed: int = 0,
) -> HTMLResponse:
    """`feature` is id:mode:strength and may be repeated."""
    start: dict[str, Any] = {
        "sample": sample
        if sample is not None
        else samples_api.get_samples(request, open_store, limit=1).items[0].sample_id,
        "prompt": prompt if prompt is not None else "What is in the image?",
        "features": [one for text in feature if (one := parse_feature(open_store, text))],
        "scope": [one for one in scope.split(",") if one in SCOPES],
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
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
            "label": named.label,
            "mode": mode if mode in ("set", "add", "ablate") else "add",
            "strength": float(strength or 1),
        }
    except (ValueError, HTTPException):
        return None
