"""The page of rejected rows."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from backend.api import rejected as rejected_api
from backend.deps import StateDep, StoreDep
from backend.schemas.quality import ReasonKind
from backend.templating import Maybe, MaybeStr, render_for

router = APIRouter(default_response_class=HTMLResponse)

ROWS = 100


@router.get("/rejected")
def rejected(
    request: Request,
    state: StateDep,
    open_store: StoreDep,
    kind: Annotated[ReasonKind | None, Maybe] = None,
    cursor: MaybeStr = None,
) -> HTMLResponse:
    """Rows of the data that are not in the store."""
    query: dict[str, Any] = {"kind": kind, "cursor": cursor}
    page = rejected_api.get_rejected(open_store, **query, limit=ROWS)
    return render_for(request, "rejected.html", state, open_store, section="/rejected", page=page, q=query)
