"""Is the process up, and is everything loaded."""

from __future__ import annotations

from fastapi import APIRouter, Response

from backend.deps import VERSION, StateDep
from backend.schemas import Health, Ready

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="The process answers")
async def healthz(state: StateDep, response: Response) -> Health:
    response.headers["Cache-Control"] = "no-store"
    return Health(
        status="ok", version=VERSION, stores=list(state.stores), live=state.live.status(state.default.name)
    )


@router.get(
    "/readyz", summary="Stores are open and no model is still loading", responses={503: {"model": Ready}}
)
async def readyz(state: StateDep, response: Response) -> Ready:
    """503 while a model loads, or when one could not be loaded."""
    states = {name: state.live.status(name) for name in state.stores}
    ready = all(one.state in ("ready", "off") for one in states.values())
    response.status_code = 200 if ready else 503
    response.headers["Cache-Control"] = "no-store"
    worst = next(
        (one for one in states.values() if one.state not in ("ready", "off")), states[state.default.name]
    )
    return Ready(ready=ready, stores=list(state.stores), live=worst)
