"""Which stores there are, and everything about one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from backend.deps import OpenStore, StateDep, StoreDep
from backend.schemas import LiveStatus, Page, StoreDetail, StoreSummary

router = APIRouter(tags=["stores"])


def summary(store: OpenStore) -> StoreSummary:
    """The store under the name that this server gives it."""
    return StoreSummary.model_validate({**store.store.summary, "name": store.name})


@router.get("/stores", summary="The stores of this server")
async def get_stores(state: StateDep) -> Page[StoreSummary]:
    """Those that can be read; `GET /readyz` names the others."""
    await state.look()
    items = await run_in_threadpool(lambda: [summary(store) for store in state.stores.values()])
    return Page(items=items, total=len(items))


@router.get("/store", summary="One store: manifest, verdicts, quality, live model")
def get_store_detail(state: StateDep, store: StoreDep) -> StoreDetail:
    detail: dict[str, Any] = {**store.store.detail, "name": store.name, "live": state.live.status(store.name)}
    return StoreDetail.model_validate(detail)


@router.get("/live", summary="The live model of one store: is it ready")
async def get_live(state: StateDep, store: StoreDep, response: Response) -> LiveStatus:
    """Small, to be asked again and again while a model loads."""
    response.headers["Cache-Control"] = "no-store"
    return state.live.status(store.name)
