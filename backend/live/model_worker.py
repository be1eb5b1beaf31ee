"""The live model: one worker beside the event loop, loaded in the background, one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fastapi import HTTPException, Request

from backend.schemas import LiveStatus
from backend.settings import Settings
from precompute.errors import SaevxError
from precompute.store.opening import located

if TYPE_CHECKING:
    from precompute.model.mllm import Mllm
    from precompute.sae.sae import SaeV

log = logging.getLogger(__name__)
T = TypeVar("T")

OFF = "The server was started without the live model (--no-live): browsing works, live requests rest."
LOADING = "The model is still being loaded; try again in a few seconds."
CHANGED = "The store was made again while this request waited for the model; try again in a few seconds."
CLOSING = "The server is being shut down."


class Served(Protocol):
    """What this module needs of an open store."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def manifest(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Engine:
    """The whole model and the SAE of one store."""

    mllm: Mllm
    sae: SaeV


class ClientLeft(Exception):  # noqa: N818 - no error
    """Whoever asked has closed the connection: there is nobody to answer."""


class Live:
    """Engines by store name, and the queue in front of the one worker.

    Counters are touched on the event loop only; the worker fills `engines` and `states`."""

    def __init__(self, settings: Settings, stores: Iterable[Served]) -> None:
        self.settings = settings
        self.served: dict[str, Served] = {}
        self.engines: dict[str, Engine] = {}
        self.states: dict[str, LiveStatus] = {}
        self.waiting = 0
        """Reservations that are held."""
        self.closing = threading.Event()
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live-model")
        for store in stores:
            self._announce(store)

    def start(self) -> None:
        """Load every store's engine in the worker, in order; stores of one model and layer share it."""
        for store in self.served.values():
            self._submit(store)

    def stop(self) -> None:
        self.closing.set()
        self.worker.shutdown(wait=False, cancel_futures=True)

    def replace(self, store: Served) -> None:
        """Another store was opened under this name: the model is loaded anew, as it may be another one, and nothing is
        answered until it is there."""
        self.engines.pop(store.name, None)
        self._announce(store)
        self._submit(store)

    def status(self, name: str) -> LiveStatus:
        return self.states[name].model_copy(update={"waiting": self.waiting})

    def reserve(self, name: str) -> Reservation:
        """A place in the queue, to be released; or HTTP 503 with why and, where it helps, when to ask again."""
        status = self.states[name]
        if status.state == "loading":
            raise HTTPException(503, LOADING, {"Retry-After": "5"})
        if status.state != "ready":
            raise HTTPException(503, status.reason)
        if self.waiting > self.settings.queue:
            raise HTTPException(
                503,
                f"{self.waiting} requests wait for the model already; try again soon.",
                {"Retry-After": "10"},
            )
        return Reservation(self, name, self.engines[name])

    def _announce(self, store: Served) -> None:
        self.served[store.name] = store
        off = LiveStatus(state="off", reason=OFF)
        self.states[store.name] = LiveStatus(state="loading", reason=LOADING) if self.settings.live else off

    def _submit(self, store: Served) -> None:
        if self.settings.live and not self.closing.is_set():
            self.worker.submit(self._load, store)

    def _load(self, store: Served) -> None:
        name = store.name
        if self.closing.is_set() or self.served[name] is not store:
            return
        try:
            engine = load_engine(self.settings, store, list(self.engines.values()))
            if self.served[name] is store:
                self.engines[name] = engine
            state = LiveStatus(state="ready")
            log.info("The live model of store %s is ready.", name)
        except SaevxError as error:
            state = LiveStatus(state="failed", reason=str(error))
            log.warning("The live model of store %s rests: %s", name, error)
        except Exception as error:
            # Browsing must go on whatever a model's files hold.
            state = LiveStatus(state="failed", reason=f"The model could not be loaded: {error}")
            log.exception("The live model of store %s could not be loaded.", name)
        if self.served[name] is store:  # else its successor is loaded next
            self.states[name] = state


