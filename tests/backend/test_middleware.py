"""The server answers to its own names only, and takes nothing that computes from another site's page."""

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from backend.app import create_app
from backend.middleware.hosts import own_names
from backend.settings import Settings
from tests.helpers.in_process import saevx
from tests.helpers.servers import Server

API = "/api/v1"
FOREIGN = (
    "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "127.1",
)  # fmt: skip
OWN = (
    "localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.0.0.1:8123", "[::1]", "[::1]:8000",
    "192.168.1.20:8000",
    "[fe80::1%25eth0]:80", socket.gethostname(),
)  # fmt: skip
MALFORMED = (
    "", "a b", "localhost/x", "localhost@evil.example", "localhost:80:80", "localhost:", "http://localhost", "[::1",
)  # fmt: skip


@pytest.fixture(scope="module")
def client(store_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(stores=[store_path], live=False))) as running:
        yield running


def served(store_path: Path, *allowed: str) -> TestClient:
    return TestClient(create_app(Settings(stores=[store_path], live=False, allowed_host=list(allowed))))


@pytest.mark.parametrize("host", OWN)
def test_its_own_names_and_addresses_are_answered(client: TestClient, host: str) -> None:
    for path in ("/", f"{API}/store", "/healthz", "/static/css/base.css"):
        assert client.get(path, headers={"Host": host}).status_code == 200, path


