"""Requests that are made to cost much cost less than a second of CPU, are refused, and the next one is answered."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import psutil
import pytest

from tests.helpers.servers import Server

HOST = b"Host: localhost\r\n"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n'
CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"
MAX_CPU_S = 1.0


@pytest.fixture(scope="module")
def running(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(store_path, "--no-live", log=tmp_path_factory.mktemp("abuse") / "log.txt") as server:
        yield server


def get(path: bytes, headers: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n"


def post(path: bytes, headers: bytes, body: bytes) -> bytes:
    return b"POST " + path + b" HTTP/1.1\r\n" + HOST + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def endless() -> bytes:
    """A body that never ends, as far as the server can tell: three times what it accepts."""
    head = b"POST /api/v1/search HTTP/1.1\r\n" + HOST + FORM + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + CHUNK * (50_000_000 // 65536)


ATTACKS: dict[str, tuple[Callable[[], bytes], set[int]]] = {
    "a header name of a megabyte": (lambda: get(b"/", b"A" * 1_000_000 + b": 1\r\n"), {400, 431}),
    "a header value of a megabyte": (lambda: get(b"/", b"A: " + b"x" * 1_000_000 + b"\r\n"), {400, 431}),
    "ten thousand headers": (lambda: get(b"/", b"".join(b"A%d: x\r\n" % i for i in range(10_000))), {400, 431}),
    "an address of a megabyte": (lambda: get(b"/" + b"a" * 1_000_000), {400, 414}),
    "twenty thousand parameters": (lambda: get(b"/features?" + b"q=a&" * 16_000), {400, 414, 422}),
    # CVE-2025-62727: ranges that overlap were merged in quadratic time
    "thousands of ranges": (
        lambda: get(b"/static/css/base.css", b"Range: bytes=" + b",".join(b"0-%d" % i for i in range(9000)) + b"\r\n"),
        {200, 206, 400, 416},
    ),
    # CVE-2026-53538, CVE-2024-53981: parts without a limit, and lines before the first part
    "ten thousand parts": (
        lambda: post(b"/api/v1/search", FORM, b"".join(PART % i for i in range(10_000)) + b"--b--\r\n"),
        {400, 413, 422},
    ),
    "megabytes before the first part": (lambda: post(b"/api/v1/search", FORM, b"\r\n" * 2_000_000), {400, 413, 422}),
    "a million fields": (
        lambda: post(b"/annotate", b"Content-Type: application/x-www-form-urlencoded\r\n", b"a=b&" * 1_000_000),
        {400, 413, 422},
    ),
    "JSON of a hundred thousand levels": (
        lambda: post(b"/api/v1/steer", b"Content-Type: application/json\r\n", b"[" * 100_000),
        {400, 413, 422, 503},
    ),
    "a body without an end": (endless, {400, 413, 422}),
}


def ask(server: Server, data: bytes) -> int:
    """The status of the reply, which may come before all is sent."""
    url = urlparse(server.url)
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        with contextlib.suppress(OSError):  # the server has answered, and reads no more
            connection.sendall(data)
        try:
            return int(connection.recv(64).split(b" ")[1])
        except (OSError, IndexError):
            return 400  # it has closed the connection on the sender


def cpu_s(server: Server) -> float:
    times: Any = psutil.Process(server.process.pid).cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_at_little_cost(running: Server, name: str) -> None:
    make, statuses = ATTACKS[name]
    data, before = make(), cpu_s(running)
    assert ask(running, data) in statuses
    assert ask(running, get(b"/healthz")) == 200
    assert cpu_s(running) - before < MAX_CPU_S


def test_readers_and_writers_that_stand_still_hold_up_nobody(running: Server) -> None:
    url = urlparse(running.url)
    connections = [socket.create_connection((url.hostname, url.port)) for _ in range(100)]
    try:
        for half in connections[:50]:
            half.sendall(b"GET / HTTP/1.1\r\n")
        for unread in connections[50:]:
            unread.sendall(get(b"/features?cols=all") * 20)
        assert ask(running, get(b"/healthz")) == 200
    finally:
        for connection in connections:
            connection.close()
    assert ask(running, get(b"/features")) == 200
