"""Activations that a store has not kept, computed anew by the live model from the original pair."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from backend.live.model_worker import Engine, Live, Reservation
from precompute.errors import SaevxError
from precompute.store.events import EventsNotStored, SampleEvents
from precompute.store.opening import StoreUnreadable
from precompute.store.reader import Store

if TYPE_CHECKING:
    from PIL import Image

    from backend.stores import OpenStore
    from precompute.live.originals import Originals

T = TypeVar("T")

MOST = 256
"""Samples whose events are held: pointing at one feature after the other computes a sample once."""
MOST_EVENTS = 4_000_000
"""Events held in all, at 16 bytes each."""


class Recomputed:
    """The samples of one store that were computed last."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.found: OrderedDict[int, SampleEvents] = OrderedDict()
        self.lock = threading.Lock()
        self.originals: Originals | None = None

    def get(self, row: int) -> SampleEvents | None:
        with self.lock:
            if row in self.found:
                self.found.move_to_end(row)
            return self.found.get(row)

    def known(self, row: int) -> SampleEvents | None:
        """As `get`, and None where the store has kept them."""
        return None if self.store.events.has(row) else self.get(row)

    def original_images(self, row: int) -> list[Image.Image]:
        """The images of a sample as the model saw them in the pass: from the data, not the store's thumbnails.

        Raises:
            SaevxError: with the reason as a clause: the data is gone, or is no longer what the store was made of.
        """
        return list(self._originals().pair(row).images)

    def _originals(self) -> Originals:
        from precompute.live.originals import Originals

        with self.lock:
            self.originals = self.originals or Originals(self.store)
        return self.originals

    def compute(self, row: int, engine: Engine) -> SampleEvents:
        """In the live model's one worker. Raises SaevxError with the reason as a clause."""
        if (known := self.get(row)) is not None:  # asked twice while it waited
            return known
        events = self._originals().events(row, engine.mllm, engine.sae)
        with self.lock:
            self.found[row] = events
            while len(self.found) > 1 and (
                len(self.found) > MOST or sum(len(one.z_e) for one in self.found.values()) > MOST_EVENTS
            ):
                self.found.popitem(last=False)
        return events


def original_images(served: OpenStore, sample_id: str, row: int) -> list[Image.Image]:
    """The images that a live request for a stored sample shows the model; none for text alone.

    Raises:
        HTTPException: 409 where they cannot be read again, or are no longer those of the store.
    """
    try:
        return served.recomputed.original_images(row)
    except StoreUnreadable:
        raise
    except SaevxError as error:
        raise HTTPException(
            409,
            f"The image of sample {sample_id} cannot be read from the data again ({str(error).rstrip('.')}): bring the "
            "data back, or send the image itself.",
        ) from error


def not_kept(served: OpenStore, sample_id: str) -> str:
    kept = served.manifest.get("events", {}).get("kept", "all")
    return f"The activations of sample {sample_id} are not kept in this store, which was made with --events {kept}"


def resting(live: Live, served: OpenStore, sample_id: str, row: int) -> str | None:
    """Why the activations of a sample cannot be had now, in a sentence; None where they are kept or can be computed."""
    status = live.status(served.name)
    if served.store.events.has(row) or status.state == "ready" or served.recomputed.get(row) is not None:
        return None
    said = not_kept(served, sample_id)
    if status.state == "loading":
        return f"{said}, and the model that computes them anew is still being loaded: try again in a few seconds."
    off = status.state == "off"
    way = "run `saevx serve` with the live model" if off else f"the live model rests ({status.reason})"
    return f"{said}: {way}, or make the store with --events all."


async def events_anew(
    live: Live, served: OpenStore, sample_id: str, row: int, request: Request
) -> SampleEvents:
    """The events of a sample that are not in the store. Whoever waits for the model, however long its queue, holds no
    thread, so that the pages go on.

    Raises:
        HTTPException: 503 where the live model rests or its queue is full, 409 where the original pair cannot be read
            again.
        ClientLeft: the client left while it waited.
    """
    if (known := served.recomputed.get(row)) is not None:
        return known
    if (why := resting(live, served, sample_id, row)) is not None:
        again = {"Retry-After": "5"} if live.status(served.name).state == "loading" else None
        raise HTTPException(503, why, again)
    with live.reserve(served.name) as place:
        return await _compute(place, served, sample_id, row, request)


async def _compute(
    place: Reservation, served: OpenStore, sample_id: str, row: int, request: Request
) -> SampleEvents:
    try:
        return await place.call(lambda engine: served.recomputed.compute(row, engine), request)
    except StoreUnreadable:
        raise
    except SaevxError as error:
        reason = str(error).rstrip(".")
        raise HTTPException(
            409,
            f"{not_kept(served, sample_id)}, and they cannot be computed anew ({reason}): bring the data back, or make "
            "the store with --events all.",
        ) from error


async def with_events(
    live: Live, served: OpenStore, sample_id: str, request: Request, answer: Callable[[SampleEvents | None], T]
) -> T:
    """What `answer` says in a thread, given the sample's events where they are not in the store: without them it raises
    EventsNotStored.

    Raises:
        HTTPException, ClientLeft: as `events_anew`.
    """
    try:
        return await run_in_threadpool(answer, None)
    except EventsNotStored as missing:
        row = missing.row
    return await run_in_threadpool(answer, await events_anew(live, served, sample_id, row, request))


async def events_if_ready(
    live: Live, served: OpenStore, rows: Sequence[int], request: Request
) -> dict[int, SampleEvents]:
    """The events of the rows that are not in the store, as far as they can be had now."""
    found: dict[int, SampleEvents] = {}
    with contextlib.ExitStack() as stack:
        place: Reservation | None = None
        for row in rows:
            known = served.recomputed.get(row)
            try:
                if known is None:
                    place = place or stack.enter_context(live.reserve(served.name))
                    known = await _compute(place, served, "", row, request)
                found[row] = known
            except HTTPException as refused:
                if refused.status_code == 503:
                    return found | {row: one for row in rows if (one := served.recomputed.get(row)) is not None}
    return found
