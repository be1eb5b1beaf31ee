"""Whether the process answers, and whether everything is loaded."""

from __future__ import annotations

from fastapi import APIRouter, Response

from backend.deps import VERSION, StateDep
from backend.schemas.common import Health, Ready

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process answers")
async def healthz(state: StateDep, response: Response) -> Health:
    response.headers["Cache-Control"] = "no-store"
    default = state.live.status(state.default_name)
    return Health(status="ok", version=VERSION, stores=list(state.stores), live=default)


@router.get(
    "/readyz", summary="Whether all stores are open and no model is loading", responses={503: {"model": Ready}}
)
async def readyz(state: StateDep, response: Response) -> Ready:
    """503 while a model loads, if a model could not be loaded, or if a store cannot be read."""
    await state.check_stores()
    statuses = [state.live.status(name) for name in state.stores]
    not_ready = [status for status in statuses if status.state not in ("ready", "off")]
    ready = not not_ready and not state.unavailable
    response.status_code = 200 if ready else 503
    response.headers["Cache-Control"] = "no-store"
    live_status = not_ready[0] if not_ready else state.live.status(state.default_name)
    return Ready(ready=ready, stores=list(state.stores), unavailable=state.unavailable, live=live_status)
