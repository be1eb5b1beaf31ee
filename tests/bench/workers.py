"""New pages of the server over the wide store a second: two workers over one, with as many clients as they can serve.
The clients run on the same cores; each sends its next request when it has its page. Then two workers alone, with what
server.py asks of one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from precompute.store.reader import Store
from tests.bench import server as one_worker
from tests.bench.common import Figure, Setup, begin, free_port, until_ready
from tests.bench.store import wide

CLIENTS, SECONDS, ROUNDS = 50, 20, 3
OF_TWO = (
    "a feature's page", "the page of features", "a sample's page", "search by words", "the page of a search by words",
)  # fmt: skip
"""What one worker is slowest at."""


async def client(port: int, n_features: int, seed: int, end: float) -> int:
    """How many pages of features chance chose came over one connection."""
    rng, count = np.random.Generator(np.random.PCG64(seed)), 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < end:
        head = f"GET /features/{rng.integers(n_features)} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"
        writer.write(head.encode())
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert headers.startswith(b"http/1.1 200"), headers[:80]
        length = next(line for line in headers.split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        count += 1
    writer.close()
    return count


async def crowd(port: int, n_features: int, seed: int, seconds: float) -> float:
    """Pages a second."""
    begin = time.perf_counter()
    counts = await asyncio.gather(*(client(port, n_features, seed + i, begin + seconds) for i in range(CLIENTS)))
    return sum(counts) / (time.perf_counter() - begin)


@contextmanager
def serving(path: Path, workers: int) -> Iterator[int]:
    """The port of a server of its own."""
    port = free_port()
    server = begin("serve", path, "--port", port, "--no-live", "--workers", workers)
    try:
        until_ready(server, f"http://127.0.0.1:{port}")
        yield port
    finally:
        server.terminate()
        server.wait()


def rate(path: Path, workers: int, n_features: int, seed: int, seconds: float) -> float:
    """Pages a second, the server warmed up by other pages."""
    with serving(path, workers) as port:
        asyncio.run(crowd(port, n_features, seed + CLIENTS, min(3.0, 2 * seconds)))
        return asyncio.run(crowd(port, n_features, seed, seconds))


def latencies(store: Store, path: Path, seconds: float) -> tuple[dict[str, dict[str, float]], list[Figure]]:
    """What people wait for with two workers, by name, and its figures."""
    report, figures = {}, list[Figure]()
    with serving(path, 2) as port:
        for name, (ask, goal) in one_worker.asks(store).items():
            if name not in OF_TWO:
                continue
            report[name] = one_worker.latency(asyncio.run(one_worker.crowd(f"http://127.0.0.1:{port}", ask, seconds)))
            figures.append({
                "what": f"{name}, --workers 2: 95 % within", "value": report[name]["p95_ms"], "unit": "ms",
                "goal": float(goal), "sense": "≤",
                "note": f"{store.n_features} features, {store.n_samples} pairs; {one_worker.CLIENTS} clients on these "
                f"cores, {report[name]['requests']:.0f} requests",
            })  # fmt: skip
    return report, figures


def run(setup: Setup) -> dict[str, Any]:
    path, seconds, rounds = wide(setup), 0.6 if setup.small else SECONDS, 1 if setup.small else ROUNDS
    store = Store.open(path)
    f, n = store.n_features, store.n_samples
    report, figures = latencies(store, path, seconds)
    store.close()
    rates = {workers: [rate(path, workers, f, 1000 * i, seconds) for i in range(rounds)] for workers in (1, 2)}
    one, two = (float(np.median(rates[workers])) for workers in (1, 2))
    return {
        "options": {"features": f, "samples": n, "clients": CLIENTS, "seconds": seconds, "rounds": rounds},
        "figures": [{
            "what": "new pages of features a second, --workers 2 over --workers 1", "value": two / one, "unit": "×",
            "goal": 1.5, "sense": "≥",
            "note": f"{one:.0f} and {two:.0f} a second; {f} features, {n} pairs; {CLIENTS} clients on the same cores",
        }, *figures],
        "rates": rates, "latency": report,
    }  # fmt: skip
