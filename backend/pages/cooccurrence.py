"""The page of feature pairs that share samples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import cooccurrence as cooccurrence_api
from backend.api.cooccurrence import PairQuery
from backend.deps import StateDep, StoreDep
from backend.pages.cards import previews
from backend.params import FormQuery
from backend.templating import render_for

router = APIRouter(default_response_class=HTMLResponse)

PAIR_SORTS = {"lift_low": "lift, lower bound", "lift": "lift", "npmi": "NPMI", "support": "support"}


class PairList(FormQuery, PairQuery):
    """As in the API."""


@router.get("/cooccurrence")
def cooccurrence(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[PairList, Query()]
) -> HTMLResponse:
    """Pairs of features that share samples."""
    page = cooccurrence_api.get_cooccurrence(open_store, query)
    return render_for(
        request,
        "cooccurrence.html",
        state,
        open_store,
        section="/cooccurrence",
        page=page,
        q=query,
        sorts=PAIR_SORTS.items(),
        previews=previews(request, open_store, [pair.b.id for pair in page.items]),
    )
