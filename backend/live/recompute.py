"""Activations that a store does not hold: the live model computes them again from the original pair."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from backend.deps import Visit
from backend.live.model_worker import Reservation
from backend.stores import OpenStore
from precompute.errors import ModelError, SaevxError
from precompute.store.events import EventsNotStored, SampleEvents
from precompute.store.opening import StoreUnreadable

if TYPE_CHECKING:
    from precompute.live.engine import Pair

T = TypeVar("T")


def original_pair(open_store: OpenStore, sample_id: str, row: int) -> Pair:
    """Text and images of a stored sample as the model read them in the pass.

    Raises:
        HTTPException: 409 if they cannot be read again, or are no longer those of the store.
    """
    try:
        return open_store.recomputed.originals().pair(row)
    except StoreUnreadable:
        raise
    except SaevxError as error:
        raise HTTPException(
            409,
            f"The image of sample {sample_id} cannot be read from the data again ({str(error).rstrip('.')}): restore "
            "the data, or send the image itself.",
        ) from error


def not_stored(open_store: OpenStore, sample_id: str) -> str:
    """The beginning of a sentence: which activations are missing, and why."""
    option = open_store.manifest.get("events", {}).get("kept", "all")
    return f"The activations of sample {sample_id} are not in this store, which was made with --events {option}"


def why_unavailable(visit: Visit, sample_id: str, row: int) -> str | None:
    """Why the activations of a sample are not available now, in a sentence; None if they are in the store or can be
    computed."""
    status = visit.model
    if visit.reader.events.has(row) or status.state == "ready" or visit.store.recomputed.events.get(row) is not None:
        return None
    sentence = not_stored(visit.store, sample_id)
    if status.state == "loading":
        return f"{sentence}, and the model that computes them is still loading: try again in a few seconds."
    if status.state == "off":
        return f"{sentence}: run `saevx serve` with the live model, or make the store with --events all."
    return f"{sentence}, and the live model is not available ({status.reason}): make the store with --events all."


async def recompute_events(visit: Visit, sample_id: str, row: int) -> SampleEvents:
    """The events of a sample that are not in the store. A request that waits for the model holds no thread, however
    long the queue is, so that pages are still answered.

    Raises:
        HTTPException: 503 if the live model is not ready or its queue is full, 409 if the original pair cannot be read
            again.
        ClientLeft: the client closed the connection while it waited.
    """
    if (events := visit.store.recomputed.events.get(row)) is not None:
        return events
    if (reason := why_unavailable(visit, sample_id, row)) is not None:
        headers = {"Retry-After": "5"} if visit.model.state == "loading" else None
        raise HTTPException(503, reason, headers)
    with visit.reserve() as reservation:
        return await _compute(reservation, visit.store, sample_id, row, visit.request)


async def _compute(
    reservation: Reservation, open_store: OpenStore, sample_id: str, row: int, request: Request
) -> SampleEvents:
    try:
        return await reservation.call(lambda engine: open_store.recomputed.compute(row, engine), request)
    except (StoreUnreadable, ModelError):
        raise
    except SaevxError as error:
        reason = str(error).rstrip(".")
        raise HTTPException(
            409,
            f"{not_stored(open_store, sample_id)}, and they cannot be computed again ({reason}): restore the data, or "
            "make the store with --events all.",
        ) from error


async def with_events(visit: Visit, sample_id: str, answer: Callable[[SampleEvents | None], T]) -> T:
    """The result of `answer` in a thread. It is called with None first; if it raises EventsNotStored, it is called
    again with the sample's events from the live model.

    Raises:
        HTTPException, ClientLeft: as `recompute_events`.
    """
    try:
        return await run_in_threadpool(answer, None)
    except EventsNotStored as error:
        row = error.row
    return await run_in_threadpool(answer, await recompute_events(visit, sample_id, row))


async def events_if_ready(visit: Visit, rows: Sequence[int]) -> dict[int, SampleEvents]:
    """The events of those rows, not in the store, that are cached or that the live model can compute now."""
    events_by_row: dict[int, SampleEvents] = {}
    with contextlib.ExitStack() as stack:
        reservation: Reservation | None = None
        for row in rows:
            events = visit.store.recomputed.events.get(row)
            try:
                if events is None:
                    reservation = reservation or stack.enter_context(visit.reserve())
                    events = await _compute(reservation, visit.store, "", row, visit.request)
                events_by_row[row] = events
            except HTTPException as refusal:
                if refusal.status_code in (429, 503):
                    events_of = {row: visit.store.recomputed.events.get(row) for row in rows}
                    return events_by_row | {row: e for row, e in events_of.items() if e is not None}
    return events_by_row
