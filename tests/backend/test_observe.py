"""/metrics, the log as JSON, ids of requests, and the share of the live model's queue that one visitor may take."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.live.engines import Engine
from backend.live.model_worker import CLIENT
from backend.middleware.observe import JsonLines
from backend.settings import Settings
from tests.helpers.in_process import apart
from tests.helpers.servers import Server, figures

SECRET, CAPTION = "correct-horse-battery", "zebra-crossing"


@pytest.fixture
def fresh(store_path: Path) -> Iterator[TestClient]:
    app = create_app(Settings(stores=[store_path], live=False, root_path="/x"))
    with TestClient(app, base_url="http://testserver/x") as client:
        yield client


def test_metrics_count_requests_by_the_template_of_their_route(fresh: TestClient) -> None:
    for path in ("/features/3", "/features/4", "/api/v1/features/5", "/nothing/a", "/nothing/b"):
        fresh.get(path)
    fresh.get("/static/css/base.css")
    assert fresh.request("MADEUP", "/features").status_code == 405
    reply = fresh.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    values = figures(reply.text)
    counts = {key[2]: n for key, n in values.items() if key[0] == "saevx_request_seconds_count" and key[1] == "GET"}
    expected = {"/features/{id}": 2, "/api/v1/features/{feature}": 1, "none": 2, "/static": 1}
    assert expected.items() <= counts.items()
    assert {key[1] for key in values if key[0] == "saevx_request_seconds_count"} == {"GET", "other"}
    assert values["saevx_requests_in_flight",] == 1 and values["saevx_live_queue",] == 0
    store = fresh.get("/healthz").json()["stores"][0]
    assert [values["saevx_model_state", state, store] for state in ("off", "ready")] == [1, 0]
    assert values["saevx_cache_bytes", "uploads"] == 0 and values["process_resident_memory_bytes",] > 1e6
    assert "/features/3" not in reply.text and "/nothing" not in reply.text


@pytest.mark.parametrize("own", ["req-1.A_b", "a" * 64])
def test_a_plain_id_is_taken_over(fresh: TestClient, own: str) -> None:
    assert fresh.get("/", headers={"X-Request-ID": own}).headers["x-request-id"] == own


@pytest.mark.parametrize("own", ["", "a b", "a" * 65, "a\tb", '"', "é", "{}"])
def test_another_id_is_replaced(fresh: TestClient, own: str) -> None:
    ids = {fresh.get("/", headers={b"X-Request-ID": own.encode()}).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2 and all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


def test_the_log_is_json_and_tells_nothing_that_visitors_sent(store_path: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with Server(store_path, "--no-live", "--log-json", "--token", SECRET, log=log) as server:
        host = urlparse(server.url)
        for path in (f"/?token={SECRET}", f"/samples?q={CAPTION}", f"/{CAPTION}", "/features/1"):
            connection = HTTPConnection(str(host.hostname), host.port or 0)
            headers = {"Authorization": f"Bearer {SECRET}", "X-Request-ID": f"own-{path[1:4].strip('?=')}"}
            connection.request("GET", path, headers=headers)
            connection.getresponse().read()
            connection.close()
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    requests = [line for line in lines if line["logger"] == "saevx.access" and line["request_id"].startswith("own-")]
    assert [(line["route"], line["status"]) for line in requests] == [
        ("none", 303),
        ("/samples", 200),
        ("none", 404),
        ("/features/{id}", 200),
    ]
    assert all(line["seconds"] > 0 and line["bytes"] >= 0 and line["time"].endswith("Z") for line in requests)
    assert CAPTION not in log.read_text()
    assert SECRET not in "".join(line for line in log.read_text().splitlines() if line.startswith("{"))


def test_an_exception_is_logged_with_its_place_and_not_its_words() -> None:
    try:
        raise ValueError(CAPTION)
    except ValueError as error:
        record = logging.LogRecord("backend", logging.ERROR, "x.py", 1, "failed", (), (ValueError, error, None))
    line = json.loads(JsonLines().format(record))
    assert line["error"] == "ValueError" and line["level"] == "error"
    assert "test_an_exception" in line["stack"][0] and CAPTION not in str(line)


@pytest.fixture(scope="module")
def ready(store_path: Path) -> FastAPI:
    """An application whose queue admits requests; nothing asks its model."""
    app = create_app(Settings(stores=[store_path], queue=12, queue_per_client=3))
    live = app.state.saevx.live
    name = app.state.saevx.default_name
    live.states[name] = live.states[name].model_copy(update={"state": "ready"})
    live.engines[name] = Engine(None, None)  # type: ignore[arg-type]
    return app


def test_one_visitor_takes_its_share_of_the_queue_and_no_more(ready: FastAPI) -> None:
    live, name = ready.state.saevx.live, ready.state.saevx.default_name

    async def fill() -> None:
        places: list[Any] = []

        def reserve(client: str) -> None:
            CLIENT.set(client)
            places.append(live.reserve(name))

        for client in ("10.0.0.1", "@kim", "@localhost"):
            for _ in range(3):
                reserve(client)
            with pytest.raises(HTTPException) as refused:
                reserve(client)
            assert refused.value.status_code == 429 and refused.value.headers == {"Retry-After": "5"}
            assert "3 of your requests are already waiting" in refused.value.detail
        places.pop().release()
        reserve("@localhost")  # a place of its own is free again
        reserve("127.0.0.1")  # whoever sits at the machine takes what is left
        for _ in range(3):
            reserve("127.0.0.1")
        with pytest.raises(HTTPException) as full:
            reserve("10.0.0.9")
        assert full.value.status_code == 503
        for place in places:
            place.release()

    apart(asyncio.run, fill())  # a browser's event loop may run in this thread
    assert live.waiting == 0
