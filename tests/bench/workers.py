"""New pages of the server over the wide store a second: two workers over one, with as many clients as they can serve.
The clients run on the same cores; each sends its next request when it has its page."""

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np

from precompute.store.reader import Store
from tests.bench.common import Setup, begin, free_port, until_ready
from tests.bench.store import wide

CLIENTS, SECONDS, ROUNDS = 50, 20, 3


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


def rate(path: Path, workers: int, n_features: int, seed: int, seconds: float) -> float:
    """Pages a second of a server of its own, warmed up by other pages."""
    port = free_port()
    server = begin("serve", path, "--port", port, "--no-live", "--workers", workers)
    try:
        until_ready(server, f"http://127.0.0.1:{port}")
        asyncio.run(crowd(port, n_features, seed + CLIENTS, min(3.0, 2 * seconds)))
        return asyncio.run(crowd(port, n_features, seed, seconds))
    finally:
        server.terminate()
        server.wait()


def run(setup: Setup) -> dict[str, Any]:
    path, seconds, rounds = wide(setup), 0.6 if setup.small else SECONDS, 1 if setup.small else ROUNDS
    store = Store.open(path)
    f, n = store.n_features, store.n_samples
    store.close()
    rates = {workers: [rate(path, workers, f, 1000 * i, seconds) for i in range(rounds)] for workers in (1, 2)}
    one, two = (float(np.median(rates[workers])) for workers in (1, 2))
    return {
        "options": {"features": f, "samples": n, "clients": CLIENTS, "seconds": seconds, "rounds": rounds},
        "figures": [{
            "what": "new pages of features a second, --workers 2 over --workers 1", "value": two / one, "unit": "×",
            "goal": 1.5, "sense": "≥",
            "note": f"{one:.0f} and {two:.0f} a second; {f} features, {n} pairs; {CLIENTS} clients on the same cores",
        }],
        "rates": rates,
    }  # fmt: skip
