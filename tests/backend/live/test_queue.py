"""The queue before the live model: a full one is refused before anything starts, a place is held from the check to the
answer and given back once, and whoever waits holds up nobody's pages. The real server on a real socket."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import httpx
import pytest

from backend.app import THREADS
from backend.settings import Settings
from tests.helpers.running import Running
from tests.helpers.tinies import make_tiny_store

API = "/api/v1"
QUEUE = 3
PLACES = QUEUE + 1
"""One request that is worked on, and those that wait."""
FEATURES = count()
"""Features whose effect has not been measured yet."""
EFFECT = 7
"""Place of the effect of a feature among `requests`."""


@pytest.fixture(scope="module")
def root(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the store of `made`, one of the same pairs that keeps no events."""
    root = tmp_path_factory.mktemp("queue")
    for name in ("model", "sae", "data", "store"):
        (root / name).symlink_to(made / name)
    make_tiny_store(made, out=root / "none", name="none", events="none", sinks="keep")
    return root


@pytest.fixture(scope="module")
def running(root: Path) -> Iterator[Running]:
    settings = Settings(stores=[root / "store", root / "none"], device="cpu", queue=QUEUE)
    with Running(settings) as server:
        server.until(lambda: server.state.live.status("none").state == "ready", 60)
        yield server
        server.free()


def image(root: Path) -> dict[str, Any]:
    return {"image": ("a.png", (root / "data" / "003.png").read_bytes(), "image/png")}


def requests(root: Path) -> list[Any]:
    """One of every kind that needs the model, as functions of the server."""
    steer = {"sample_id": "pair-2", "prompt": "what is it", "max_tokens": 3}
    return [
        lambda server: server.post(f"{API}/search", data={"text": "a dog"}),
        lambda server: server.post(f"{API}/search", files=image(root)),
        lambda server: server.post(f"{API}/search", data={"text": "a dog", "sample_id": "pair-3"}),
        lambda server: server.post(f"{API}/score", files=image(root), data={"text": "a dog"}),
        lambda server: server.post(f"{API}/steer", json=steer),
        lambda server: server.post("/search", data={"q": "a dog", "model": "true"}, follow_redirects=True),
        lambda server: server.get("/search?q=a+dog&model=true"),
        lambda server: server.get(f"{API}/features/{next(FEATURES)}/effect"),
        lambda server: server.get(f"{API}/samples/pair-20/activations?feature=1&store=none"),
        lambda server: server.get(f"{API}/samples/pair-21/features?patch=0,1,1&store=none"),
    ]


def test_a_full_queue_is_refused_before_anything_starts(running: Running, root: Path) -> None:
    """Of forty-five requests at once exactly those that fit are admitted, and every one of these is answered in full.
    The effect of a feature is left out: where no pair has it, the answer takes no model and frees its place."""
    query = [*requests(root)[:EFFECT], *requests(root)[EFFECT + 1 :]] * 5
    with ThreadPoolExecutor(len(query)) as people:
        with running.held_up():
            waiting = [people.submit(ask, running) for ask in query]
            running.until(lambda: sum(one.done() for one in waiting) == len(query) - PLACES)
            assert running.state.live.waiting == PLACES
            refused = [one.result() for one in waiting if one.done()]
            assert running.get(f"{API}/live").json()["waiting"] == PLACES
        admitted = [one.result() for one in waiting if one.result() not in refused]
    assert len(admitted) == PLACES
    for reply in refused:
        assert reply.status_code == 503 and int(reply.headers["retry-after"]) > 0, reply.text[:200]
        assert "event-stream" not in reply.headers["content-type"]
        assert "requests are already waiting for the model" in reply.text
    for reply in admitted:
        assert reply.status_code == 200 and "event: error" not in reply.text, reply.text[:200]
        assert "event-stream" not in reply.headers["content-type"] or "event: done" in reply.text
    running.free()


def test_a_place_is_given_back_however_a_request_ends(running: Running, root: Path) -> None:
    broken = {"image": ("a.png", b"no image", "image/png")}
    ends: list[tuple[int, Any]] = [
        (200, requests(root)[0]),
        (200, requests(root)[3]),
        (422, lambda server: server.post(f"{API}/search", files=broken)),
        (422, lambda server: server.post(f"{API}/search")),
        (422, lambda server: server.post(f"{API}/score", data={"text": "a dog"})),
        (422, lambda server: server.post(f"{API}/score", files=broken, data={"text": "a dog"})),
        (422, lambda server: server.post(f"{API}/search", data={"text": "<image>"})),
        (404, lambda server: server.post(f"{API}/search", data={"text": "a dog", "sample_id": "nobody"})),
        (200, lambda server: server.post(f"{API}/search?store=none", data={"sample_id": "pair-22"})),
        (422, lambda server: server.post(f"{API}/steer", content=b"{")),
        (422, lambda server: server.post(f"{API}/steer", json={"prompt": "x", "scope": []})),
        (422, lambda server: server.post(f"{API}/steer", json={"prompt": "x", "image": "AAAA"})),
        (404, lambda server: server.post(f"{API}/steer", json={"prompt": "x", "sample_id": "nobody"})),
        (422, lambda server: server.post(f"{API}/steer", json={"prompt": "<image>", "max_tokens": 2})),
        (404, lambda server: server.get(f"{API}/features/9999/effect")),
        (422, lambda server: server.post("/search", files=broken)),
        (404, lambda server: server.get("/search?sample=nobody")),
        (404, lambda server: server.get(f"{API}/samples/nobody/activations?feature=1&store=none")),
        (404, lambda server: server.get(f"{API}/samples/pair-20/features?position=999&store=none")),
        (404, lambda server: server.get(f"{API}/samples/pair-20/activations?feature=9999&store=none")),
    ]
    for status, ask in ends * 2:
        assert ask(running).status_code == status
        running.free()
    assert requests(root)[0](running).status_code == 200


