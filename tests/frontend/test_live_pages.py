"""Pages that ask the model, whole without JavaScript: by a posted picture, by a sample's, by words."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from tests.helpers import tiny
from tests.helpers.running import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("live-pages")
    precompute(
        PrecomputeOptions(
            data=str(tiny.make_data(root / "data", 24)),
            model=str(tiny.make_llava(root / "model")),
            sae=str(tiny.make_sae(root / "sae")),
            out=root / "store",
            sinks="keep",
            device="cpu",
        )
    )
    return root


@pytest.fixture(scope="module")
def live(made: Path) -> Iterator[TestClient]:
    app = create_app(Settings(stores=[made / "store"], device="cpu"))
    with TestClient(app, headers={"Accept": "text/html"}) as running:
        end = time.monotonic() + 60
        while running.get("/readyz").status_code != 200:
            assert time.monotonic() < end, running.get("/readyz").text
            time.sleep(0.05)
        yield running


def ranked(page: str) -> list[int]:
    return [int(k) for k in re.findall(r'data-testid="result-feature" data-feature="(\d+)"', page)]


def test_a_posted_picture_is_ranked_as_the_api_ranks_it(live: TestClient, made: Path) -> None:
    data = (made / "data" / "005.png").read_bytes()
    page = live.post("/search", files={"image": ("p.png", data, "image/png")}, data={"q": ""})
    assert page.status_code == 200
    reply = live.post("/api/v1/search", files={"image": ("p.png", data, "image/png")}).json()
    assert ranked(page.text) == [one["id"] for one in reply["features"]] != []
    assert 'src="data:image/webp;base64,' in page.text and 'class="heat"' in page.text
    assert f"{reply['n_dense']} dense feature" in page.text
    assert page.text.count('data-testid="group"') == len(reply["groups"]) > 0
    assert 'data-kind="background"' in page.text


def test_a_samples_picture_and_words_have_an_address(live: TestClient) -> None:
    sample = live.get("/api/v1/samples?limit=1").json()["items"][0]["sample_id"]
    by_picture = live.get(f"/search?sample={sample}")
    assert by_picture.status_code == 200 and ranked(by_picture.text)
    by_words = live.get("/search?q=dog&model=1")
    assert by_words.status_code == 200
    assert "Features that the query activates" in by_words.text and "Features by words" in by_words.text


def test_a_broken_picture_is_refused_in_its_place(live: TestClient) -> None:
    page = live.post("/search", files={"image": ("p.png", b"no picture", "image/png")}, data={"q": "dog"})
    assert page.status_code == 422 and 'data-testid="search-error"' in page.text
    assert 'value="dog"' in page.text


def test_steering_page_is_ready(live: TestClient) -> None:
    page = live.get("/steer?feature=3:set:1&feature=9999:add:1&feature=x").text
    assert 'data-ready="yes"' in page and 'data-testid="model-unavailable"' not in page
    state = re.search(r'data-state="([^"]+)"', page)
    assert state and state[1].count("&#34;id&#34;") == 1


def test_the_steering_page_waits_for_the_model_with_small_requests(browser: Browser, made: Path) -> None:
    """In Chromium: while the model loads, its state alone is asked for, not the whole store; then the page is ready."""
    from playwright.sync_api import expect

    server = Running(Settings(stores=[made / "store"], device="cpu"), ready=False)
    query: list[str] = []
    with server.held_up(), server:
        page = browser.new_context(base_url=server.url).new_page()
        page.on("request", lambda request: query.append(request.url.removeprefix(server.url)))
        page.goto("/steer")
        with page.expect_response("**/api/v1/live*", timeout=20_000) as reply:
            pass
        assert reply.value.json()["state"] == "loading" and len(reply.value.body()) < 500
        expect(page.locator("#steer")).to_have_attribute("data-ready", "no")
        server.let_go()
        expect(page.locator("#steer")).to_have_attribute("data-ready", "yes", timeout=60_000)
        page.context.close()
    assert not any(path.startswith("/api/v1/store") for path in query), query
