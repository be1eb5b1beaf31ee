"""Stores that are damaged, deleted, moved or replaced while they are served: a sentence or the new store, not both."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from sqlalchemy import event

from backend import stores
from backend.app import create_app
from backend.settings import Settings
from backend.stores import State
from precompute.errors import SaevxError
from tests.helpers import synthetic, tiny
from tests.helpers.in_process import saevx
from tests.helpers.live_api import wait_ready
from tests.helpers.servers import Server
from tests.helpers.tinies import make_tiny_store

API = "/api/v1"
PAGES = (
    "/", "/features", "/features/3", "/samples", "/samples/s00003", "/samples/s00003?feature=1&position=2", "/map",
    "/map?of=samples", "/search?q=dog", "/cooccurrence", "/quality", "/sae", "/steer", "/explain",
)  # fmt: skip
ENDPOINTS = (
    "/store", "/live", "/sae", "/features", "/features/3", "/features/3/examples", "/map", "/samples",
    "/samples/s00003", "/samples/s00003/activations?feature=1", "/samples/s00003/features?position=2",
    "/samples/s00003/image", "/samples/s00003/image?size=32",
    "/scores", "/flags", "/filter?by=cosine", "/cooccurrence", "/search?q=dog",
)  # fmt: skip


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two stores of one name and shape, with other figures."""
    root = tmp_path_factory.mktemp("others")
    for seed in (1, 2):
        synthetic.write_store(root / str(seed) / "store", 60, seed)
    return root / "1" / "store", root / "2" / "store"


@pytest.fixture
def place(others: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(others[0], tmp_path / "store"))


@pytest.fixture
def client(place: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(stores=[place], live=False)), raise_server_exceptions=False) as running:
        yield running


def take_place(place: Path, new: Path) -> None:
    """As `precompute` and a careful copy put a store in its place: whole, by renaming."""
    fresh = place.with_name("fresh")
    shutil.copytree(new, fresh)
    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)


def content_id(store: Path) -> str:
    return str(json.loads((store / "manifest.json").read_text())["content_id"])


def check_refused(client: TestClient, words: str, query: str = "") -> None:
    for path in PAGES:
        reply = client.get(with_query(path, query), headers={"Accept": "text/html"})
        assert reply.status_code == 503 and words in reply.text and 'data-testid="error-page"' in reply.text, path
    for path in ENDPOINTS:
        reply = client.get(with_query(API + path, query))
        assert reply.status_code == 503 and words in reply.json()["detail"], (path, reply.text)
        assert reply.headers["content-type"] == "application/problem+json"


def check_served(client: TestClient, query: str = "") -> None:
    for path in PAGES:
        assert client.get(with_query(path, query), headers={"Accept": "text/html"}).status_code == 200, path
    for path in ENDPOINTS:
        assert client.get(with_query(API + path, query)).status_code == 200, path


