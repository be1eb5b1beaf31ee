"""The page of feature pairs that share samples."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import cooccurrence as cooccurrence_api
from backend.deps import StateDep, StoreDep
from backend.pages.cards import previews
from backend.templating import MaybeInt, MaybeStr, render_for

router = APIRouter(default_response_class=HTMLResponse)

PAIR_SORTS = {"npmi": "NPMI", "lift": "lift", "support": "support"}


@router.get("/cooccurrence")
def cooccurrence(
    request: Request,
    state: StateDep,
    open_store: StoreDep,
    min_support: Annotated[MaybeInt, Query()] = None,
    sort: Literal["npmi", "lift", "support"] = "npmi",
    feature: MaybeInt = None,
    cursor: MaybeStr = None,
) -> HTMLResponse:
    """Pairs of features that share samples."""
    support = 5 if min_support is None else min_support
    page = cooccurrence_api.get_cooccurrence(open_store, min_support=support, sort=sort, feature=feature, cursor=cursor)
    return render_for(
        request,
        "cooccurrence.html",
        state,
        open_store,
        section="/cooccurrence",
        page=page,
        q={"min_support": support, "sort": sort, "feature": feature, "cursor": cursor},
        sorts=PAIR_SORTS.items(),
        previews=previews(request, open_store, [pair.b.id for pair in page.items]),
    )
