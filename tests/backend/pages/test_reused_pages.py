"""Pages are rendered once and reused while nothing that they show has changed."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient

from backend import templating
from backend.api.annotations.common import COOKIE
from backend.app import create_app
from backend.schemas.common import LiveStatus
from backend.settings import Settings
from backend.stores import OpenStore
from precompute.store.companion_files import CONTROLS, companion_path
from tests.helpers.synthetic import write_store

API = "/api/v1"
PAGES = (
    "/", "/features", "/features?sort=omega&min_omega=0.2", "/features/3", "/features/3?modality=image", "/samples",
    "/samples/s00003", "/map", "/map?of=samples&row=3", "/cooccurrence", "/quality", "/rejected",
    "/features/3/factsheet", "/search?q=red", "/docs", "/docs?q=sample", "/method",
)  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reused") / "store"
    write_store(folder, n=60)
    return folder


@pytest.fixture
def client(path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(stores=[path], live=False))) as running:
        yield running


def store_of(client: TestClient) -> OpenStore:
    store: OpenStore = client.app.state.saevx.default  # type: ignore[attr-defined]
    return store


def test_a_reused_page_is_the_page_as_a_new_server_renders_it(client: TestClient, path: Path) -> None:
    pages = store_of(client).pages
    for address in PAGES:
        first = client.get(address)
        n_rendered = pages.n_puts
        again = client.get(address)
        assert first.status_code == 200 and pages.n_puts == n_rendered, "the second is not rendered"
        assert again.content == first.content, address
        headers = [{**one.headers, "x-request-id": ""} for one in (first, again)]
        assert headers[0] == headers[1], address
        known = client.get(address, headers={"If-None-Match": f'"x", {first.headers["etag"]}'})
        assert known.status_code == 304 and not known.content and known.headers["etag"] == first.headers["etag"]
    with TestClient(create_app(Settings(stores=[path], live=False))) as new:
        assert [new.get(address).text for address in PAGES] == [client.get(address).text for address in PAGES]


def test_addresses_in_the_examples_are_those_of_the_server_as_it_was_called(client: TestClient) -> None:
    for host in ("localhost", "127.0.0.1", "localhost"):
        assert f"http://{host}/api/v1/store" in client.get("/docs", headers={"Host": host}).text


def test_what_is_written_or_measured_makes_a_new_page(client: TestClient, path: Path) -> None:
    before = {address: client.get(address) for address in PAGES}
    label = client.put(f"{API}/annotations/features/3", json={"label": "my own <b>name</b>"}, headers={"If-Match": "0"})
    assert label.status_code == 200
    assert "my own &lt;b&gt;name" in client.get("/features/3").text
    for address in PAGES:
        tag = {"If-None-Match": before[address].headers["etag"]}
        assert client.get(address, headers=tag).status_code == 200, address
    front = client.get("/")
    measured = companion_path(path, CONTROLS)
    measured.write_text(json.dumps({"content_id": "of another store"}))
    try:
        assert "belongs to another store" in client.get("/").text
    finally:
        measured.unlink()
    assert client.get("/").text == front.text


def test_visitors_see_their_own_name_alone(client: TestClient) -> None:
    ann, bob = ({"Cookie": f"{COOKIE}={name}"} for name in ("Ann-Reader", "Bob-Reader"))
    for headers, own, other in ((ann, "Ann-Reader", "Bob-Reader"), (bob, "Bob-Reader", "Ann-Reader")) * 2:
        page = client.get("/features/3", headers=headers)
        assert own in page.text and other not in page.text
        assert "private" in page.headers["cache-control"] and "Cookie" in page.headers["vary"]


def test_a_client_without_gzip_gets_plain_text(client: TestClient) -> None:
    packed, plain = (client.get("/features", headers={"Accept-Encoding": one}) for one in ("gzip", "identity"))
    assert packed.headers["content-encoding"] == "gzip" and "content-encoding" not in plain.headers
    assert packed.text == plain.text and plain.text.startswith("<!doctype html>")
    with client.stream("GET", "/features", headers={"Accept-Encoding": "gzip"}) as raw:
        assert gzip.decompress(b"".join(raw.iter_raw())).decode() == plain.text


def test_what_depends_on_a_pair_of_the_visitors_own_is_not_held(client: TestClient) -> None:
    for address in ("/features/3?text=a+dog", "/features/3?image=0123", "/try?text=a+dog", "/search?q=dog&model=1"):
        n_rendered = store_of(client).pages.n_puts
        assert "etag" not in client.get(address).headers, address
        assert store_of(client).pages.n_puts == n_rendered


def test_a_page_is_not_held_under_what_was_before_a_change(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of the model changes while the page is rendered, and later back."""
    live, render, name = client.app.state.saevx.live, templating.render, store_of(client).name  # type: ignore[attr-defined]
    before = client.get("/features/4")

    def render_and_change(*args: Any, **values: Any) -> HTMLResponse:
        live.states[name] = LiveStatus(state="failed", reason="It is broken.")
        return render(*args, **values)

    state = live.states[name]
    monkeypatch.setattr(templating, "render", render_and_change)
    n_rendered = store_of(client).pages.n_puts
    assert client.get("/features/5").status_code == 200 and store_of(client).pages.n_puts == n_rendered
    monkeypatch.setattr(templating, "render", render)
    live.states[name] = state
    assert client.get("/features/5").status_code == 200 and store_of(client).pages.n_puts == n_rendered + 1
    assert client.get("/features/4").content == before.content


def test_an_error_is_not_held(client: TestClient) -> None:
    accept = {"Accept": "text/html"}
    for address in ("/features/99999", "/samples/none", "/features?cursor=x"):
        n_rendered, reply = store_of(client).pages.n_puts, client.get(address, headers=accept)
        assert reply.status_code >= 400 and "etag" not in reply.headers
        assert store_of(client).pages.n_puts == n_rendered, address
