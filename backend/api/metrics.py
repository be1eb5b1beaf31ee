"""Figures for Prometheus, outside /api/v1."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from backend.middleware.metrics import Metrics

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Figures for Prometheus, as text", response_class=PlainTextResponse)
def get_metrics(request: Request) -> Response:
    """Time of requests by route, requests in flight, queue and tokens of the model, its state, bytes of caches."""
    metrics: Metrics = request.app.state.metrics
    text = generate_latest(metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})
