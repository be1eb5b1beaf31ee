"""Activations that a store has not kept, computed anew by the live model from the original pair."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from anyio import from_thread
from anyio.to_thread import current_default_thread_limiter
from fastapi import HTTPException

from backend.live import Engine, Live
from precompute.errors import SaevxError
from precompute.store.events import SampleEvents
from precompute.store.reader import Store

if TYPE_CHECKING:
    from PIL import Image

    from backend.deps import OpenStore
    from precompute.originals import Originals

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

    def original_images(self, row: int) -> list[Image.Image]:
        """The images of a sample as the model saw them in the pass: from the data, not the store's thumbnails.

        Raises:
            SaevxError: with the reason as a clause: the data is gone, or is no longer what the store was made of.
        """
        return list(self._originals().pair(row).images)

    def _originals(self) -> Originals:
        from precompute.originals import Originals

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


def events_anew(live: Live, served: OpenStore, sample_id: str, row: int) -> SampleEvents | None:
    """The events of a sample that are not in the store; None where they are. Called in a worker thread of the server.

    Raises:
        HTTPException: 503 where the live model rests, 409 where the original pair cannot be read again.
    """
    if served.store.events.has(row):
        return None
    if (known := served.recomputed.get(row)) is not None:
        return known
    if (why := resting(live, served, sample_id, row)) is not None:
        again = {"Retry-After": "5"} if live.status(served.name).state == "loading" else None
        raise HTTPException(503, why, again)
    try:
        return from_thread.run(_outside_threads, live, served, row)
    except SaevxError as error:
        reason = str(error).rstrip(".")
        raise HTTPException(
            409,
            f"{not_kept(served, sample_id)}, and they cannot be computed anew ({reason}): bring the data back, or make "
            "the store with --events all.",
        ) from error


async def _outside_threads(live: Live, served: OpenStore, row: int) -> SampleEvents:
    """The model's answer; whoever waits for it, however long its queue, takes no thread from the pages."""
    threads = current_default_thread_limiter()
    threads.total_tokens += 1
    try:
        return await live.call(served.name, lambda engine: served.recomputed.compute(row, engine))
    finally:
        threads.total_tokens -= 1


def events_if_ready(live: Live, served: OpenStore, row: int) -> SampleEvents | None:
    """As `events_anew`, and None where they cannot be had."""
    try:
        return events_anew(live, served, "", row)
    except HTTPException:
        return None
