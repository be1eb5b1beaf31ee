"""Is the process up, and is everything loaded."""

from __future__ import annotations

from fastapi import APIRouter, Response

from backend.deps import VERSION, StateDep
from backend.schemas import Health, LiveStatus, Ready

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process answers")
async def healthz(state: StateDep, response: Response) -> Health:
    response.headers["Cache-Control"] = "no-store"
    default = state.live.status(state.default_name)
    return Health(status="ok", version=VERSION, stores=list(state.stores), live=default)


@router.get(
    "/readyz", summary="Stores are open and no model is still loading", responses={503: {"model": Ready}}
)
async def readyz(state: StateDep, response: Response) -> Ready:
    """503 while a model loads, when one could not be loaded, or when a store cannot be read."""
    await state.look()
    live = {name: state.live.status(name) for name in state.stores}
    waited_for = [one for one in live.values() if not rests(one)]
    ready = not waited_for and not state.unavailable
    response.status_code = 200 if ready else 503
    response.headers["Cache-Control"] = "no-store"
    shown = waited_for[0] if waited_for else state.live.status(state.default_name)
    return Ready(ready=ready, stores=list(state.stores), unavailable=state.unavailable, live=shown)


def rests(status: LiveStatus) -> bool:
    """Whether nothing more is to be waited for."""
    return status.state in ("ready", "off")
