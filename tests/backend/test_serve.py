"""`saevx serve` in a process of its own."""

import errno
import json
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlparse

import pytest

from backend.serve import bind, cannot_listen
from precompute.errors import SaevxError
from tests.helpers.commands import run_saevx
from tests.helpers.forked import SAEVX
from tests.helpers.in_process import saevx
from tests.helpers.servers import Server, figures


@pytest.fixture(scope="module")
def running(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """As a user starts it, with all its imports."""
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with Server(made / "store", "--device", "cpu", log=log, command=SAEVX) as server:
        server.wait("/readyz", 120)
        yield server


def steer(server: Server, n: int, visitor: str = "127.0.0.1") -> tuple[HTTPConnection, HTTPResponse]:
    connection = HTTPConnection(str(urlparse(server.url).netloc), timeout=60)
    body = json.dumps({"prompt": "a dog", "max_tokens": n, "temperature": 1.5, "seed": 1})
    headers = {"Content-Type": "application/json", "X-Forwarded-For": visitor}
    connection.request("POST", "/api/v1/steer", body, headers)
    return connection, connection.getresponse()


def waiting(server: Server) -> int:
    with urllib.request.urlopen(server.url + "/healthz", timeout=60) as reply:
        return int(json.load(reply)["live"]["waiting"])


def test_closing_the_stream_stops_the_generation(running: Server) -> None:
    begin = time.monotonic()
    connection, reply = steer(running, 200)
    whole = reply.read()
    full = time.monotonic() - begin
    connection.close()
    assert b"event: done" in whole
    connection, reply = steer(running, 200)
    first = reply.readline()
    begin = time.monotonic()
    assert first.startswith(b"event: ") and waiting(running) == 1
    reply.close()
    connection.close()
    # The next request waits for the worker, which only the end of the generation sets free.
    again, answer = steer(running, 1)
    assert b"event: done" in answer.read()
    again.close()
    assert time.monotonic() - begin < full / 2
    assert waiting(running) == 0


def test_a_greedy_visitor_is_told_to_wait_and_others_are_served(running: Server) -> None:
    def before() -> dict[tuple[str, ...], float]:
        with urllib.request.urlopen(running.url + "/metrics", timeout=60) as reply:
            return figures(reply.read().decode())

    old = before()["saevx_live_tokens_total",]
    greedy = [steer(running, 60, "192.0.2.7") for _ in range(6)]
    other = steer(running, 5, "192.0.2.8")
    replies = [(reply.status, reply.getheader("Retry-After")) for _, reply in greedy]
    assert replies == [(200, None)] * 4 + [(429, "5")] * 2
    assert "4 of your requests are already waiting" in json.loads(greedy[-1][1].read())["detail"]
    for connection, reply in [*greedy[:4], other]:
        assert b"event: done" in reply.read()
        connection.close()
    values = before()
    assert values["saevx_live_tokens_total",] >= old + 4 * 60 and values["saevx_live_queue",] == 0
    assert values["saevx_request_seconds_count", "POST", "/api/v1/steer", "429"] == 2


def test_it_says_where_to_look_and_ends_when_told(made: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with Server(made / "store", "--no-live", "--root-path", "/x", log=log) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
    assert f"Open {server.url}/x/" in log.read_text()


def test_a_running_stream_ends_when_the_server_is_stopped(made: Path, tmp_path: Path) -> None:
    """Answers end by themselves, or with an event that says why; the process ends with status 0 and no traceback."""
    log = tmp_path / "log.txt"
    with Server(made / "store", "--device", "cpu", log=log) as server:
        server.wait("/readyz", 120)
        streams = [steer(server, 220) for _ in range(9)]
        assert streams[0][1].readline().startswith(b"event: ")
        server.process.send_signal(signal.SIGTERM)
        endings = [ending(connection, reply) for connection, reply in streams]
        assert server.process.wait(timeout=60) == 0
    assert endings[0] == "done" and set(endings) <= {"done", "closing"}, endings
    assert "Traceback" not in log.read_text()


def ending(connection: HTTPConnection, reply: HTTPResponse) -> str:
    """How a stream ended."""
    whole = reply.read()
    connection.close()
    return "done" if b"event: done" in whole else "closing" if b"The server is shutting down." in whole else "open"


def test_one_line_tells_what_is_wrong(made: Path, tmp_path: Path) -> None:
    done = run_saevx("serve", tmp_path / "nothing", check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "is not a store" in done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run_saevx("serve", made / "store", "--no-live", "--port", port, check=False)
    assert done.returncode == 1 and "choose another --port" in done.stderr
    assert saevx("serve").status == 2 and saevx("nonsense").status == 2


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("no-such-host.invalid", "There is no host 'no-such-host.invalid'"),
        ("http://localhost", "There is no host 'http://localhost'"),
        ("a" * 300, "There is no host 'aaa"),
        ("a..b", "There is no host 'a..b'"),
        ("192.0.2.1", "192.0.2.1 is no address of this machine"),
    ],
)
def test_a_host_that_cannot_be_listened_on(host: str, message: str) -> None:
    with pytest.raises(SaevxError, match="choose another --host, such as") as caught:
        bind(host, 0)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_a_port_that_cannot_be_listened_on() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SaevxError, match=r"another program uses it\): choose another --port, or 0"):
            bind("127.0.0.1", port)
    assert "choose another --port, 1024 or higher" in str(cannot_listen("", 80, OSError(errno.EACCES, "denied")))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0", "[::1]", "::1"])
def test_hosts_in_every_form(host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with bind(host, 0) as listening:
        assert listening.getsockname()[1] > 0


def test_the_demos_port_is_looked_at_before_the_demo_is_made(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0) as taken:
        args = ("demo", "--dir", tmp_path / "demo", "--port", str(taken.getsockname()[1]))
        done = saevx(*args)
    assert done.status == 1 and "choose another --port" in done.err and not (tmp_path / "demo").exists()


def test_help_is_quick_and_tells_every_option(tmp_path: Path) -> None:
    begin = time.monotonic()
    whole = run_saevx("--help", fresh=True).stdout
    assert time.monotonic() - begin < 10  # well under one second on an idle machine
    for command in ("demo", "precompute", "serve", "filter", "patches", "verify"):
        assert command in whole
        report = saevx(command, "--help").out
        for line in report.splitlines():
            if line.strip().startswith("--") and "]" not in line:
                assert len(line.split()) > 1, line
    assert "--no-live" in saevx("serve", "--help").out
