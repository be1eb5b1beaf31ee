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
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, format_sse_event
from PIL import Image
from pydantic import BaseModel

from backend.deps import AnsweredDep, Cached, StateDep, StoreDep
from backend.links import check_feature, check_sample
from backend.live.model_worker import Reservation
from backend.live.recompute import original_images
from backend.live.steer_start import start_of
from backend.live.uploads import decode_image, uploaded_pixels
from backend.problems import http_status
from backend.schemas.common import Problem
from backend.schemas.live import (
    SteerDone,
    SteerKl,
    SteerRequest,
    SteerStart,
    SteerTarget,
    SteerToken,
    SteerWaiting,
)
from backend.stores import OpenStore, State
from precompute.errors import SaevxError

if TYPE_CHECKING:
    from backend.live.model_worker import Engine
    from precompute.live.engine import Batch
    from precompute.live.intervention import Intervention

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
    summary="Generate the default and the steered text, streamed",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "waiting, target, token, kl, done, error"}},
)
async def post_steer(
    request: Request, state: StateDep, store: StoreDep, answered: AnsweredDep, steering: SteerRequest
) -> EventSourceResponse:
    """Wrong requests are refused before the stream starts; a later failure is an `error` event."""
    for feature in steering.features:
        check_feature(store, feature.id)
    if sum(one is not None for one in (steering.sample_id, steering.image, steering.image_hash)) > 1:
        raise HTTPException(422, "Give one of `sample_id`, `image` and `image_hash`, not several.")
    reservation = answered.enter_context(state.live.reserve(store.name))
    batch = await run_in_threadpool(prepare, reservation.engine, state, store, steering)
    return EventSourceResponse(
        events(request, reservation, store, steering, batch),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def prepare(engine: Engine, state: State, store: OpenStore, steering: SteerRequest) -> Batch:
    """The prompt in the model's own template, after a check that the request can be carried out.

    Raises:
        HTTPException: 404 or 409 for a sample, 413 or 422 for an image, 422 for a request that cannot be carried out.
    """
    from precompute.live.engine import Pair
    from precompute.live.intervention import Steer, check_scope

    if (reason := engine.sae.missing_direction_reason([feature.id for feature in steering.features])) is not None:
        raise HTTPException(422, reason)
    images = get_images(state, store, steering)
    with http_status(422):
        batch = engine.mllm.prepare([Pair(steering.prompt, images)], generate=True)
        engine.mllm.check_length(int(batch.length_b[0]), steering.max_tokens)
        Steer(engine.sae, interventions_of(store, steering))
        check_scope(batch, steering.scope, steering.mask)
    return batch


def get_images(state: State, store: OpenStore, steering: SteerRequest) -> list[Image.Image]:
    """The image in the request, or the images of the sample as the pass read them."""
    if steering.image is not None:
        return [decode_image(steering.image, state.settings)]
    if steering.image_hash is not None:
        return [uploaded_pixels(state.uploads, steering.image_hash, state.settings)]
    if steering.sample_id is None:
        return []
    return original_images(store, steering.sample_id, check_sample(store, steering.sample_id))


def interventions_of(store: OpenStore, steering: SteerRequest) -> list[Intervention]:
    from precompute.live.intervention import Intervention

    p999 = store.store.features.table["p999"]
    return [Intervention(f.id, f.mode, f.strength, float(p999[f.id])) for f in steering.features]


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
                async for before in changes:
                    yield sse("waiting", SteerWaiting(before=before))
            if (event := first.result()) is not None:
                yield sse(*event)
                async for name, body in stream:
                    if name == "token":
                        request.app.state.metrics.tokens.inc()
                    yield sse(name, body)
    except (SaevxError, HTTPException) as error:
        status = error.status_code if isinstance(error, HTTPException) else 400
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
    known = 0
    try:
        while not first.done():
            if reservation.before != known:
                yield (known := reservation.before)
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
    from precompute.live.engine import Scale
    from precompute.live.steer import Steering, steer
    from precompute.live.steer_sampling import Event, KlEvent, TargetEvent, TokenEvent

    bodies: dict[type, tuple[str, type[BaseModel]]] = {
        TokenEvent: ("token", SteerToken), KlEvent: ("kl", SteerKl), TargetEvent: ("target", SteerTarget),
    }  # fmt: skip

    def emit_event(event: Event) -> None:
        name, body = bodies[type(event)]
        emit((name, body.model_validate(dataclasses.asdict(event))))

    control = control_of(engine, store, steering)
    wanted = Steering(
        interventions_of(store, steering),
        scope=steering.scope,
        mask=steering.mask,
        max_tokens=steering.max_tokens,
        temperature=steering.temperature,
        seed=steering.seed,
        sink_norm=Scale.from_manifest(store.store.manifest).sink_norm,
        control=control,
        target=target_tokens(engine, steering.target) if steering.target else (),
    )
    done = steer(engine.mllm, engine.sae, batch, wanted, emit=emit_event, stop=stop)
    if not stop():
        emit(("done", SteerDone.model_validate({**dataclasses.asdict(done), "control": control})))


def control_of(engine: Engine, store: OpenStore, steering: SteerRequest) -> int | None:
    """The random feature of the request, which is not dead and of another family than the first one that is steered;
    None without one."""
    from precompute.live.effect import choose_control

    if steering.control is None or not steering.features:
        return None
    return choose_control(store.store, engine.sae, steering.features[0].id, seed=steering.control)


def target_tokens(engine: Engine, word: str) -> list[int]:
    """The first tokens of a word, as it stands alone and within a text, in small letters and with a capital."""
    bare = word.strip() or word
    forms = {space + form for space in ("", " ") for form in (bare, bare.lower(), bare[:1].upper() + bare[1:])}
    encode = engine.mllm.tokenizer.encode
    return sorted({ids[0] for form in forms if (ids := encode(form, add_special_tokens=False))})
