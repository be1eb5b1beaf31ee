"""What the tools of an operator ask, outside /api/v1: whether the process answers, whether everything is loaded, and
figures for Prometheus."""

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from backend.deps import VERSION, StateDep
from backend.middleware.metrics import Metrics
from backend.schemas.common import Health, Ready
from backend.workers.figures import figures_of_all
from backend.workers.place import Worker

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Whether the process answers")
async def healthz(state: StateDep, response: Response) -> Health:
    response.headers["Cache-Control"] = "no-store"
    default = state.live.status(state.default_name)
    return Health(status="ok", version=VERSION, stores=list(state.stores), live=default)


@router.get("/readyz", summary="Whether all stores are open and no model is loading", responses={503: {"model": Ready}})
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


@router.get("/metrics", summary="Figures for Prometheus, as text", response_class=PlainTextResponse)
async def get_metrics(request: Request) -> Response:
    """Time of requests by route, requests in flight, queue and tokens of the model, its state, bytes of caches. With
    `--workers` those of each, with the label `worker`."""
    metrics: Metrics = request.app.state.metrics
    worker: Worker | None = request.app.state.worker
    text = await run_in_threadpool(generate_latest, metrics.registry)
    if worker is not None and not request.scope.get("of_worker"):
        text = await figures_of_all(worker, text, request.scope)
    return Response(text, media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})
