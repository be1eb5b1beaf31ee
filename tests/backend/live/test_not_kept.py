"""Stores that keep the events of some samples or of none, served with the model and without it."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.app import THREADS, create_app
from backend.settings import Settings
from backend.stores import Recomputed
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.store.reader import Store
from tests.helpers import tiny
from tests.helpers.live_api import wait_ready
from tests.helpers.servers import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

API = "/api/v1"
N = 160


class Root(NamedTuple):
    """Folders of the model, its data and its three stores; `missing` is a row that `examples` does not keep."""

    path: Path
    missing: int
    stored: int


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("not-kept")
    data = tiny.make_data(path / "data", N)
    for i, file in enumerate(sorted(data.glob("*.png"))):
        tiny.picture(i, (72 + 4 * (i % 3), 72)).save(file)
    given: dict[str, Any] = {
        "data": str(data), "model": str(tiny.make_llava(path / "model")),
        "sae": str(tiny.make_sae(path / "sae", d_sae=2)), "ds": 10, "device": "cpu", "sinks": "keep",
    }  # fmt: skip
    for remaining in ("all", "examples", "none"):
        precompute(PrecomputeOptions(**given, out=path / remaining, name=remaining, events=remaining))
    events = Store.open(path / "examples").events
    by_kept = [[row for row in range(N) if events.has(row) == remaining] for remaining in (False, True)]
    assert all(by_kept)
    return Root(path, by_kept[0][0], by_kept[1][0])


def served(root: Path, **settings: Any) -> TestClient:
    stores = [root / remaining for remaining in ("examples", "none", "all")]
    return TestClient(create_app(Settings(stores=stores, device="cpu", **settings)))


@pytest.fixture(scope="module")
def live(root: Root) -> Iterator[TestClient]:
    with served(root.path) as client:
        wait_ready(client)
        yield client


@pytest.fixture(scope="module")
def off(root: Root) -> Iterator[TestClient]:
    with served(root.path, live=False) as client:
        yield client


def same(mine: Any, theirs: Any) -> None:
    """Equal but for the last bits of a number, the mark, and addresses that carry the store."""
    if isinstance(mine, dict):
        assert mine.keys() == theirs.keys()
        for key in mine.keys() - {"recomputed", "images"}:
            same(mine[key], theirs[key])
    elif isinstance(mine, list):
        assert len(mine) == len(theirs)
        for one, other in zip(mine, theirs, strict=True):
            same(one, other)
    elif isinstance(mine, float) and isinstance(theirs, float):
        assert np.isclose(mine, theirs, rtol=2e-3, atol=1e-3)  # float16's own step is 1e-3
    else:
        assert mine == theirs


def test_who_waits_for_the_model_takes_no_thread_from_others(live: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, go = Recomputed.compute, threading.Event()

    def slow(*given: Any) -> Any:
        assert go.wait(60)
        return compute(*given)

    monkeypatch.setattr(Recomputed, "compute", slow)
    state = cast(FastAPI, live.app).state.saevx
    query = [f"{API}/samples/pair-{row}/activations?feature=0&store=none" for row in range(100, 101 + THREADS)]
    with ThreadPoolExecutor(len(query) + 1) as people:
        waiting = [people.submit(live.get, one) for one in query]
        try:
            end = time.monotonic() + 60
            while state.live.waiting < THREADS and time.monotonic() < end:
                time.sleep(0.01)
            assert people.submit(live.get, f"{API}/flags").result(timeout=60).status_code == 200
        finally:
            go.set()
        assert [one.result().status_code for one in waiting] == [200] * len(query)


@pytest.mark.parametrize(
    "query", ["activations?feature=0&feature=1", "features?position=2", "features?patch=0,1,1", "features?patch=0,0,0"]
)
def test_the_live_model_gives_what_the_full_store_has(live: TestClient, root: Root, query: str) -> None:
    for row in (root.missing, root.stored):
        full = live.get(f"{API}/samples/pair-{row}/{query}&store=all")
        for name in ("examples", "none"):
            reply = live.get(f"{API}/samples/pair-{row}/{query}&store={name}")
            assert reply.status_code == 200, reply.text
            remaining = name == "examples" and row == root.stored
            special = query == "features?position=2" and reply.json()["modality"] == "special"
            assert reply.json()["recomputed"] == (not remaining and not special)
            if remaining:
                assert reply.content == full.content
            else:
                same(reply.json(), full.json())


def test_examples_get_their_windows_from_the_model(live: TestClient, off: TestClient) -> None:
    query = f"{API}/features/1/examples?limit=6"
    full = live.get(f"{query}&store=all").json()["items"]
    again = live.get(f"{query}&store=none").json()["items"]
    assert full and all(one["recomputed"] for one in again)
    same(again, full)
    for reply in (live.get(f"{query}&store=none&recompute=false"), off.get(f"{query}&store=none")):
        for one, known in zip(reply.json()["items"], full, strict=True):
            assert one["grid"] is None and not one["recomputed"]
            assert all(one[key] == known[key] for key in ("sample_id", "activation", "position", "token", "patch"))
    remaining = live.get(f"{query}&store=examples").json()["items"]
    assert [{**one, "images": 0} for one in remaining] == [{**one, "images": 0} for one in full]


def test_without_the_model_one_sentence_says_how(off: TestClient, root: Root) -> None:
    for place in ("activations?feature=0", "features?patch=0,0,0"):
        reply = off.get(f"{API}/samples/pair-{root.missing}/{place}")
        assert reply.status_code == 503 and reply.headers["content-type"] == "application/problem+json"
        assert "made with --events examples: run `saevx serve` with the live model" in reply.json()["detail"]
        assert off.get(f"{API}/samples/pair-{root.stored}/{place}").status_code == 200
        assert off.get(f"{API}/samples/pair-{root.missing}/{place}&store=all").status_code == 200
    assert off.get(f"{API}/samples/pair-{root.missing}/features?position=9999").status_code == 404


def test_everything_else_works_without_events(off: TestClient, root: Root) -> None:
    full = off.get(f"{API}/samples/pair-{root.missing}?store=all").json()
    bare = off.get(f"{API}/samples/pair-{root.missing}?store=none").json()
    assert {**full, "images": 0} == {**bare, "images": 0} and bare["top_features"]["image"]
    mine = f"/samples/pair-{root.missing}"
    pages = ("/", "/features", "/features/0", "/features/1?modality=image&band=0", "/samples", "/quality")
    for page in (*pages, "/search?q=dog", f"{mine}?feature=1", f"{mine}?row=1&col=1"):
        reply = off.get(f"{page}{'&' if '?' in page else '?'}store=none", headers={"Accept": "text/html"})
        assert reply.status_code == 200, (page, reply.text[-500:])
        assert ('data-testid="not-kept"' in reply.text) == page.startswith("/samples/")


def test_a_pair_that_is_not_the_stores_is_not_taken_for_it(root: Root, tmp_path: Path) -> None:
    """The data beside a moved store: gone, changed, with other tokens in the text."""
    for name in ("examples", "none", "all"):
        shutil.copytree(root.path / name, tmp_path / name)
        report = json.loads((tmp_path / name / "run.json").read_text())
        report["data"] = "/no/such/place"
        (tmp_path / name / "run.json").write_text(json.dumps(report))
    query = f"{API}/samples/pair-{root.missing}/activations?feature=0"
    with served(tmp_path, model=str(root.path / "model"), sae=str(root.path / "sae")) as client:
        wait_ready(client)
        gone = client.get(query)
        assert gone.status_code == 409 and "its data is no longer at /no/such/place" in gone.json()["detail"]
        page = client.get(f"/samples/pair-{root.missing}?feature=1", headers={"Accept": "text/html"})
        assert page.status_code == 200 and "its data is no longer at" in page.text
        shutil.copytree(root.path / "data", tmp_path / "data")
        picture = tmp_path / "data" / f"{root.missing:03d}.png"
        original = picture.read_bytes()
        tiny.picture(12345).save(picture)
        assert "no longer the one that the store was made of" in client.get(query).json()["detail"]
        picture.unlink()
        assert client.get(query).status_code == 409
        picture.write_bytes(original)
        assert client.get(query).status_code == 200


def test_text_alone_needs_no_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": " ".join(rng.choice(tiny.WORDS, 6))}) + "\n" for _ in range(24)))
    given = {"data": str(path), "model": str(tiny.make_llama(tmp_path / "llama")), "device": "cpu"}
    sae = str(tiny.make_sae(tmp_path / "sae"))
    for remaining in ("all", "none"):
        out = tmp_path / remaining
        precompute(PrecomputeOptions(**given, sae=sae, out=out, name=remaining, events=remaining, ds=5))
    path.unlink()
    app = create_app(Settings(stores=[tmp_path / "none", tmp_path / "all"], device="cpu"))
    with TestClient(app) as client:
        while client.get("/readyz").status_code != 200:
            time.sleep(0.05)
        query = f"{API}/samples/3/activations?feature=5"
        same(client.get(query).json(), client.get(f"{query}&store=all").json())


def test_many_at_once_are_computed_once_each(live: TestClient, root: Root) -> None:
    state = live.app.state.saevx  # type: ignore[attr-defined]
    before = len(state.stores["none"].recomputed.events.entries)
    rows = [f"pair-{row}" for row in range(20, 24)]
    for _ in range(2):
        for sample_id in rows:
            assert live.get(f"{API}/samples/{sample_id}/activations?feature=0&store=none").status_code == 200
    assert len(state.stores["none"].recomputed.events.entries) <= before + len(rows)


def fresh_page(browser: Browser, url: str) -> Page:
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.on("console", lambda message: pytest.fail(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    return page


def test_the_page_of_a_sample_that_is_not_kept(browser: Browser, root: Root, tmp_path: Path) -> None:
    """In Chromium, before the server as a person starts it: the sentence, then with the model the heat itself."""
    from playwright.sync_api import expect

    address = f"/samples/pair-{root.missing}?feature=0"
    with Server(root.path / "none", "--no-live", log=tmp_path / "off.txt") as running:
        page = fresh_page(browser, running.url)
        page.goto(address)
        expect(page.get_by_test_id("not-kept")).to_contain_text("made with --events none: run saevx serve with the")
        expect(page.get_by_test_id("heat").locator("path")).to_have_count(0)
        expect(page.get_by_test_id("caption")).not_to_be_empty()
        page.locator("[data-feature]").first.hover()  # asks for nothing that is not there
        page.get_by_test_id("patch-pad").click()
        expect(page).to_have_url(re.compile("row="))
        expect(page.get_by_test_id("not-kept")).to_be_visible()
        page.goto("/features/1?modality=image")
        expect(page.get_by_test_id("bare")).to_be_visible()
        expect(page.get_by_test_id("example").first.locator("svg.heat path.peak")).to_have_count(1)
        page.context.close()
    with Server(root.path / "none", log=tmp_path / "live.txt") as running:
        running.wait("/readyz", 60)
        page = fresh_page(browser, running.url)
        page.goto(address)
        expect(page.get_by_test_id("not-kept")).to_have_count(0)
        expect(page.get_by_test_id("recomputed")).to_be_visible()
        expect(page.get_by_test_id("heat").locator("path")).not_to_have_count(0)
        page.get_by_test_id("patch-pad").click()
        expect(page.locator("#he-h")).to_contain_text("Here: row")
        page.context.close()


def test_the_page_of_a_sample_says_that_its_visitor_asks_too_often(root: Root) -> None:
    with served(root.path, rate_per_client=1, trust_proxy_auth="X-User") as client:
        client.headers["X-User"] = "kim"
        wait_ready(client)
        first, second = (client.get(f"/samples/pair-{row}?store=none&feature=1") for row in (1, 2))
    assert first.status_code == second.status_code == 200
    sentence = "it answers 1 request of one visitor a minute: try again in"
    assert sentence in second.text and sentence not in first.text
