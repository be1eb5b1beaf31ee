"""Pages that ask the model, whole without JavaScript: by a posted picture, by a sample's, by words."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from backend.app import create_app
from backend.settings import Settings
from precompute.store.reader import Store
from tests.helpers.dropping import drop
from tests.helpers.live_api import wait_ready
from tests.helpers.running import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def live(made: Path) -> Iterator[TestClient]:
    app = create_app(Settings(stores=[made / "store"], device="cpu"))
    with TestClient(app, headers={"Accept": "text/html"}) as running:
        wait_ready(running)
        yield running


def ranked(page: str) -> list[int]:
    return [int(k) for k in re.findall(r'data-testid="result-feature" data-feature="(\d+)"', page)]


def words_of(markup: str) -> str:
    return " ".join(html.unescape(re.sub("<[^>]*>", "", markup)).split())


def test_a_posted_image_gets_an_address_and_is_ranked_as_the_api_ranks_it(live: TestClient, made: Path) -> None:
    data = (made / "data" / "005.png").read_bytes()
    page = live.post("/search", files={"image": ("p.png", data, "image/png")}, data={"q": ""})
    assert page.status_code == 200 and re.search(r"/search\?image=[0-9a-f]{32}$", str(page.url))
    reply = live.post("/api/v1/search", files={"image": ("p.png", data, "image/png")}).json()
    assert ranked(page.text) == [one["id"] for one in reply["features"]] != []
    links = list(dict.fromkeys(map(int, re.findall(r'href="/features/(\d+)', page.text))))
    assert links[: len(reply["features"])] == [one["id"] for one in reply["features"]], "the first links, as the API"
    assert f"{reply['n_dense']} dense feature" in page.text
    assert page.text.count('data-testid="group"') == len(reply["groups"]) > 0
    assert 'data-kind="background"' in page.text
    cards = [card.split("</ol>")[0] for card in page.text.split('data-testid="group"')[1:]]
    for card, group in zip(cards, reply["groups"], strict=True):  # each says what is there, and of how many features
        title, name = re.findall("<h3>(.*?)</h3>", card)[0], re.findall('class="label"[^>]*>(.*?)<s', card)[0]
        n = sum(len(family["features"]) for family in group["families"])
        here = {"region": "Here: ", "background": "Background: ", "place": "Tied to a place"}[group["kind"]]
        assert (
            words_of(title) == f"{here}{'' if group['kind'] == 'place' else words_of(name)} {n} feature{'s' * (n > 1)}"
        )
    assert f"FVU <strong>{reply['reconstruction']['fvu']:.2f}" in page.text
    opened = Store.open(made / "store")
    details = [opened.samples.get(opened.samples.sample_id(row), 1) for row in range(opened.n_samples)]
    fvu = [one["fvu_image"] for one in details if one["fvu_image"] is not None]
    assert reply["reconstruction"]["limit"] == pytest.approx(np.quantile(fvu, 0.99))
    assert reply["reconstruction"]["fvu"] == pytest.approx(fvu[5], rel=0.02)  # the image of the sixth pair
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    other = live.post("/api/v1/search", files={"image": ("n.png", buffer.getvalue(), "image/png")}).json()
    assert other["reconstruction"]["unlike"] == (other["reconstruction"]["fvu"] > reply["reconstruction"]["limit"])
    again = live.get(str(page.url))  # reload, Back and a shared address
    assert ranked(again.text) == ranked(page.text)
    hash = str(page.url)[-32:]
    assert live.post("/api/v1/search", data={"image_hash": hash}).json() == reply
    addresses = {html.unescape(one) for one in re.findall(r'href="([^"]*/search/live[^"]*)"', page.text)}
    assert len(addresses) == 1 and live.get(addresses.pop()).json() == reply
    image = live.get(f"/api/v1/images/{hash}")
    assert image.headers["content-type"] == "image/webp" and image.headers["cache-control"] == "no-store"
    with Image.open(io.BytesIO(image.content)) as shown, Image.open(io.BytesIO(data)) as sent:
        assert shown.size == sent.size


def test_a_patch_lists_what_fires_there(live: TestClient, made: Path) -> None:
    data = (made / "data" / "005.png").read_bytes()
    hash = live.post("/api/v1/images", files={"image": ("p.png", data, "image/png")}).json()["hash"]
    whole = live.post("/api/v1/search?limit=200", data={"image_hash": hash}).json()
    of_whole = {one["id"]: one["grids"][0]["values"] for one in whole["features"]}
    first = next(iter(of_whole.values()))
    row, col = next((r, c) for r, columns in enumerate(first) for c, value in enumerate(columns) if value)
    at_patch = live.post(f"/api/v1/search?limit=200&patch=0,{row},{col}", data={"image_hash": hash}).json()
    firing = {id for id, values in of_whole.items() if values[row][col] > 0}
    assert {one["id"] for one in at_patch["features"]} == firing != set()
    page = live.get(f"/search?image={hash}&patch=0,{row},{col}")
    assert ranked(page.text) == [one["id"] for one in at_patch["features"]][:24] and 'class="peak"' in page.text
    where = {"image": hash, "patch": f"0,{row},{col}", "limit": "200"}
    assert live.get("/api/v1/search/live", params=where).json() == at_patch
    assert live.get(f"/search?image={hash}&patch=0,99,0").status_code == 422
    for wrong in ({}, {"q": " "}, {"image": hash, "sample": "x"}):
        assert live.get("/api/v1/search/live", params=wrong).status_code == 422


def test_an_image_that_is_gone_says_what_to_do(live: TestClient) -> None:
    page = live.get("/search?image=" + "0" * 32 + "&q=dog")
    assert page.status_code == 404 and "choose the image again" in page.text and 'name="image_hash"' not in page.text
    steered = live.post("/api/v1/steer", json={"prompt": "x", "image_hash": "0" * 32})
    assert steered.status_code == 404 and "choose the image again" in steered.json()["detail"]


def test_a_number_opens_its_feature(live: TestClient) -> None:
    for number in ("3", "#3", " 3 "):
        page = live.get("/search", params={"q": number}, follow_redirects=False)
        assert page.status_code == 303 and page.headers["location"].endswith("/features/3")
    page = live.get("/search?q=999999")
    last = live.get("/api/v1/store").json()["n_features"] - 1
    assert page.status_code == 200
    assert f"There is no feature 999999. This store has features 0 to {last}." in page.text
    assert "no-feature" not in live.get("/search?q=red").text
    assert "Enter words, the number of a feature" in live.get("/search?q=%20").text


def test_a_samples_picture_and_words_have_an_address(live: TestClient) -> None:
    sample = live.get("/api/v1/samples?limit=1").json()["items"][0]["sample_id"]
    by_picture = live.get(f"/search?sample={sample}")
    assert by_picture.status_code == 200 and ranked(by_picture.text)
    by_words = live.get("/search?q=dog&model=1")
    assert by_words.status_code == 200
    assert "Features that the query activates" in by_words.text and "Features by words" in by_words.text


def test_a_broken_picture_is_refused_in_its_place(live: TestClient) -> None:
    page = live.post("/search", files={"image": ("p.png", b"no image", "image/png")}, data={"q": "dog"})
    assert page.status_code == 422 and 'data-testid="search-error"' in page.text
    assert 'value="dog"' in page.text


def test_steering_page_is_ready(live: TestClient) -> None:
    wrong = "&feature=".join(["9999:add:1", "x", "3:turn:1", "3:add:nan", "3:add:200", "3:add:1:kin"])
    page = live.get(f"/steer?feature=3:set:1&feature={wrong}").text
    faults = re.findall(r'data-testid="steer-fault">(.*?)</p>', page)
    for fault, reason in zip(faults, (
        "There is no feature 9999: ", "feature=x does not begin with a feature&#39;s number",
        "feature=3:turn:1 has no such mode", "feature=3:add:nan has no such strength",
        "feature=3:add:200 has no such strength", "feature=3:add:1:kin ends in something unknown",
    ), strict=True):  # fmt: skip
        assert fault.startswith(reason)
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
        with page.expect_response("**/api/v1/live*") as reply:
            pass
        assert reply.value.json()["state"] == "loading" and len(reply.value.body()) < 500
        expect(page.locator("#steer")).to_have_attribute("data-ready", "no")
        expect(page.get_by_test_id("model-unavailable")).to_contain_text(
            "this page goes on by itself when it is ready."
        )
        for path in (
            "/search",
            "/search?q=dog&model=1",
            "/try?text=a+dog",
            "/explain?sample=pair-1&ask=1",
            "/features/3/effect",
        ):
            text = httpx.get(server.url + path, headers={"Accept": "text/html"}).text
            assert "The model is still loading" in text and "try again in a few seconds" not in text, path
        server.let_go()
        expect(page.locator("#steer")).to_have_attribute("data-ready", "yes")
        page.context.close()
    assert not any(path.startswith("/api/v1/store") for path in query), query


def test_a_question_typed_while_the_model_loads_stays(browser: Browser, made: Path) -> None:
    """And is asked when its button is pressed, not another one before."""
    from playwright.sync_api import expect

    server = Running(Settings(stores=[made / "store"], device="cpu"), ready=False)
    with server.held_up(), server:
        page = browser.new_context(base_url=server.url).new_page()
        page.goto("/explain")
        expect(page.get_by_test_id("explain-ask")).to_be_disabled()
        page.get_by_test_id("explain-sample").fill("pair-5")
        page.locator("[name=prompt]").fill("the red")
        server.let_go()
        expect(page.get_by_test_id("explain-ask")).to_be_enabled()
        expect(page.get_by_test_id("model-unavailable")).to_have_count(0)
        expect(page.get_by_test_id("explain-sample")).to_have_value("pair-5")
        expect(page.locator("[name=prompt]").first).to_have_value("the red")
        assert "ask=" not in page.url
        page.get_by_test_id("explain-ask").click()
        page.wait_for_url("**sample_key=pair-5**")
        page.context.close()


@pytest.fixture(scope="module")
def page(browser: Browser, made: Path) -> Iterator[Page]:
    """A page of a running server, with mouse and keyboard."""
    with Running(Settings(stores=[made / "store"], device="cpu")) as server:
        context = browser.new_context(base_url=server.url)
        yield context.new_page()
        context.close()


def test_a_run_of_steering_stays_and_says_what_it_is_of(page: Page, made: Path) -> None:
    from playwright.sync_api import expect

    page.goto("/steer?feature=3:add:2&max_tokens=4")
    page.keyboard.press("/")
    expect(page.get_by_test_id("steer-find")).to_be_focused()
    page.get_by_test_id("steer-prompt").press("Control+Enter")
    expect(page.get_by_test_id("steer-done")).to_be_visible()
    answer = page.get_by_test_id("out-steered").inner_text()
    first = page.url
    page.locator("a.label").click()
    page.wait_for_url("**/features/3*")
    page.go_back()
    expect(page.get_by_test_id("out-steered")).to_have_text(answer, use_inner_text=True)
    expect(page.get_by_test_id("answers")).to_have_attribute("data-stale", "no")

    page.get_by_test_id("steer-strength").fill("6")
    expect(page.get_by_test_id("answers")).to_have_attribute("data-stale", "yes")
    expect(page.get_by_test_id("steer-status")).to_contain_text("From other settings: #3 2 ×")
    page.get_by_test_id("steer-strength").press("Control+Enter")
    expect(page.get_by_test_id("steer-history").locator("li")).to_have_count(1)
    expect(page.get_by_test_id("steer-done")).to_be_visible()
    page.get_by_test_id("steer-history").locator("a").click()
    page.wait_for_url(first)
    expect(page.get_by_test_id("out-steered")).to_have_text(answer, use_inner_text=True)


def test_steerings_image_and_scopes_are_in_the_address(page: Page, made: Path) -> None:
    from playwright.sync_api import expect

    page.goto("/steer?feature=3:add:2")
    page.get_by_test_id("steer-image").set_input_files(made / "data" / "005.png")
    page.wait_for_url("**image=*")
    for scope in ("image", "prompt", "generated"):
        page.get_by_test_id(f"scope-{scope}").uncheck()
    page.reload()
    expect(page.get_by_test_id("steer-sample")).to_have_value("")
    with Image.open(made / "data" / "005.png") as image:
        expect(page.locator(".steer-pic img")).to_have_js_property("naturalWidth", image.width)
    expect(page.get_by_test_id("scope-image")).not_to_be_checked()
    page.get_by_test_id("steer-no-image").click()
    page.wait_for_url("**sample=none*")
    page.reload()
    expect(page.locator(".steer-pic")).to_have_count(0)
    page.get_by_test_id("steer-sample").fill("nobody")
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("steer-note")).to_contain_text("nobody")


def test_a_sample_is_also_chosen_by_a_word_of_its_caption(page: Page) -> None:
    from playwright.sync_api import expect

    api = page.request
    page.goto("/steer?feature=3:add:2&sample=none")
    first = api.get(f"{page.url.partition('/steer')[0]}/api/v1/samples?limit=1&q=dog").json()["items"][0]
    page.get_by_test_id("steer-sample").fill("dog")
    page.keyboard.press("Tab")
    expect(page.get_by_test_id("steer-sample")).to_have_value(first["sample_id"])
    expect(page.get_by_test_id("steer-note")).to_have_count(0)

    page.goto("/explain?sample=dog&ask=1")
    offered = page.get_by_test_id("explain-candidates").locator("li")
    expect(offered.first).to_contain_text("dog")
    expect(page.get_by_test_id("explain-refusal")).to_have_count(0)
    offered.first.locator("a").click()
    page.wait_for_url("**sample_key=*")
    expect(page.get_by_test_id("answer")).to_be_visible()
    expect(page.get_by_test_id("explain-sample")).to_have_value(first["sample_id"])
    page.goto("/explain?sample=nobody&ask=1")
    expect(page.get_by_test_id("explain-refusal")).to_contain_text("No sample 'nobody'")
    expect(page.get_by_text("No sample 'nobody'")).to_have_count(1)


def test_a_dropped_image_stays_through_back_and_reload_and_can_be_removed(page: Page, made: Path) -> None:
    from playwright.sync_api import expect

    page.goto("/search")
    drop(page, "notes.txt", "text/plain", b"words")
    note = page.get_by_test_id("drop-note")
    expect(note).to_have_text("notes.txt is not an image: drop a PNG, JPEG, WebP or GIF file.")
    drop(page, "broken.png", "image/png", b"no image")
    expect(page.get_by_test_id("search-error")).to_contain_text("send another image")
    page.get_by_test_id("q").fill("dog")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("search-error")).to_have_count(0)  # the broken file was dropped with its error
    page.wait_for_url("**/search?q=dog")

    page.goto("/search")
    drop(page, "a.png", "image/png", (made / "data" / "005.png").read_bytes())
    page.wait_for_url("**/search?image=*")
    rows = page.get_by_test_id("result-feature")
    ids = rows.evaluate_all("(all) => all.map((one) => one.dataset.feature)")
    expect(page.get_by_test_id("query-image").locator("img")).to_have_js_property("complete", True)
    rows.first.hover()
    drawn = rows.first.locator(".heat").first.inner_html()
    assert page.locator("#query-image .heat").first.inner_html() == drawn
    rows.first.locator("a.label").click()
    page.wait_for_url("**/features/*")
    page.go_back()
    expect(rows).to_have_count(len(ids))
    page.reload()
    assert rows.evaluate_all("(all) => all.map((one) => one.dataset.feature)") == ids != []

    page.get_by_test_id("query-pad").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_url("**patch=0%2C0%2C0")
    expect(page.get_by_test_id("at-patch")).to_be_visible()
    page.go_back()
    expect(page.get_by_test_id("at-patch")).to_have_count(0)
    page.get_by_test_id("remove-image").click()
    page.wait_for_url("**/search")
    expect(page.get_by_test_id("query-image")).to_have_count(0)
