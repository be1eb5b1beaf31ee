"""The page of rejected rows."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from backend.api import rejected as rejected_api
from backend.pages.visit import PageDep
from backend.schemas.quality import ReasonKind
from backend.templating import Maybe, MaybeStr

router = APIRouter(default_response_class=HTMLResponse)

ROWS = 100


@router.get("/rejected")
def rejected(
    visit: PageDep,
    kind: Annotated[ReasonKind | None, Maybe] = None,
    cursor: MaybeStr = None,
) -> HTMLResponse:
    """Rows of the data that are not in the store."""
    query: dict[str, Any] = {"kind": kind, "cursor": cursor}
    page = rejected_api.get_rejected(visit.store, **query, limit=ROWS)
    return visit.render("rejected.html", section="/rejected", page=page, q=query)
