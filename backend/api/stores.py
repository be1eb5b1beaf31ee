"""The stores, one store, and its live model."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool

from backend.deps import StateDep, StoreDep
from backend.schemas.common import LiveStatus, Page, StoreDetail, StoreSummary
from backend.stores import OpenStore

router = APIRouter(tags=["stores"])


def summary(store: OpenStore) -> StoreSummary:
    """Figures of the store, under its name on this server."""
    return StoreSummary.model_validate({**store.reader.summary, "name": store.name})


@router.get("/stores", summary="List of stores")
async def get_stores(state: StateDep) -> Page[StoreSummary]:
    """The stores that can be read; `GET /readyz` names the others."""
    await state.check_stores()
    items = await run_in_threadpool(lambda: [summary(store) for store in state.stores.values()])
    return Page(items=items, total=len(items))


@router.get("/store", summary="One store with its manifest, verdicts, quality and live model")
def get_store_detail(state: StateDep, store: StoreDep) -> StoreDetail:
    detail: dict[str, Any] = {**store.reader.detail, "name": store.name, "live": state.live.status(store.name)}
    return StoreDetail.model_validate(detail)


@router.get("/live", summary="State of the live model of one store")
async def get_live(state: StateDep, store: StoreDep, response: Response) -> LiveStatus:
    """A small reply, for clients that poll while a model loads."""
    response.headers["Cache-Control"] = "no-store"
    return state.live.status(store.name)
