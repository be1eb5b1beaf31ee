"""Pairs of features that share samples."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from backend.deps import Cached, StoreDep
from backend.links import check_feature
from backend.params import Cursor, Limit, QueryModel
from backend.schemas.features import PairPage

router = APIRouter(tags=["co-occurrence"], dependencies=[Cached])


class PairQuery(QueryModel):
    """Order and filters of the list of pairs of features."""

    kind: Literal["text-image", "text-text", "image-image"] = "text-image"
    """Modalities of `a` and `b`."""
    sort: Literal["lift_low", "lift", "npmi", "support"] = "lift_low"
    """Figure to sort by."""
    min_support: Annotated[int, Query(ge=0, le=2**31)] = 5
    """Minimum number of common samples."""
    feature: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    """Only pairs with this feature."""
    min_lift: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 1.5
    """Minimum lift."""
    alike: bool = False
    """Also pairs of one family or name, and every pair of the same two, of which otherwise the first is listed."""
    limit: Limit = 50
    cursor: Cursor = None


@router.get("/cooccurrence", summary="Pairs of features that share samples, strongest first")
def get_cooccurrence(store: StoreDep, query: Annotated[PairQuery, Query()]) -> PairPage:
    if query.feature is not None:
        check_feature(store, query.feature)
    page = store.store.cooccurrence.list(**query.model_dump())
    return PairPage.model_validate(page._asdict())
