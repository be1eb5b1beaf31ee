"""The live model: loaded in the background by one worker thread, which answers one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

from fastapi import HTTPException, Request

from backend.live.engines import Engine, ModelStore, load_engine
from backend.live.rates import Rates
from backend.schemas.common import LiveStatus
from backend.settings import Settings, is_loopback
from precompute.errors import SaevxError

log = logging.getLogger(__name__)
T = TypeVar("T")

OFF = "The model is off (started with --no-live): start the server without --no-live to use it."
LOADING = "The model is still loading; try again in a few seconds."
CHANGED = "The store was replaced while this request waited for the model; try again in a few seconds."
CLOSING = "The server is shutting down."
CLIENT: ContextVar[str] = ContextVar("client", default="")
"""Who sends the request that is being answered: `@` and the user whom the proxy names, or the address."""


class ClientLeft(Exception):  # noqa: N818 - no error
    """The client has closed the connection: there is nobody to answer."""


class Live:
    """Engines by store name, and the queue of the one worker.

    Only the event loop changes the counters; the worker fills `engines` and `states`."""

    def __init__(self, settings: Settings, stores: Iterable[ModelStore]) -> None:
        self.settings = settings
        self.stores: dict[str, ModelStore] = {}
        self.engines: dict[str, Engine] = {}
        self.states: dict[str, LiveStatus] = {}
        self.places: list[Reservation] = []
        """Reservations that are not released yet, in the order of their admission."""
        self.rates = Rates(settings.rate_per_client)
        self.closing = threading.Event()
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live-model")
        self.on_change: Callable[[], None] = lambda: None
        """Called in any thread when a state, or the number of requests that wait, has changed."""
        for store in stores:
            self._announce(store)

    @property
    def waiting(self) -> int:
        return len(self.places)

    def start(self) -> None:
        """Load every store's engine in the worker, in order; stores of the same model share its weights."""
        for store in self.stores.values():
            self._submit(store)

    def stop(self) -> None:
        self.closing.set()
        self.worker.shutdown(wait=False, cancel_futures=True)

    def replace(self, store: ModelStore) -> None:
        """Load the model for a store that was opened in place of another of this name. The model may be a different
        one, so live requests are refused until it is ready."""
        self.engines.pop(store.name, None)
        self._announce(store)
        self._submit(store)

    def state_of(self, name: str) -> LiveStatus:
        """Of a store's model, without the number of requests that wait."""
        return self.states[name]

    def status(self, name: str) -> LiveStatus:
        return self.state_of(name).model_copy(update={"waiting": self.waiting})

    def reserve(self, name: str) -> Reservation:
        """A place in the queue, which the caller releases; or HTTP 503 with the reason and when to try again, or 429
        where one client has its share of places already, or of a minute's requests. This machine's own user may take
        all."""
        status = self.states[name]
        if status.state == "loading":
            raise HTTPException(503, LOADING, {"Retry-After": "5"})
        if status.state != "ready":
            raise HTTPException(503, status.reason)
        if self.waiting > self.settings.queue:
            raise HTTPException(
                503,
                f"{self.waiting} requests are already waiting for the model; try again in a few seconds.",
                {"Retry-After": "10"},
            )
        client = CLIENT.get()
        if client and not is_loopback(client):
            self._check_share(client)
            self.rates.count(client)
        return Reservation(self, name, self.engines[name])

    def _check_share(self, client: str) -> None:
        """Raises HTTPException: 429 if the client has as many places, or sent as many requests, as it may."""
        n_own, limit = sum(place.client == client for place in self.places), self.settings.queue_per_client
        if n_own >= limit:
            raise HTTPException(
                429,
                f"{n_own} of your requests are already waiting for the model, and it takes {limit} from one visitor: "
                "try again when one of them is answered.",
                {"Retry-After": "5"},
            )
        if wait := math.ceil(self.rates.wait_s(client)):
            n = self.settings.rate_per_client
            raise HTTPException(
                429,
                f"You have asked the model often, and it answers {n} request{'s' if n > 1 else ''} of one visitor a "
                f"minute: try again in {wait} s.",
                {"Retry-After": str(wait)},
            )

    def _announce(self, store: ModelStore) -> None:
        self.stores[store.name] = store
        off_status = LiveStatus(state="off", reason=OFF)
        self.states[store.name] = LiveStatus(state="loading", reason=LOADING) if self.settings.live else off_status
        self.on_change()

    def _submit(self, store: ModelStore) -> None:
        if self.settings.live and not self.closing.is_set():
            self.worker.submit(self._load, store)

    def _load(self, store: ModelStore) -> None:
        name = store.name
        if self.closing.is_set() or self.stores[name] is not store:
            return
        try:
            engine = load_engine(self.settings, store, list(self.engines.values()))
            if self.stores[name] is store:
                self.engines[name] = engine
            state = LiveStatus(state="ready")
            log.info("The live model of store %s is ready.", name)
        except SaevxError as error:
            state = LiveStatus(state="failed", reason=str(error))
            log.warning("The live model of store %s is not available: %s", name, error)
        except Exception as error:
            # Browsing must work whatever a model's files contain.
            state = LiveStatus(state="failed", reason=f"The model could not be loaded: {error}")
            log.exception("The live model of store %s could not be loaded.", name)
        if self.stores[name] is store:  # otherwise the store that replaced it is loaded next
            self.states[name] = state
            self.on_change()


