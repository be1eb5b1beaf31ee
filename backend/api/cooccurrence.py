"""Pairs of features that share samples."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from backend.deps import Cached, StoreDep
from backend.links import check_feature
from backend.params import Cursor, Limit
from backend.schemas.common import Page
from backend.schemas.features import CooccurrencePair

router = APIRouter(tags=["co-occurrence"], dependencies=[Cached])


@router.get("/cooccurrence", summary="Pairs of features that share samples, strongest first")
def get_cooccurrence(
    store: StoreDep,
    kind: Annotated[
        Literal["text-image", "text-text", "image-image"], Query(description="Modalities of `a` and `b`.")
    ] = "text-image",
    sort: Annotated[Literal["npmi", "lift", "support"], Query(description="Figure to sort by.")] = "npmi",
    min_support: Annotated[int, Query(ge=0, le=2**31, description="Minimum number of common samples.")] = 5,
    feature: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="Only pairs with this feature.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[CooccurrencePair]:
    if feature is not None:
        check_feature(store, feature)
    page = store.store.cooccurrence.list(
        kind=kind, sort=sort, min_support=min_support, feature=feature, limit=limit, cursor=cursor
    )
    return Page[CooccurrencePair].model_validate(page._asdict())
