"""Steering, streamed: the default and the steered text side by side."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, format_sse_event
from PIL import Image
from pydantic import BaseModel

from backend.deps import AnsweredDep, OpenStore, State, StateDep, StoreDep
from backend.links import check_feature, check_sample
from backend.live.model_worker import Reservation
from backend.live.recompute import original_images
from backend.live.uploads import decode_image
from backend.schemas import Problem, SteerDone, SteerKl, SteerRequest, SteerToken
from precompute.errors import SaevxError

if TYPE_CHECKING:
    from backend.live.model_worker import Engine
    from precompute.live.intervention import Intervention
    from precompute.model.mllm import Batch

router = APIRouter(tags=["steering"])
log = logging.getLogger(__name__)
Say = Callable[[tuple[str, BaseModel]], None]


@router.post(
    "/steer",
    summary="Default and steered text, streamed",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "token, kl, done, error"}},
)
async def post_steer(
    request: Request, state: StateDep, store: StoreDep, answered: AnsweredDep, asked: SteerRequest
) -> EventSourceResponse:
    """What can be refused is refused before the stream starts; what fails later is an `error` event."""
    for feature in asked.features:
        check_feature(store, feature.id)
    if asked.sample_id is not None and asked.image is not None:
        raise HTTPException(422, "Give `sample_id` or `image`, not both.")
    place = answered.enter_context(state.live.reserve(store.name))
    batch = await run_in_threadpool(prepared, place.engine, state, store, asked)
    return EventSourceResponse(
        events(request, place, store, asked, batch),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def prepared(engine: Engine, state: State, store: OpenStore, asked: SteerRequest) -> Batch:
    """The prompt as the model's own template has it, once all that is asked can be done.

    Raises:
        HTTPException: 404 or 409 for a sample, 413 or 422 for an image, 422 for what cannot be steered.
    """
    from precompute.live.intervention import Steer, check_scope
    from precompute.model.mllm import Pair

    if (reason := engine.sae.without_direction([feature.id for feature in asked.features])) is not None:
        raise HTTPException(422, reason)
    images = get_images(state, store, asked)
    try:
        batch = engine.mllm.prepare([Pair(asked.prompt, images)], generate=True)
        engine.mllm.check_length(int(batch.length_b[0]), asked.max_tokens)
        Steer(engine.sae, interventions_of(store, asked))
        check_scope(batch, asked.scope, asked.mask)
    except SaevxError as error:
        raise HTTPException(422, str(error)) from error
    return batch


def get_images(state: State, store: OpenStore, asked: SteerRequest) -> list[Image.Image]:
    """The upload, or the images of the sample as the pass saw them."""
    if asked.image is not None:
        return [decode_image(asked.image, state.settings)]
    if asked.sample_id is None:
        return []
    return original_images(store, asked.sample_id, check_sample(store, asked.sample_id))


def interventions_of(store: OpenStore, asked: SteerRequest) -> list[Intervention]:
    from precompute.live.intervention import Intervention

    p999 = store.store.features.table["p999"]
    return [Intervention(f.id, f.mode, f.strength, float(p999[f.id])) for f in asked.features]


async def events(
    request: Request, place: Reservation, store: OpenStore, asked: SteerRequest, batch: Batch
) -> AsyncIterator[bytes]:
    """The stream as bytes; closing it stops the generation."""

    def work(engine: Engine, say: Say, stop: Callable[[], bool]) -> None:
        run(engine, store, asked, batch, say, stop)

    try:
        async for name, body in place.stream(work):
            yield sse(name, body)
    except (SaevxError, HTTPException) as error:
        status = error.status_code if isinstance(error, HTTPException) else 400
        yield sse("error", failure(request, status, str(getattr(error, "detail", error))))
    except Exception:
        log.exception("steering failed")
        yield sse(
            "error",
            failure(request, 500, "The model stopped with an error; the server's log has the details."),
        )


def sse(name: str, body: BaseModel) -> bytes:
    return format_sse_event(event=name, data_str=body.model_dump_json())


def failure(request: Request, status: int, detail: str) -> Problem:
    return Problem(title="Steering failed", status=status, detail=detail, instance=request.url.path)


def run(
    engine: Engine,
    store: OpenStore,
    asked: SteerRequest,
    batch: Batch,
    say: Say,
    stop: Callable[[], bool],
) -> None:
    """In the worker: steer."""
    from precompute.live.steer import steer
    from precompute.live.steer_sampling import KlEvent, TokenEvent
    from precompute.sae.encode import Scale

    def emit(event: TokenEvent | KlEvent) -> None:
        body: Any = SteerToken if isinstance(event, TokenEvent) else SteerKl
        say(("token" if body is SteerToken else "kl", body.model_validate(dataclasses.asdict(event))))

    done = steer(
        engine.mllm,
        engine.sae,
        batch,
        interventions_of(store, asked),
        scope=asked.scope,
        mask=asked.mask,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
        sink_norm=Scale.from_manifest(store.store.manifest).sink_norm,
        emit=emit,
        stop=stop,
    )
    if not stop():
        say(("done", SteerDone.model_validate(dataclasses.asdict(done))))
