"""Replies of the live model that are held, so that who asks the same again does not wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from backend.deps import Visit
from backend.live.lru import request_key
from backend.live.model_worker import Reservation

if TYPE_CHECKING:
    from backend.live.engines import Engine

T = TypeVar("T")
Work = Callable[["Engine"], T]


async def cached_reply(visit: Visit, body: BaseModel, prepare: Callable[[Reservation, threading.Event], Work[T]]) -> T:
    """The reply to a request, from the cache or by the live model.

    Args:
        prepare: called in a thread; returns the work of the model. The event is set when nobody waits any more.

    Raises:
        HTTPException: 503 if the model is not ready or its queue is full.
        ClientLeft: the client closed the connection while it waited.
    """
    cache, key = visit.store.recomputed.explanations, request_key(body)
    if (reply := cache.get(key)) is not None:
        held_reply: T = reply
        return held_reply
    client_left = threading.Event()
    with visit.reserve() as reservation:
        work = await run_in_threadpool(prepare, reservation, client_left)
        try:
            result = await reservation.call(work, visit.request)
        finally:
            client_left.set()  # the client may have gone, and what nobody waits for must not hold up the others
    cache.put(key, result)
    return result
