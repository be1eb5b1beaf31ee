"""The server over the wide made-up store: 50 clients, one request a second each, as a group of people browses. Pages
are asked for twice: cold, as nobody has seen them, and again, when the server holds those that were asked for last."""

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np

from precompute.store import schema as s
from precompute.store.reader import Store
from tests.bench.common import Figure, Setup, begin, free_port, until_ready
from tests.bench.store import wide

CLIENTS, SECONDS = 50, 20
SMALL_CLIENTS, SMALL_SECONDS = 10, 0.6
WARM = ("a feature's page", "the page of features", "a sample's page", "the page of co-occurrence")
"""Pages that the server holds once they are rendered."""
WARM_MS = 15
API = "/api/v1"
SORTS = ("omega", "lift", "max_activation", "n_samples", "p_value", "label", "label_score", "density_text", "p999")

Ask = Callable[[np.random.Generator], str]


def asks(store: Store) -> dict[str, tuple[Ask, float]]:
    """What is asked of the server, and the milliseconds within which 95 % should be answered."""
    f, n = store.n_features, store.n_samples
    captions = [row["text"] for row in store.samples.items(range(0, n, max(1, n // 500))).values()]
    words = [word for caption in captions for word in caption.split()]

    def feature(rng: np.random.Generator) -> str:
        return f"/features/{rng.integers(f)}"

    def sample(rng: np.random.Generator) -> str:
        return f"/samples/{quote(store.samples.sample_id(int(rng.integers(n))))}"

    def features(rng: np.random.Generator) -> str:
        given = [f"sort={rng.choice(SORTS)}", f"order={rng.choice(['asc', 'desc'])}"]
        if rng.random() < 0.5:
            given.append(f"verdict={rng.choice(s.VERDICTS)}")
        if rng.random() < 0.3:
            given.append(f"min_omega={rng.random():.2f}")
        return "/features?" + "&".join(given)

    def samples(rng: np.random.Generator) -> str:
        flag = rng.choice(list(s.FLAGS))
        return f"/samples?flag={flag}&sort={flag}&order=desc"

    def pairs(rng: np.random.Generator) -> str:
        given = f"/cooccurrence?sort={rng.choice(['npmi', 'lift', 'support'])}&min_support={rng.integers(5, 40)}"
        return given + (f"&feature={rng.integers(f)}" if rng.random() < 0.3 else "")

    def search(rng: np.random.Generator) -> str:
        return f"/search?q={quote(' '.join(rng.choice(words, rng.integers(1, 3))))}"

    def flags(_: np.random.Generator) -> str:
        return "/flags"

    def of_api(ask: Ask) -> Ask:
        return lambda rng: API + ask(rng)

    return {
        "a feature": (of_api(feature), 20), "a feature's page": (feature, 40),
        "a list of features": (of_api(features), 50), "the page of features": (features, 40),
        "a sample": (of_api(sample), 50), "a sample's page": (sample, 40),
        "the flags": (of_api(flags), 50), "samples by a flag": (of_api(samples), 50),
        "co-occurrence": (of_api(pairs), 50), "the page of co-occurrence": (pairs, 40),
        "search by words": (of_api(search), 50), "the page of a search by words": (search, 40),
    }  # fmt: skip


async def client(http: httpx.AsyncClient, ask: Ask, seed: int, end: float) -> list[tuple[float, int]]:
    """(seconds, bytes) of one request a second, at a place in the second of its own."""
    rng, result = np.random.Generator(np.random.PCG64(seed)), []
    due = time.perf_counter() + float(rng.random())
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        begin = time.perf_counter()
        reply = await http.get(ask(rng))
        result.append((time.perf_counter() - begin, len(reply.content)))
        reply.raise_for_status()
        due += 1
    return result


async def crowd(url: str, ask: Ask, clients: int, seconds: float) -> np.ndarray:
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as http:
        warm = time.perf_counter() + min(2, seconds)  # the first to ask opens files and connections
        await asyncio.gather(*(client(http, ask, 1000 + i, warm) for i in range(clients)))
        end = time.perf_counter() + seconds
        result = await asyncio.gather(*(client(http, ask, i, end) for i in range(clients)))
    return np.array([one for many in result for one in many])


def latency(result: np.ndarray) -> dict[str, float]:
    """Of (seconds, bytes) of each request."""
    ms = result[:, 0] * 1000
    return {
        "requests": len(ms),
        "p50_ms": float(np.median(ms)),
        "p95_ms": float(np.quantile(ms, 0.95)),
        "max_ms": float(ms.max()),
        "bytes": float(result[:, 1].mean()),
    }


def run(setup: Setup) -> dict[str, Any]:
    path = wide(setup)
    clients, seconds = (SMALL_CLIENTS, SMALL_SECONDS) if setup.small else (CLIENTS, SECONDS)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = begin("serve", path, "--port", port, "--no-live")
    store = Store.open(path)
    report: dict[str, dict[str, float]] = {}
    try:
        started = time.perf_counter()
        until_ready(server, url)
        start = time.perf_counter() - started
        wanted = asks(store)
        for name, (ask, _) in wanted.items():
            report[name] = latency(asyncio.run(crowd(url, ask, clients, seconds)))
            if name in WARM:  # the same clients ask for the same pages again
                report[f"{name}, again"] = latency(asyncio.run(crowd(url, ask, clients, seconds)))
    finally:
        server.terminate()
        server.wait()
        store.close()
    f, n = store.n_features, store.n_samples
    goals = {name: goal for name, (_, goal) in wanted.items()} | {f"{name}, again": WARM_MS for name in WARM}
    figures: list[Figure] = [
        {
            "what": f"{name}: 95 % within",
            "value": report[name]["p95_ms"],
            "unit": "ms",
            "goal": float(goal),
            "sense": "≤",
            "note": f"{f} features, {n} pairs; {clients} clients on these cores, "
            f"{report[name]['requests']:.0f} requests",
        }
        for name, goal in goals.items()
    ]
    figures.append({
        "what": "JSON of a feature", "value": report["a feature"]["bytes"] / 1000, "unit": "KB", "goal": 20.0,
        "sense": "≤", "note": "mean, before compression",
    })  # fmt: skip
    return {
        "options": {"features": f, "samples": n, "clients": clients, "seconds": seconds},
        "figures": figures,
        "seconds_to_start": start,
        "latency": report,
    }