class Reservation:
    """A place in the queue of the live model, from admission until the request has been answered: a request that was
    admitted is never refused later. To be used on the event loop only."""

    def __init__(self, live: Live, name: str, engine: Engine) -> None:
        self.live, self.name, self.engine = live, name, engine
        self.client = CLIENT.get()
        self.job: Future[Any] | None = None
        self.loop = asyncio.get_running_loop()
        self.released = False
        live.places.append(self)
        live.on_change()

    @property
    def n_before(self) -> int:
        """Requests that were admitted before this one and are not answered yet."""
        return self.live.places.index(self) if self in self.live.places else 0

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the place back, once: now, or when the worker finishes the job if it has already begun."""
        if self.released:
            return
        self.released = True
        if self.job is None or self.job.done() or self.job.cancel():
            self._give_back()
        else:
            self.job.add_done_callback(lambda _: self._on_loop(self._give_back))

    def _give_back(self) -> None:
        self.live.places.remove(self)
        self.live.on_change()

    def _on_loop(self, call: Callable[..., None], *values: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(call, *values)
        except RuntimeError:  # the loop is closed: no other code changes the counter now
            call(*values)

    def _submit(self, work: Callable[[Engine], T]) -> Future[T]:
        def run() -> T:
            if self.live.engines.get(self.name) is not self.engine:
                raise HTTPException(503, CHANGED, {"Retry-After": "5"})
            return work(self.engine)

        try:
            self.job = job = self.live.worker.submit(run)
        except RuntimeError as error:  # it was shut down
            raise HTTPException(503, CLOSING, {"Retry-After": "10"}) from error
        return job

    async def call(self, work: Callable[[Engine], T], request: Request | None = None) -> T:
        """The result of `work` in the worker thread. The job is dropped if the client of `request`, whose body has been
        read, closes the connection before its turn.

        Raises:
            ClientLeft: the client closed the connection.
        """
        job = self._submit(work)
        answer = asyncio.wrap_future(job)
        # Otherwise asyncio warns of an exception that nobody reads.
        answer.add_done_callback(lambda future: future.cancelled() or future.exception())
        until_left = None if request is None else asyncio.ensure_future(until_gone(request))
        try:
            await asyncio.wait([t for t in (answer, until_left) if t is not None], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientLeft
            if answer.cancelled():
                raise HTTPException(503, CLOSING, {"Retry-After": "10"})
            return answer.result()
        finally:
            job.cancel()
            if until_left is not None:
                until_left.cancel()

    async def stream(
        self, work: Callable[[Engine, Callable[[T], None], Callable[[], bool]], None]
    ) -> AsyncGenerator[T]:
        """The events that `work(engine, emit, stop)` emits, as they come. `stop()` becomes true when the consumer has
        left or the server closes. An exception of `work` is raised here, after everything emitted before it."""
        events: asyncio.Queue[T | None] = asyncio.Queue()
        consumer_left = threading.Event()

        def stop() -> bool:
            return consumer_left.is_set() or self.live.closing.is_set()

        def emit(event: T | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads the events
                self.loop.call_soon_threadsafe(events.put_nowait, event)

        def run(engine: Engine) -> None:
            if not stop():
                work(engine, emit, stop)
            if self.live.closing.is_set():
                raise HTTPException(503, CLOSING, {"Retry-After": "10"})

        job = self._submit(run)
        job.add_done_callback(lambda _: emit(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            if job.cancelled():
                raise HTTPException(503, CLOSING, {"Retry-After": "10"})
            job.result()
        finally:
            consumer_left.set()
            job.cancel()


async def until_gone(request: Request) -> None:
    """Return when the client of a request, whose body has been read, closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
