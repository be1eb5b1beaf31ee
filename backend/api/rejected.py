"""Rows of the data that are not in the store, with the reasons."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend.deps import Cached, StoreDep
from backend.params import Cursor, Limit
from backend.schemas.quality import ReasonKind, RejectedPage

router = APIRouter(tags=["stores"])


@router.get("/rejected", summary="Rejected rows of the data, with reasons", dependencies=[Cached])
def get_rejected(
    store: StoreDep,
    kind: Annotated[ReasonKind | None, Query(description="Only rows rejected for this kind of reason.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> RejectedPage:
    page = store.reader.rejected.list(kind=kind, limit=limit, cursor=cursor)
    return RejectedPage.model_validate({**page._asdict(), "kinds": store.reader.rejected.kinds})
