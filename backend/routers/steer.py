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

from backend.deps import OpenStore, State, StateDep, StoreDep
from backend.links import check_feature, check_sample
from backend.schemas import Problem, SteerDone, SteerKl, SteerRequest, SteerToken
from backend.uploads import decode_image
from precompute.errors import SaevxError

if TYPE_CHECKING:
    from backend.live import Engine

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
    request: Request, state: StateDep, store: StoreDep, asked: SteerRequest
) -> EventSourceResponse:
    """What can be refused is refused before the stream starts; what fails later is an `error` event."""
    for feature in asked.features:
        check_feature(store, feature.id)
    if asked.sample_id is not None and asked.image is not None:
        raise HTTPException(422, "Give `sample_id` or `image`, not both.")
    engine = state.live.admit(store.name)
    if (reason := engine.sae.without_direction([feature.id for feature in asked.features])) is not None:
        raise HTTPException(422, reason)
    picture = await run_in_threadpool(get_picture, state, store, asked)
    return EventSourceResponse(
        events(request, state, store, asked, picture),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def get_picture(state: State, store: OpenStore, asked: SteerRequest) -> Image.Image | None:
    """The upload, or the first stored picture of the sample."""
    if asked.image is not None:
        return decode_image(asked.image, state.settings)
    if asked.sample_id is None:
        return None
    check_sample(store, asked.sample_id)
    try:
        path = store.store.image_path(asked.sample_id)
    except SaevxError:
        return None  # a sample of text alone
    with Image.open(path) as opened:
        return opened.convert("RGB")


async def events(
    request: Request, state: State, store: OpenStore, asked: SteerRequest, picture: Image.Image | None
) -> AsyncIterator[bytes]:
    """The stream as bytes; closing it stops the generation."""

    def work(engine: Engine, say: Say, stop: Callable[[], bool]) -> None:
        run(engine, store, asked, picture, say, stop)

    try:
        async for name, body in state.live.stream(store.name, work):
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
    picture: Image.Image | None,
    say: Say,
    stop: Callable[[], bool],
) -> None:
    """In the worker: prepare the prompt as the model's own template has it, and steer."""
    from precompute.encode import Scale
    from precompute.model import Pair
    from precompute.steer import KlEvent, Push, TokenEvent, steer

    table = store.store.feature_table
    pushes = [Push(f.id, f.mode, f.strength, float(table["p999"][f.id])) for f in asked.features]
    pair = Pair(text=asked.prompt, images=[picture] if picture is not None else [])
    batch = engine.mllm.prepare([pair], generate=True)

    def emit(event: TokenEvent | KlEvent) -> None:
        body: Any = SteerToken if isinstance(event, TokenEvent) else SteerKl
        say(("token" if body is SteerToken else "kl", body.model_validate(dataclasses.asdict(event))))

    done = steer(
        engine.mllm,
        engine.sae,
        batch,
        pushes,
        scope=asked.scope,
        mask=asked.mask,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        seed=asked.seed,
        sink_norm=Scale.of(store.store.manifest).sink_norm,
        emit=emit,
        stop=stop,
    )
    if not stop():
        say(("done", SteerDone.model_validate(dataclasses.asdict(done))))
