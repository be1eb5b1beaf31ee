"""The live model: one worker beside the event loop, loaded in the background, one request at a time."""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fastapi import HTTPException

from backend.schemas import LiveStatus
from backend.settings import Settings
from precompute.errors import SaevxError

if TYPE_CHECKING:
    from precompute.model import Mllm
    from precompute.sae import SaeV

log = logging.getLogger(__name__)
T = TypeVar("T")

OFF = "The server was started without the live model (--no-live): browsing works, live requests rest."
LOADING = "The model is still being loaded; try again in a few seconds."


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


class Live:
    """Engines by store name, and the queue in front of the one worker.

    Counters are touched on the event loop only; the worker fills `engines` and `states`."""

    def __init__(self, settings: Settings, stores: Mapping[str, Served]) -> None:
        self.settings, self.stores = settings, stores
        self.engines: dict[str, Engine] = {}
        self.states = {name: LiveStatus(state="loading", reason=LOADING) for name in stores}
        if not settings.live:
            self.states = {name: LiveStatus(state="off", reason=OFF) for name in stores}
        self.waiting = 0
        self.closing = threading.Event()
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live-model")

    def start(self) -> None:
        """Load every store's engine in the worker, in order; stores of one model and layer share it."""
        if self.settings.live:
            for name in self.stores:
                self.worker.submit(self._load, name)

    def stop(self) -> None:
        self.closing.set()
        self.worker.shutdown(wait=False, cancel_futures=True)

    def status(self, name: str) -> LiveStatus:
        return self.states[name].model_copy(update={"waiting": self.waiting})

    def _load(self, name: str) -> None:
        if self.closing.is_set():
            return
        try:
            self.engines[name] = load_engine(self.settings, self.stores[name], list(self.engines.values()))
            self.states[name] = LiveStatus(state="ready")
            log.info("The live model of store %s is ready.", name)
        except SaevxError as error:
            self.states[name] = LiveStatus(state="failed", reason=str(error))
            log.warning("The live model of store %s rests: %s", name, error)
        except Exception as error:
            # Browsing must go on whatever a model's files hold.
            self.states[name] = LiveStatus(state="failed", reason=f"The model could not be loaded: {error}")
            log.exception("The live model of store %s could not be loaded.", name)

    def admit(self, name: str) -> Engine:
        """The engine, or HTTP 503 with why and, where it helps, when to ask again."""
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
        return self.engines[name]

    async def call(self, name: str, work: Callable[[Engine], T]) -> T:
        """`work` in the worker thread."""
        engine = self.admit(name)
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self.worker, work, engine)
        finally:
            self.waiting -= 1

    async def stream(
        self, name: str, work: Callable[[Engine, Callable[[T], None], Callable[[], bool]], None]
    ) -> AsyncIterator[T]:
        """What `work(engine, emit, stop)` emits, as it comes. `stop()` turns true when the consumer has left
        or the server closes; an exception of `work` is raised here after everything emitted before it.

        Admission happens on the first step of the iteration: call `admit` before to answer 503 in time."""
        engine = self.admit(name)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[T | None] = asyncio.Queue()
        left = threading.Event()

        def stop() -> bool:
            return left.is_set() or self.closing.is_set()

        def tell(event: T | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        def run() -> None:
            try:
                if not stop():
                    work(engine, tell, stop)
            finally:
                tell(None)

        self.waiting += 1
        job = loop.run_in_executor(self.worker, run)
        try:
            while (event := await events.get()) is not None:
                yield event
            await job
        finally:
            self.waiting -= 1
            left.set()


def load_engine(settings: Settings, served: Served, others: list[Engine]) -> Engine:
    """The store's model, whole, and its SAE, where the options or the store say they lie.

    Raises SaevxError where either is not found or does not fit the store."""
    from precompute.identity import check_model
    from precompute.live import load_sae, located
    from precompute.model import Mllm

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
