"""Steering: the default and the steered text, streamed side by side."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel

from backend.deps import AnsweredDep, Cached, StoreDep, VisitDep
from backend.live.model_worker import Reservation
from backend.live.steer_start import start_of
from backend.live.steering import (
    check_request,
    common_steering,
    control_of,
    event_body,
    interventions_of,
    prepare,
    request_candidates,
)
from backend.problems import status_of
from backend.schemas.common import Problem
from backend.schemas.steering import SteerDone, SteerRequest, SteerRuns, SteerStart, SteerWaiting
from backend.stores import OpenStore
from precompute.errors import SaevxError

if TYPE_CHECKING:
    from backend.live.engines import Engine
    from precompute.live.engine import Batch

router = APIRouter(tags=["steering"])
log = logging.getLogger(__name__)
QUEUE_S = 0.5
"""Seconds between two looks at the queue."""
Emit = Callable[[tuple[str, BaseModel]], None]


@router.get("/steer/start", summary="Strength and sample with which to steer a feature first", dependencies=[Cached])
def get_steer_start(
    store: StoreDep, feature: Annotated[int, Query(ge=0, le=2**31 - 1, description="Feature number.")]
) -> SteerStart:
    return start_of(store, feature)


@router.post(
    "/steer",
    summary="Generate the default and the steered text, streamed; or those of several candidates at once",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {}},
            "model": SteerRuns,
            "description": "waiting, target, token, kl, done, error; with `candidates` one reply",
        }
    },
)
async def post_steer(visit: VisitDep, answered: AnsweredDep, steering: SteerRequest) -> Response:
    """With `candidates` the reply is one object, SteerRuns, and no stream. Wrong requests are refused before the stream
    starts; a later failure is an `error` event."""
    check_request(visit.store, steering)
    if steering.candidates is not None:
        runs = await request_candidates(visit, steering)
        return JSONResponse(runs.model_dump(mode="json"), headers={"Cache-Control": "no-store"})
    reservation = answered.enter_context(visit.reserve())
    batch = await run_in_threadpool(prepare, reservation.engine, visit, steering)
    return EventSourceResponse(
        events(visit.request, reservation, visit.store, steering, batch),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def events(
    request: Request, reservation: Reservation, store: OpenStore, steering: SteerRequest, batch: Batch
) -> AsyncIterator[bytes]:
    """The stream as bytes; closing it stops the generation."""

    def work(engine: Engine, emit: Emit, stop: Callable[[], bool]) -> None:
        run(engine, store, steering, batch, emit, stop)

    try:
        async with aclosing(reservation.stream(work)) as stream:
            first = asyncio.ensure_future(anext(stream, None))
            async with aclosing(places(first, reservation)) as changes:
                async for n_before in changes:
                    yield sse("waiting", SteerWaiting(before=n_before))
            if (event := first.result()) is not None:
                yield sse(*event)
                async for name, body in stream:
                    if name == "token":
                        request.app.state.metrics.tokens.inc()
                    yield sse(name, body)
    except (SaevxError, HTTPException) as error:
        status = error.status_code if isinstance(error, HTTPException) else status_of(error)
        yield sse("error", failure(request, status, str(getattr(error, "detail", error))))
    except Exception:
        log.exception("Steering failed.")
        yield sse(
            "error",
            failure(request, 500, "The model stopped with an error; the server's log has the details."),
        )


async def places(first: asyncio.Future[Any], reservation: Reservation) -> AsyncGenerator[int]:
    """How many requests come before this one, whenever that changes, until `first` is done; nothing where none does.
    Closing it cancels `first`."""
    n_waiting = 0
    try:
        while not first.done():
            if reservation.n_before != n_waiting:
                yield (n_waiting := reservation.n_before)
            await asyncio.wait([first], timeout=QUEUE_S)
    finally:
        first.cancel()
        await asyncio.wait([first])


def sse(name: str, body: BaseModel) -> bytes:
    """A server-sent event as bytes."""
    return format_sse_event(event=name, data_str=body.model_dump_json())


def failure(request: Request, status: int, detail: str) -> Problem:
    """Problem details for the event `error`."""
    return Problem(title="Steering failed", status=status, detail=detail, instance=request.url.path)


def run(
    engine: Engine,
    store: OpenStore,
    steering: SteerRequest,
    batch: Batch,
    emit: Emit,
    stop: Callable[[], bool],
) -> None:
    """Steer, in the worker thread, and emit the events."""
    from precompute.live.steer import steer
    from precompute.live.steer_sampling import Event

    def emit_event(event: Event) -> None:
        emit(event_body(store, event))

    control = control_of(engine, store, steering.features, steering.control)
    options = dataclasses.replace(
        common_steering(engine, store, steering),
        interventions=interventions_of(engine, store, steering.features),
        seed=steering.seed,
        control=control,
    )
    steered_reply = steer(engine.mllm, engine.sae, batch, options, emit=emit_event, stop=stop)
    if not stop():
        emit(("done", SteerDone.model_validate({**dataclasses.asdict(steered_reply), "control": control})))
