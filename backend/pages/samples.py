"""The list of samples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import samples as samples_api
from backend.api.samples import SampleQuery
from backend.deps import StateDep, StoreDep
from backend.pages.cards import card, list_flags, list_scores
from backend.params import FormQuery
from backend.templating import render_for

router = APIRouter(default_response_class=HTMLResponse)


class SampleList(FormQuery, SampleQuery):
    """As in the API."""


@router.get("/samples")
def samples(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[SampleList, Query()]
) -> HTMLResponse:
    """The list of samples."""
    page = samples_api.get_samples(request, open_store, query.model_copy(update={"limit": 60}))
    sorts = [("row", "order of the data"), *((score.name, score.name) for score in list_scores(open_store))]
    cards = [card(one, next((v for k, v in one.scores.items() if k == query.sort), None)) for one in page.items]
    return render_for(
        request,
        "samples.html",
        state,
        open_store,
        section="/samples",
        page={"items": cards, "total": page.total, "next": page.next},
        q=query,
        flags=list_flags(open_store),
        sorts=sorts,
    )