def with_query(path: str, query: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{query}" if query else path


@pytest.mark.parametrize("opened", [False, True], ids=["before a page was asked for", "after all were"])
def test_a_deleted_store_is_a_sentence_until_it_is_back(client: TestClient, place: Path, opened: bool) -> None:
    if opened:
        check_served(client)
    moved = place.rename(place.with_name("elsewhere"))
    check_refused(client, "is no longer at")
    assert client.get("/healthz").status_code == 200
    ready = client.get("/readyz")
    assert ready.status_code == 503 and ready.json()["stores"] == []
    assert "is no longer at" in ready.json()["unavailable"]["synthetic"]
    assert client.get(f"{API}/stores").json()["items"] == []
    moved.rename(place)
    check_served(client)
    assert client.get("/readyz").json()["unavailable"] == {}


def test_a_store_that_is_made_again_is_opened_anew(client: TestClient, place: Path, others: tuple[Path, Path]) -> None:
    check_served(client)
    before = {path: client.get(API + path) for path in ENDPOINTS}
    cursor = client.get(f"{API}/features?limit=3").json()["next"]
    image = client.get(f"{API}/samples/s00003").json()["images"][0]["url"]
    assert "immutable" in client.get(image).headers["cache-control"]
    take_place(place, others[1])
    with TestClient(create_app(Settings(stores=[others[1]], live=False))) as right:
        for path in ENDPOINTS:
            assert client.get(API + path).content == right.get(API + path).content, path
        for path in PAGES:
            page = client.get(path, headers={"Accept": "text/html"}).text
            assert page == right.get(path, headers={"Accept": "text/html"}).text, path
    for path, reply in before.items():
        if tag := reply.headers.get("etag"):
            again = client.get(API + path, headers={"If-None-Match": tag})
            assert again.status_code == 200 and again.headers["etag"] != tag, path
    assert client.get(f"{API}/features", params={"limit": 3, "cursor": cursor}).status_code == 400
    assert client.get("/features", params={"cursor": cursor}, headers={"Accept": "text/html"}).status_code == 400
    assert "immutable" not in client.get(image).headers["cache-control"], "the address is of the old store"
    new = client.get(f"{API}/samples/s00003").json()["images"][0]["url"]
    assert new != image and "immutable" in client.get(new).headers["cache-control"]
    assert "immutable" not in client.get(f"{API}/samples/s00003/image").headers["cache-control"]


def test_a_link_that_points_elsewhere_now_shows_that_store(
    place: Path, others: tuple[Path, Path], tmp_path: Path
) -> None:
    link = tmp_path / "current"
    link.symlink_to(place)
    with TestClient(create_app(Settings(stores=[link], live=False))) as client:
        assert client.get(f"{API}/store").json()["content_id"] == content_id(place)
        (tmp_path / "next").symlink_to(others[1])
        (tmp_path / "next").rename(link)
        assert client.get(f"{API}/store").json()["content_id"] == content_id(others[1])


def test_a_copy_that_is_not_whole_yet_is_refused(
    client: TestClient, place: Path, others: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rsync leaves it for a while: file after file takes its place by renaming, the manifest before the database.
    What comes after the manifest is noticed too, also where it has the size of the old one."""
    check_served(client)
    monkeypatch.setattr(stores, "RETRY_S", 0)
    files = sorted(path.relative_to(others[1]) for path in others[1].rglob("*") if path.is_file())
    files.sort(key=lambda name: name.name == "store.sqlite")
    for name in files:
        shutil.copy(others[1] / name, place / "fresh.tmp")
        (place / "fresh.tmp").rename(place / name)
        reply = client.get(f"{API}/store")
        if reply.status_code == 200:
            figures = client.get(f"{API}/features?sort=max_activation&order=desc&limit=5").json()["items"]
            assert reply.json()["content_id"] in (content_id(others[0]), content_id(others[1]))
            assert figures
        else:
            assert reply.status_code == 503 and "is damaged (" in reply.json()["detail"]
    assert client.get(f"{API}/store").json()["content_id"] == content_id(others[1])
    check_served(client)


def test_a_store_that_cannot_be_opened_is_tried_again_after_a_while(
    client: TestClient, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (place / "store.sqlite").read_bytes()
    (place / "store.sqlite").unlink()
    (place / "store.sqlite").write_bytes(whole[:5000])
    (place / "manifest.json").touch()
    check_refused(client, "is damaged (store.sqlite has")
    (place / "store.sqlite").write_bytes(whole)
    assert client.get(f"{API}/store").status_code == 503, "not at each request: it would cost each"
    monkeypatch.setattr(stores, "RETRY_S", 0)
    check_served(client)


def test_another_store_goes_on(place: Path, others: tuple[Path, Path]) -> None:
    """Whichever of the two is gone: the default one is not silently another now."""
    app = create_app(Settings(stores=[place, others[1]], live=False))
    with TestClient(app, raise_server_exceptions=False) as client:
        names = [one["name"] for one in client.get(f"{API}/stores").json()["items"]]
        assert names == ["synthetic", "synthetic-2"]
        shutil.rmtree(place)
        check_refused(client, "is no longer at")
        check_served(client, "store=synthetic-2")
        gone = client.get("/features", headers={"Accept": "text/html"}).text
        assert 'href="/?store=synthetic-2">synthetic-2</a>' in gone, "the way to the other one"
        page = client.get("/?store=synthetic-2", headers={"Accept": "text/html"}).text
        assert 'href="/features?store=synthetic-2' in page and 'data-testid="unavailable"' in page
        assert [one["name"] for one in client.get(f"{API}/stores").json()["items"]] == ["synthetic-2"]


def test_damaged_stores_among_others_are_named_and_the_rest_is_served(place: Path, others: tuple[Path, Path]) -> None:
    (place / "map.bin").unlink()
    app = create_app(Settings(stores=[place, others[0], others[1]], live=False))
    state: State = app.state.saevx
    assert list(state.stores) == ["synthetic", "synthetic-2"] and state.default_name == "synthetic"
    assert list(state.unavailable) == ["store"]
    with TestClient(app, raise_server_exceptions=False) as client:
        assert "map.bin is missing" in client.get("/", headers={"Accept": "text/html"}).text
        check_served(client)
        check_served(client, "store=synthetic-2")
        check_refused(client, "map.bin is missing", "store=store")
        missing = client.get(f"{API}/store?store=no")
        assert missing.status_code == 404 and "has store, synthetic, synthetic-2." in missing.json()["detail"]
        shutil.copy(others[0] / "map.bin", place / "map.bin")
        (place / "manifest.json").touch()
        check_served(client, "store=store")
        assert client.get("/readyz").status_code == 200


def test_with_damaged_stores_only_there_is_nothing_to_serve(place: Path, tmp_path: Path) -> None:
    (place / "manifest.json").write_text("")
    with pytest.raises(SaevxError, match=r"manifest\.json is empty.*is not a store"):
        create_app(Settings(stores=[place, tmp_path / "nothing"], live=False))
    done = saevx("serve", place, "--no-live")
    assert done.status == 1 and done.err.count("\n") == 1 and "manifest.json is empty" in done.err


def test_serve_names_the_damaged_store_and_goes_on(place: Path, others: tuple[Path, Path], tmp_path: Path) -> None:
    (place / "store.sqlite").write_bytes(b"")
    log = tmp_path / "log.txt"
    with Server(place, others[0], "--no-live", log=log):
        pass
    assert "is damaged (store.sqlite has 0 bytes" in log.read_text() and "Store synthetic" in log.read_text()


def test_every_store_is_answered_from_threads(client: TestClient, place: Path, others: tuple[Path, Path]) -> None:
    """The event loop never waits for the database: pages, endpoints, searches and error pages; nor does it open it."""
    state: State = client.app.state.saevx  # type: ignore[attr-defined]
    seen: list[str] = []

    def on_loop(*_: Any) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            seen.append("thread")
        else:
            seen.append("loop")

    event.listen(state.default.reader.engine, "checkout", on_loop)
    check_served(client)
    for path in ("/search?q=dog", "/features/99999", "/samples/nobody", "/nothing", "/search?q=dog&model=true"):
        client.get(path, headers={"Accept": "text/html"})
    client.post("/search", data={"q": "dog"})
    client.post(f"{API}/steer", json={"prompt": "x"})
    assert len(seen) > 20 and set(seen) == {"thread"}


WITHOUT_TORCH = """
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from backend.app import create_app
from backend.settings import Settings
with TestClient(create_app(Settings(stores=[sys.argv[1]], live=False))) as client:
    for path in sys.argv[2:]:
        assert client.get(path, headers={"Accept": "text/html"}).status_code == 200, path
    for path in ("/search", "/score", "/steer"):
        client.post("/api/v1" + path, json={"prompt": "x"})
    client.post("/search", data={"q": "dog", "model": "true"})
from precompute.store.making.verify import verify
assert all(check.ok for check in verify(Path(sys.argv[1])))
heavy = {"torch", "transformers", "sae_lens", "datasets", "accelerate"} & set(sys.modules)
assert not heavy, heavy
"""


def test_serving_without_the_live_model_and_verifying_import_no_torch(place: Path) -> None:
    paths = [*PAGES, *(API + path for path in ENDPOINTS), "/docs", "/openapi.json", "/readyz"]
    command = [sys.executable, "-c", WITHOUT_TORCH, place, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture
def remade(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the tiny store with its model and SAE, and another store of them that takes its place later."""
    for name in ("model", "sae", "data"):
        (tmp_path / name).symlink_to(made / name)
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    sae = tiny.make_sae(tmp_path / "other-sae", bias=-0.5)
    return store, make_tiny_store(made, sae=str(sae), out=tmp_path / "new", sinks="keep", nll=True)


def test_the_live_model_is_loaded_anew_with_the_store(remade: tuple[Path, Path]) -> None:
    store, new = remade
    with TestClient(create_app(Settings(stores=[store], device="cpu"))) as client:
        wait_ready(client)
        state: State = client.app.state.saevx  # type: ignore[attr-defined]
        old = state.live.engines["store"]

        async def reserve() -> Any:
            with state.live.reserve("store") as place:
                shutil.rmtree(store)
                new.rename(store)
                await state.slots[0].current()
                return await place.call(lambda engine: engine)

        with ThreadPoolExecutor(1) as reference, pytest.raises(HTTPException, match="replaced while"):
            reference.submit(asyncio.run, reserve()).result(60)
        assert state.live.waiting == 0
        wait_ready(client)
        assert state.live.engines["store"] is not old
        assert client.get(f"{API}/live").json()["state"] == "ready"
        assert client.get(f"{API}/store").json()["content_id"] == content_id(store)
        image = (store.parent / "data" / "003.png").read_bytes()
        reply = client.post(f"{API}/score", files={"image": ("a.png", image)}, data={"text": "a"})
        assert reply.status_code == 200, reply.text
