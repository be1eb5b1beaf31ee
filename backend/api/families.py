"""Families of features: near-copies of one another, under the strongest of them."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi import Path as PathParam

from backend.deps import Cached, StoreDep
from backend.params import Cursor, Limit
from backend.problems import http_status
from backend.schemas.common import Order, Page
from backend.schemas.features import Family, FamilyDetail

router = APIRouter(tags=["features"], dependencies=[Cached])


@router.get("/families", summary="Families of features that are near-copies of one another")
def get_families(
    store: StoreDep,
    sort: Annotated[Literal["evidence", "n_members", "id"], Query(description="Figure to sort by.")] = "evidence",
    order: Order = "desc",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Family]:
    page = store.reader.families.list(sort=sort, order=order, limit=limit, cursor=cursor)
    return Page[Family].model_validate(page._asdict())


@router.get("/families/{family}", summary="One family and its members")
def get_family(
    store: StoreDep, family: Annotated[int, PathParam(ge=0, le=2**31 - 1, description="Number of the family.")]
) -> FamilyDetail:
    with http_status(404):
        return FamilyDetail.model_validate(store.reader.families.get(family))