@pytest.mark.parametrize("host", FOREIGN)
def test_another_name_is_refused_with_the_way_out(client: TestClient, host: str) -> None:
    for path in ("/", f"{API}/store", "/healthz", "/static/css/base.css", "/nothing"):
        reply = client.get(path, headers={"Host": host, "Accept": "text/html"})
        assert reply.status_code == 421 and reply.headers["content-type"] == "application/problem+json"
        assert f"--allowed-host {host.partition(':')[0]}." in reply.json()["detail"]
        assert "synthetic" not in reply.text, "a page of that name learns nothing"
    assert client.post(f"{API}/search", data={"text": "x"}, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", MALFORMED)
def test_what_is_no_host_is_refused(client: TestClient, host: str) -> None:
    reply = client.get("/healthz", headers={"Host": host})
    assert reply.status_code == 400 and "Host header" in reply.json()["detail"]


def test_more_names_can_be_allowed(store_path: Path) -> None:
    client = served(store_path, "Explorer.example.org", "*.lab.example", "10.9.example:8443")
    for host in ("explorer.example.org:443", "a.lab.example", "b.a.lab.example", "10.9.example"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200, host
    for host in ("lab.example", "xlab.example", "example.org", "x.explorer.example.org"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 421, host
    assert served(store_path, "*").get("/healthz", headers={"Host": "any.example"}).status_code == 200


def test_the_environment_names_hosts_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEVX_ALLOWED_HOST", "a.example, B.example")
    assert Settings().allowed_host == ["a.example", "b.example"]
    monkeypatch.setenv("SAEVX_ALLOWED_HOST", "")
    assert Settings().allowed_host == []


@pytest.mark.parametrize("name", ["https://a.example", "a.example/x", "", "a b"])
def test_an_address_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError, match="give the name alone"):
        Settings(allowed_host=[name])
    done = saevx("serve", "nothing", "--allowed-host", name)
    assert done.status == 2 and done.err.startswith("saevx: --allowed-host ") and "Traceback" not in done.err


def test_what_a_server_is_called() -> None:
    assert own_names("127.0.0.1") == {"127.0.0.1", socket.gethostname().lower()}
    names = own_names("0.0.0.0")
    assert {socket.gethostname().lower(), socket.getfqdn().lower()} <= names
    assert any(name.endswith(".local") for name in names)
    assert "gpu-box" in own_names("GPU-box")


SENT: list[tuple[str, dict[str, str], bool]] = [
    ("a program", {}, True),
    ("our own page", {"Sec-Fetch-Site": "same-origin", "Origin": "http://testserver"}, True),
    ("our own page, an older browser or plain HTTP", {"Origin": "http://testserver"}, True),
    ("our own page behind a proxy that names the host", {"Origin": "https://testserver"}, True),
    ("the address bar", {"Sec-Fetch-Site": "none"}, True),
    ("another site", {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, False),
    ("another site that says it is ours", {"Sec-Fetch-Site": "cross-site", "Origin": "http://testserver"}, False),
    ("another port of ours", {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver:9000"}, False),
    ("another site, an older browser", {"Origin": "https://evil.example"}, False),
    ("another port, an older browser", {"Origin": "http://testserver:9000"}, False),
    ("a page without an origin", {"Origin": "null"}, False),
    ("a name that begins like ours", {"Origin": "http://testserver.evil.example"}, False),
    ("no address", {"Origin": "http://testserver@evil.example"}, False),
    ("another scheme", {"Origin": "chrome-extension://testserver"}, False),
    ("an empty one", {"Origin": ""}, False),
]


@pytest.mark.parametrize(("headers", "answered"), [one[1:] for one in SENT], ids=[one[0] for one in SENT])
def test_only_programs_and_own_pages_may_send_something(
    client: TestClient, headers: dict[str, str], answered: bool
) -> None:
    for method, path in [*(("POST", f"{API}/{name}") for name in ("steer", "search", "images")), ("POST", "/search")]:
        reply = client.request(method, path, headers=headers)
        assert (reply.status_code == 403) != answered, (method, path, reply.text)
        if not answered:
            assert "another site" in reply.json()["detail"] and reply.headers["x-frame-options"] == "DENY"
    assert client.get(f"{API}/store", headers=headers).status_code == 200, "reading stays open"
    assert "access-control-allow-origin" not in client.get(f"{API}/store", headers=headers).headers


def test_pages_at_an_allowed_name_are_its_own_whatever_host_the_proxy_sends(store_path: Path) -> None:
    client = served(store_path, "explorer.example.org", "other.example:8443", "*.lab.example", "*")
    for origin, answered in (
        ("https://explorer.example.org", True),
        ("http://explorer.example.org", True),
        ("https://explorer.example.org:9000", False),
        ("https://other.example:8443", True),
        ("https://other.example", False),
        ("https://evil.example", False),
        ("https://x.lab.example", False),
    ):
        reply = client.post(f"{API}/search", headers={"Host": "127.0.0.1:8000", "Origin": origin})
        assert (reply.status_code == 403) != answered, origin


def ask(server: Server, *hosts: str, version: str = "HTTP/1.1") -> int:
    """The status that the real server gives a request with these `Host` headers."""
    place = urlparse(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=60) as wire:
        lines = [f"GET /healthz {version}", *(f"Host: {one}" for one in hosts), "Connection: close", "", ""]
        wire.sendall("\r\n".join(lines).encode())
        reply = http.client.HTTPResponse(wire)
        reply.begin()
        return reply.status


def test_the_server_as_it_is_started(store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEVX_ALLOWED_HOST", "from-the-environment.example")
    with Server(store_path, "--no-live", "--host", "0.0.0.0", log=tmp_path / "log.txt") as server:
        port = urlparse(server.url).port
        assert ask(server, f"127.0.0.1:{port}") == ask(server, socket.gethostname()) == 200
        assert ask(server, "from-the-environment.example") == 200
        assert ask(server, "evil.example") == 421
        assert ask(server, "localhost", "evil.example") == ask(server) == 400
        assert ask(server, version="HTTP/1.0") == 200
    args: tuple[Any, ...] = ("--no-live", "--allowed-host", "a.example", "--allowed-host", "b.example")
    with Server(store_path, *args, log=tmp_path / "log.txt") as server:
        assert [ask(server, name) for name in ("a.example", "b.example", "c.example")] == [200, 200, 421]
