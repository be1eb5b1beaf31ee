"""`saevx serve --workers`: several processes before one store answer as one."""

import io
import json
import re
import signal
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from tests.helpers.commands import run_saevx
from tests.helpers.servers import Server, figures

API = "/api/v1"
N_CONNECTIONS = 14
"""New connections, each of which one of two workers takes: that one of them takes all has a chance of 1 in 8,000."""


@pytest.fixture(scope="module")
def running(made: Path, interruptible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("workers")
    notes = f"sqlite:///{folder / 'notes.sqlite'}"
    options = ("--workers", "2", "--device", "cpu", "--annotations", notes)
    with Server(made / "store", *options, log=folder / "log.txt") as server:
        server.wait("/readyz", 120)
        yield server


def by_many(server: Server, path: str, **options: Any) -> list[httpx.Response]:
    """The same request over many new connections."""
    return [httpx.get(server.url + path, timeout=120, **options) for _ in range(N_CONNECTIONS)]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def processes(server: Server) -> list[psutil.Process]:
    """The workers, the first one first."""
    return sorted(psutil.Process(server.process.pid).children(), key=lambda one: one.create_time())


def waiting(server: Server) -> int:
    return int(httpx.get(server.url + "/healthz", timeout=60).json()["live"]["waiting"])


def is_running(process: psutil.Process) -> bool:
    """Whether it has not ended; one that has may wait for its parent to notice."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def steer(server: Server, n: int) -> tuple[HTTPConnection, HTTPResponse]:
    connection = HTTPConnection(str(urllib.parse.urlparse(server.url).netloc), timeout=60)
    body = json.dumps({"prompt": "a dog", "max_tokens": n, "temperature": 1.5, "seed": 1})
    connection.request("POST", f"{API}/steer", body, {"Content-Type": "application/json"})
    return connection, connection.getresponse()


def test_both_answer_and_metrics_tells_them_apart(running: Server) -> None:
    pages = by_many(running, "/features/3")
    assert {one.status_code for one in pages} == {200} and len({one.content for one in pages}) == 1
    assert len({one.headers["etag"] for one in pages}) == 1, "what a browser holds is current whichever worker it asks"
    values = figures(httpx.get(running.url + "/metrics").text)
    counts = [values.get(("saevx_request_seconds_count", "GET", "/features/{id}", "200", str(n)), 0) for n in (1, 2)]
    assert sum(counts) == N_CONNECTIONS and min(counts) > 0
    assert min(values["process_resident_memory_bytes", str(number)] for number in (1, 2)) > 0


def test_every_worker_leads_to_the_one_model(running: Server) -> None:
    streams = [steer(running, 12) for _ in range(6)]
    states = [one.json()["live"] for one in by_many(running, "/healthz")]
    assert {one["state"] for one in states} == {"ready"}
    for connection, reply in streams:
        assert reply.status == 200 and reply.getheader("Content-Type", "").startswith("text/event-stream")
        assert len(reply.headers.get_all("Date") or []) == 1
        assert b"event: done" in reply.read()
        connection.close()
    values = figures(httpx.get(running.url + "/metrics").text)
    posts = [values.get(("saevx_request_seconds_count", "POST", "/api/v1/steer", "200", str(n)), 0) for n in (1, 2)]
    assert sum(posts) == 6, "a request is counted by the worker that the visitor asked"


def test_a_stream_passes_word_by_word_and_its_end_frees_the_model(running: Server) -> None:
    seen = []
    for _ in range(6):  # of both workers, most likely
        connection, reply = steer(running, 200)
        assert reply.readline().startswith(b"event: ")
        seen.append(waiting(running))
        reply.close()
        connection.close()
        until(lambda: waiting(running) == 0)
    assert 1 in seen, "the first words come while the model still writes"


def test_an_uploaded_image_is_there_whichever_worker_is_asked(running: Server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    sent = httpx.post(f"{running.url}{API}/images", files={"image": ("one.png", file.getvalue(), "image/png")})
    hash = sent.json()["hash"]
    for one in by_many(running, f"/try?image={hash}"):
        assert one.status_code == 200 and hash in one.text
    assert {one.status_code for one in by_many(running, f"{API}/images/{hash}")} == {200}
    reply = httpx.post(
        running.url + "/search", data={"q": ""}, files={"image": ("one.png", file.getvalue(), "image/png")}, timeout=60
    )
    assert reply.status_code == 303 and hash in reply.headers["location"]
    assert httpx.delete(f"{running.url}{API}/images/{hash}").is_success
    assert {one.status_code for one in by_many(running, f"{API}/images/{hash}")} == {404}


def test_a_body_that_is_too_large_is_refused_with_a_sentence(running: Server) -> None:
    for _ in range(4):
        data = {"image": ("one.png", b"0" * 17_000_000, "image/png")}
        reply = httpx.post(f"{running.url}{API}/images", files=data, timeout=60)
        assert reply.status_code == 413 and "send a smaller image" in reply.json()["detail"]


def test_what_one_worker_writes_the_others_show_at_once(running: Server) -> None:
    by_many(running, "/features/5")  # each holds the page as it was
    for number in range(5):  # by one and by the other worker, most likely
        label, version = f"label {number}", {"If-Match": str(number)}
        written = httpx.put(f"{running.url}{API}/annotations/features/5", json={"label": label}, headers=version)
        assert written.status_code == 200, written.text
        assert all(f"<bdi>{label}</bdi>" in one.text for one in by_many(running, "/features/5"))
        own = [one.json()["own_label"] for one in by_many(running, f"{API}/features/5")]
        assert own == [label] * N_CONNECTIONS


def test_only_a_worker_can_speak_for_a_visitor(running: Server) -> None:
    """The header by which workers know each other is worth nothing without their secret."""
    text = httpx.get(running.url + "/metrics", headers={"X-Saevx-Worker": "guess https 192.0.2.1"}).text
    assert 'worker="1"' in text and 'worker="2"' in text


def test_a_worker_that_is_killed_is_started_again_and_all_end_when_told(made: Path, tmp_path: Path) -> None:
    log, token = tmp_path / "log.txt", tmp_path / "token"
    token.write_text("a token of ours")
    with Server(made / "store", "--no-live", "--workers", "2", "--token-file", str(token), log=log) as server:
        entered = httpx.get(server.url + "/features?token=a+token+of+ours")
        login = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
        assert {one.status_code for one in by_many(server, "/features/3", headers=login)} == {200}
        assert {one.status_code for one in by_many(server, "/features/3")} == {401}
        until(lambda: len(processes(server)) == 2)
        for which in (0, 1):
            before = processes(server)
            before[0].kill()  # the oldest: the first worker, then the other
            answers = by_many(server, f"/features/{which}", headers=login)
            assert {one.status_code for one in answers} <= {200}, "what comes meanwhile waits for the new one"
            until(lambda before=before: len(set(processes(server)) - set(before)) == 1 and len(processes(server)) == 2)
            assert {one.status_code for one in by_many(server, "/", headers=login)} == {200}
        check_that_all_end(server, signal.SIGTERM, 0)
    killed = re.findall(r"worker ([12]) \(process \d+\) was killed by signal 9 and is started again", log.read_text())
    assert sorted(killed) == ["1", "2"]


def check_that_all_end(server: Server, number: signal.Signals, status: int) -> None:
    """Also where the process that started them has no time to say so."""
    until(lambda: len(processes(server)) == 2)
    workers = processes(server)
    server.process.send_signal(number)
    assert server.process.wait(timeout=60) == status
    until(lambda: not any(map(is_running, workers)))
    assert "Traceback" not in server.log.read_text()


def test_all_end_with_a_server_that_is_killed(made: Path, tmp_path: Path) -> None:
    with Server(made / "store", "--no-live", "--workers", "2", log=tmp_path / "log.txt") as server:
        check_that_all_end(server, signal.SIGKILL, -signal.SIGKILL)


def test_one_line_tells_what_is_wrong_with_workers(running: Server, made: Path, tmp_path: Path) -> None:
    done = run_saevx("serve", tmp_path / "nothing", "--workers", "2", "--port", "0", check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "is not a store" in done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_saevx("serve", made / "store", "--no-live", "--workers", "2", "--port", port, check=False)
    assert done.returncode == 1 and "choose another --port" in done.stderr and done.stderr.count("\n") == 1
    port = running.url.rpartition(":")[2]
    done = run_saevx("serve", made / "store", "--no-live", "--workers", "2", "--port", port, check=False)
    assert done.returncode == 1 and "another program uses it" in done.stderr


def test_all_end_at_an_interrupt(running: Server) -> None:
    """The last test here: it ends the server of the others."""
    check_that_all_end(running, signal.SIGINT, 130)
