"""Load for `saevx bench reliability`: people who browse all kinds of page while others steer, on one server."""

import asyncio
import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import psutil

from precompute.store.reader import Store
from tests.bench.server import Ask, asks
from tests.helpers.servers import Server

TIMEOUT_S = 120
FIXED = (
    "/", "/map", "/quality", "/sae", "/rejected", "/compare", "/lists", "/docs", "/method", "/try", "/steer",
    "/explain", "/api/v1/store", "/api/v1/stores", "/api/v1/map", "/api/v1/flags", "/metrics", "/readyz",
    "/map?of=samples",
)  # fmt: skip
"""Pages and replies that are the same for all features and samples."""


class Crowd(NamedTuple):
    """How many do what, for how long."""

    clients: int
    """Each asks for a page, and a second after the answer for the next."""
    steering: int
    """Each steers, one run after the other."""
    seconds: float


class Load(NamedTuple):
    """What came of it."""

    requests: int
    failed: list[str]
    """Address and status of each reply of 500 or more but a 503 with `Retry-After`, and of each request without one."""
    busy: int
    """Replies 503 with `Retry-After`."""
    steered: int
    """Runs whose stream ended with `done`."""
    p95_ms: float
    memory_mb: list[float]
    """Memory of the server that no file backs, after each quarter of the time."""


class Tally:
    """Counts of what the clients see."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.ms: list[float] = []
        self.busy = self.steered = 0

    async def ask(self, http: httpx.AsyncClient, method: str, address: str, **more: object) -> str:
        """The body of the reply; empty where there is none."""
        begin = time.perf_counter()
        try:
            reply = await http.request(method, address, **more)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            self.failed.append(f"{method} {address}: {type(error).__name__}")
            return ""
        self.ms.append((time.perf_counter() - begin) * 1000)
        if reply.status_code == 503 and "retry-after" in reply.headers:
            self.busy += 1
        elif reply.status_code >= 500 and not (address == "/readyz" and reply.status_code == 503):
            self.failed.append(f"{method} {address}: {reply.status_code}")
        return reply.text


def load(wide: Path, tiny: Path, log: Path, crowd: Crowd) -> Load:
    """Browsing is over the wide store, steering over a store with a model, in the same server.

    Args:
        tiny: a folder as `saevx demo` leaves one, with model and store.
    """
    store = Store.open(wide)
    kinds = [ask for ask, _ in asks(store).values()]
    store.close()
    with Server(wide, tiny / "store", "--device", "cpu", log=log) as server:
        until_model(server, (tiny / "store").name)
        return asyncio.run(all_at_once(server, kinds, (tiny / "store").name, crowd))


def until_model(server: Server, name: str) -> None:
    """Until the live model of a store is ready. Raises RuntimeError: it is not within two minutes."""
    end = time.monotonic() + 120
    while httpx.get(f"{server.url}/api/v1/live?store={name}", timeout=60).json()["state"] != "ready":
        if time.monotonic() > end:
            raise RuntimeError("the live model is not ready")
        time.sleep(0.5)


async def all_at_once(server: Server, kinds: list[Ask], steered: str, crowd: Crowd) -> Load:
    tally, end = Tally(), time.monotonic() + crowd.seconds
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=TIMEOUT_S) as http:
        people = [browse(http, tally, kinds, seed, end) for seed in range(crowd.clients)]
        people += [steer(http, tally, steered, end) for _ in range(crowd.steering)]
        work, memory = asyncio.gather(*people), []
        for left in (0.75, 0.5, 0.25, 0):  # the last a little before the people leave
            await asyncio.sleep(max(0.0, end - left * crowd.seconds - time.monotonic() - (0 if left else 0.5)))
            memory.append(memory_mb(server.process.pid))
        await work
    p95 = float(np.quantile(tally.ms, 0.95))
    return Load(len(tally.ms), tally.failed, tally.busy, tally.steered, p95, memory)


async def browse(http: httpx.AsyncClient, tally: Tally, kinds: list[Ask], seed: int, end: float) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    fixed: list[Callable[[], str]] = [lambda one=one: one for one in FIXED]  # type: ignore[misc]
    await asyncio.sleep(float(rng.random()))
    while time.monotonic() < end:
        number = int(rng.integers(len(kinds) + len(fixed)))
        address = kinds[number](rng) if number < len(kinds) else fixed[number - len(kinds)]()
        await tally.ask(http, "GET", address, headers={"Accept": "text/html"})
        await asyncio.sleep(1)


SEEDS = count()


async def steer(http: httpx.AsyncClient, tally: Tally, store: str, end: float) -> None:
    while time.monotonic() < end:
        body = {
            "prompt": "what is it",
            "max_tokens": 32,
            "seed": next(SEEDS) % 2**31,
            "features": [{"id": 3, "mode": "add", "strength": 1.0}],
        }
        text = await tally.ask(
            http,
            "POST",
            f"/api/v1/steer?store={store}",
            content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )
        tally.steered += "event: done" in text
        await asyncio.sleep(0.1)


def memory_mb(pid: int) -> float:
    """Resident memory that no file backs (Linux); elsewhere all of it."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1000
    return float(psutil.Process(pid).memory_info().rss) / 1e6
