"""Which stores there are, and everything about one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from backend.deps import OpenStore, StateDep, StoreDep
from backend.schemas import Page, StoreDetail, StoreSummary

router = APIRouter(tags=["stores"])


def summary(store: OpenStore) -> StoreSummary:
    """The store under the name that this server gives it."""
    return StoreSummary.model_validate({**store.store.summary, "name": store.name})


@router.get("/stores", summary="The stores of this server")
def get_stores(state: StateDep) -> Page[StoreSummary]:
    items = [summary(store) for store in state.stores.values()]
    return Page(items=items, total=len(items))


@router.get("/store", summary="One store: manifest, verdicts, quality, live model")
def get_store_detail(state: StateDep, store: StoreDep) -> StoreDetail:
    detail: dict[str, Any] = {**store.store.detail, "name": store.name, "live": state.live.status(store.name)}
    return StoreDetail.model_validate(detail)