def begin(server: Running, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> socket.socket:
    """A request whose answer nobody has read yet."""
    place = urlparse(server.url)
    wire = socket.create_connection((place.hostname, place.port), timeout=60)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    wire.sendall(head.encode() + body)
    return wire


def test_whoever_leaves_while_waiting_is_not_computed_for(running: Running) -> None:
    form, steer = b"text=a+dog", json.dumps({"prompt": "x", "max_tokens": 200}).encode()
    urlencoded = "application/x-www-form-urlencoded"
    done = running.state.stores["none"].recomputed
    row = running.state.stores["none"].reader.samples.row("pair-30")
    assert done.events.get(row) is None
    with running.held_up():
        for _ in range(3):
            wires = [
                begin(running, "GET", f"{API}/samples/pair-30/activations?feature=1&store=none"),
                begin(running, "POST", f"{API}/search", form, urlencoded),
                begin(running, "POST", f"{API}/steer", steer),
                begin(running, "GET", "/search?q=a+dog&model=true"),
            ]
            running.until(lambda: running.state.live.waiting == PLACES)
            for wire in wires:
                wire.close()
            running.free()
    running.state.live.worker.submit(lambda: None).result(20)
    assert done.events.get(row) is None, "it was computed for nobody"
    running.free()


def test_whoever_leaves_while_their_text_is_written_stops_it(running: Running) -> None:
    body = json.dumps({"prompt": "a dog", "max_tokens": 200, "temperature": 1.5, "seed": 1}).encode()
    with begin(running, "POST", f"{API}/steer", body) as wire:
        begun = b""
        while b"event: " not in begun:
            begun += (subset := wire.recv(4096))
            assert subset, begun
        assert running.state.live.waiting == 1
    running.free()
    running.state.live.worker.submit(lambda: None).result(20)


def test_fifty_who_wait_hold_up_no_page(root: Path) -> None:
    """More than there are threads for pages: none of them holds one, and the number of threads stays as it is."""
    settings = Settings(stores=[root / "none"], device="cpu", queue=60)
    rows = [row for row in range(40) if row != 7]  # which has an id of its own
    query = [f"{API}/samples/pair-{row}/activations?feature=0" for row in rows]
    query += [f"/samples/pair-{row}?feature=0" for row in rows[:7]]
    with Running(settings) as server, ThreadPoolExecutor(50) as people:
        active = server.get(f"{API}/features?sort=n_samples&order=desc&limit=1").json()["items"][0]["id"]
        query += [f"{API}/features/{active}/examples"] * 4
        assert len(query) == 50 > THREADS
        with server.held_up():
            waiting = [people.submit(server.get, path) for path in query]
            server.until(lambda: server.state.live.waiting == len(query))
            for path in ("/", "/features", "/features/3", "/samples", f"{API}/flags", "/static/css/base.css"):
                assert server.get(path).status_code == 200, path
            assert not any(one.done() for one in waiting)
        assert [one.result().status_code for one in waiting] == [200] * len(query)
        server.free()


def test_the_server_answers_while_searches_run(running: Running, root: Path) -> None:
    """Each within the patience of a load balancer: nothing of a search is done on the event loop."""
    stop = threading.Event()

    def search() -> int:
        n = 0
        while not stop.is_set():
            status = running.post(f"{API}/search", files=image(root), data={"text": "a dog"}).status_code
            assert status in (200, 503)
            n += 1
        return n

    with ThreadPoolExecutor(4) as people:
        searches = [people.submit(search) for _ in range(4)]
        try:
            for _ in range(30):
                assert httpx.get(running.url + "/healthz", timeout=60).status_code == 200
        finally:
            stop.set()
        assert sum(one.result() for one in searches) > 4
    running.free()


def test_a_server_that_ends_says_so_to_whoever_waits(root: Path) -> None:
    with Running(Settings(stores=[root / "none"], device="cpu")) as server, ThreadPoolExecutor(2) as people:
        with server.held_up():
            query = people.submit(server.post, f"{API}/search", data={"text": "a dog"})
            streamed = people.submit(server.post, f"{API}/steer", json={"prompt": "x"})
            server.until(lambda: server.state.live.waiting == 2)
            server.state.live.stop()
        assert query.result().status_code == 503 and "shutting down" in query.result().json()["detail"]
        assert "event: error" in streamed.result().text and "shutting down" in streamed.result().text
        server.free()