class Reservation:
    """A place in the queue of the live model, held from the check that there is one until the request has been
    answered: whatever was admitted also runs. On the event loop only."""

    def __init__(self, live: Live, name: str, engine: Engine) -> None:
        self.live, self.name, self.engine = live, name, engine
        self.job: Future[Any] | None = None
        self.loop = asyncio.get_running_loop()
        self.released = False
        live.waiting += 1

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the place back, once: at once, or as soon as the worker has done what it has begun."""
        if self.released:
            return
        self.released = True
        if self.job is None or self.job.done() or self.job.cancel():
            self.live.waiting -= 1
        else:
            self.job.add_done_callback(lambda _: self._on_loop(self._give_back))

    def _give_back(self) -> None:
        self.live.waiting -= 1

    def _on_loop(self, call: Callable[..., None], *values: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(call, *values)
        except RuntimeError:  # the loop was closed: nobody else counts
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
        """`work` in the worker thread. It is not begun any more when the client of `request`, whose body has been read,
        leaves before its turn.

        Raises:
            ClientLeft: the client left.
        """
        job = self._submit(work)
        answer = asyncio.wrap_future(job)
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
        gone = None if request is None else asyncio.ensure_future(until_gone(request))
        try:
            await asyncio.wait([one for one in (answer, gone) if one is not None], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientLeft
            if answer.cancelled():
                raise HTTPException(503, CLOSING, {"Retry-After": "10"})
            return answer.result()
        finally:
            job.cancel()
            if gone is not None:
                gone.cancel()

    async def stream(self, work: Callable[[Engine, Callable[[T], None], Callable[[], bool]], None]) -> AsyncIterator[T]:
        """What `work(engine, emit, stop)` emits, as it comes. `stop()` turns true when the consumer has left
        or the server closes; an exception of `work` is raised here after everything emitted before it."""
        events: asyncio.Queue[T | None] = asyncio.Queue()
        left = threading.Event()

        def stop() -> bool:
            return left.is_set() or self.live.closing.is_set()

        def emit(event: T | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody listens
                self.loop.call_soon_threadsafe(events.put_nowait, event)

        def run(engine: Engine) -> None:
            if not stop():
                work(engine, emit, stop)

        job = self._submit(run)
        job.add_done_callback(lambda _: emit(None))
        try:
            while (event := await events.get()) is not None:
                yield event
            if job.cancelled():
                raise HTTPException(503, CLOSING, {"Retry-After": "10"})
            job.result()
        finally:
            left.set()
            job.cancel()


async def until_gone(request: Request) -> None:
    """Until the client of a request whose body has been read closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def load_engine(settings: Settings, served: Served, others: list[Engine]) -> Engine:
    """The store's model, whole, and its SAE, where the options or the store say they lie.

    Raises SaevxError where either is not found or does not fit the store."""
    from precompute.live.engine import load_sae
    from precompute.model.identity import check_model
    from precompute.model.mllm import Mllm

    manifest = served.manifest
    model_at = settings.model or located(served.path, manifest, "model")
    layer = int(manifest["model"]["layer"])
    sae = load_sae(served.path, manifest, settings.sae, settings.device, settings.sae_format)
    for other in others:
        if other.mllm.source == model_at:
            shared = copy.copy(other.mllm)  # the same weights, read at another layer
            shared.layer = layer
            check_model(shared, manifest)
            return Engine(shared, sae)
    mllm = Mllm.load(
        model_at,
        layer=layer,
        full=True,
        device=settings.device,
        dtype=settings.dtype,
        device_map=settings.device_map,
        quantize=settings.quantize,
        geometry=(manifest.get("options") or {}).get("geometry"),
    )
    sae.check(mllm.d_model)
    check_model(mllm, manifest)
    return Engine(mllm, sae)
