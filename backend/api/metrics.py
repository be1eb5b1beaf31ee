"""Figures for Prometheus, outside /api/v1."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from backend.middleware.metrics import Metrics
from backend.workers.figures import figures_of_all
from backend.workers.place import Worker

router = APIRouter(tags=["health"])


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
