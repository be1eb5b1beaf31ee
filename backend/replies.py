"""Replies that are made ready in a thread: FastAPI checks and writes what a coroutine returns on the event loop."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel


def as_json(model: BaseModel, headers: Response) -> Response:
    """`model` as FastAPI writes it, with the headers that dependencies have set."""
    return Response(model.model_dump_json(by_alias=True), media_type="application/json", headers=dict(headers.headers))


async def json_reply(make: Callable[[], BaseModel], headers: Response) -> Response:
    """What `make` makes, worked out and written in a thread."""
    return await run_in_threadpool(lambda: as_json(make(), headers))
