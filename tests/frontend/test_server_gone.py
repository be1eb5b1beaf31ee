"""What one sees while the model works and where the server is gone: progress, or a sentence and a way to try again."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from backend.live.effects import CACHE
from backend.settings import Settings
from tests.helpers.running import Running
from tests.helpers.servers import Server, page_of

STEER = "/steer?feature=3:add:2&feature=5:add:1&sample=pair-1&max_tokens=3&temperature=1"
CELLS = {"strengths": ".sweep-cell", "features": "[data-testid=ranked]", "seeds": "[data-testid=seed]"}


def test_runs_that_a_killed_server_did_not_answer_say_so(browser: Browser, made: Path, tmp_path: Path) -> None:
    options = (made / "store", "--device", "cpu")
    server = Server(*options, log=tmp_path / "log")
    server.wait("/readyz", 120)
    page = browser.new_context(base_url=server.url).new_page()
    page.goto(STEER)
    sweep = page.locator("[data-testid=sweep][data-running=no]")
    page.get_by_test_id("many-strengths").click()
    sweep.wait_for(timeout=60_000)
    os.kill(server.process.pid, signal.SIGSTOP)  # it takes the request, and does not answer it
    page.get_by_test_id("many-strengths").click()
    expect(page.locator(CELLS["strengths"]).first).to_contain_text("…")
    server.process.kill()
    server.process.wait()
    for mode, cell in CELLS.items():
        if mode != "strengths":
            page.get_by_test_id(f"many-{mode}").click()
        expect(page.locator(cell).first).to_contain_text("not run")
        expect(page.get_by_test_id("sweep-error")).to_contain_text("The server cannot be reached")
        texts = page.locator(cell).all_inner_texts()
        assert texts and all("not run" in text and "…" not in text for text in texts), texts
    with Server(*options, log=tmp_path / "log", port=server.port) as again:
        again.wait("/readyz", 120)
        page.get_by_test_id("sweep-again").click()
        expect(page.get_by_test_id("sweep-error")).to_have_count(0)
        expect(page.locator(CELLS["seeds"]).first).to_contain_text("KL", timeout=60_000)
        sweep.wait_for(timeout=60_000)
        texts = page.locator(CELLS["seeds"]).all_inner_texts()
        assert texts and all("KL" in text and "not run" not in text for text in texts), texts
    page.context.close()


@pytest.fixture
def server(made: Path) -> Iterator[Running]:
    CACHE.entries.clear()  # an effect that was measured before would come at once
    with Running(Settings(stores=[made / "store"], device="cpu")) as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Page]:
    with page_of(browser, server.url) as fresh:
        yield fresh


def features(server: Running, n: int) -> list[int]:
    """Those that fire in most samples. Each test takes its own: an effect that nobody waits for any more may still be
    measured, and be ready when the next test asks."""
    reply = httpx.get(f"{server.url}/api/v1/features?sort=n_samples&order=desc&limit={n}").json()
    return [one["id"] for one in reply["items"]]


def test_an_effect_comes_also_where_one_chooses_something_else_meanwhile(server: Running, page: Page) -> None:
    first, second = features(server, 2)
    page.goto(f"/features/{first}")
    other = page.context.new_page()
    with server.held_up():
        page.get_by_test_id("measure").click()
        expect(page.get_by_test_id("effect-stop")).to_be_visible()
        expect(page.get_by_test_id("effect-seconds")).to_have_text(re.compile(r"\d+ s"))
        page.get_by_test_id("band-0").click()
        expect(page).to_have_url(re.compile("band=0"))
        expect(page.get_by_test_id("band-0")).to_have_attribute("aria-current", "true")
        other.goto(f"/features/{second}?effect=1")
        expect(other.get_by_test_id("effect-queue")).to_contain_text("The model has 2 requests")
        expect(page.get_by_test_id("effect-stop")).to_be_visible()
    for one in (page, other):
        expect(one.get_by_test_id("measure")).to_have_count(0, timeout=60_000)
        expect(one.get_by_test_id("effect-stop")).to_have_count(0)
        assert one.get_by_test_id("effect").locator("[data-testid=effect-figures], .empty").count() == 1


def test_an_effect_can_be_stopped_and_measured_after_all(server: Running, page: Page) -> None:
    page.goto(f"/features/{features(server, 3)[2]}")
    with server.held_up():
        page.get_by_test_id("measure").click()
        page.get_by_test_id("effect-stop").click()
        expect(page.get_by_test_id("effect-stopped")).to_contain_text("nothing was measured")
        expect(page.get_by_test_id("measure")).to_have_text("Try again")
        server.free()
        page.get_by_test_id("measure").click()
        expect(page.get_by_test_id("effect-stopped")).to_have_count(0)
    expect(page.get_by_test_id("measure")).to_have_count(0, timeout=60_000)


def test_a_slow_server_is_not_asked_again_for_its_queue_while_it_has_not_answered(server: Running, page: Page) -> None:
    page.goto(f"/features/{features(server, 4)[3]}")
    asked: list[str] = []
    page.route("**/api/v1/live*", lambda route: asked.append(route.request.url))  # never answered
    with server.held_up():
        page.get_by_test_id("measure").click()
        expect(page.get_by_test_id("effect-seconds")).to_have_text(re.compile(r"^([7-9]|\d{2,}) s$"))
        assert len(asked) == 1
        page.get_by_test_id("effect-stop").click()
    page.unroute_all(behavior="ignoreErrors")


def test_what_waits_for_the_model_goes_on_once_it_is_loaded(browser: Browser, made: Path) -> None:
    CACHE.entries.clear()
    server = Running(Settings(stores=[made / "store"], device="cpu"), ready=False)
    with server.held_up(), server:
        context = browser.new_context(base_url=server.url)
        effect, own = context.new_page(), context.new_page()
        effect.goto(f"/features/{features(server, 5)[4]}?effect=1")
        expect(effect.get_by_test_id("effect-refusal")).to_contain_text("The effect is measured as soon as it is ready")
        own.goto("/try")
        own.get_by_test_id("own-text").fill("a red dog")
        server.let_go()
        expect(own.get_by_test_id("own-run")).to_be_enabled(timeout=60_000)
        expect(own.get_by_test_id("own-text")).to_have_value("a red dog")
        expect(effect.get_by_test_id("measure")).to_have_count(0, timeout=60_000)
        expect(effect.get_by_test_id("effect-refusal")).to_have_count(0)
        context.close()


@pytest.mark.parametrize("failure", ["no answer", "502"])
def test_a_part_that_did_not_come_can_be_tried_again(browser: Browser, base_url: str, failure: str) -> None:
    page = browser.new_context(base_url=base_url).new_page()  # its console tells of the failed request
    page.goto("/features")
    query = re.compile(r"/features\?")
    page.route(query, lambda route: route.abort() if failure == "no answer" else route.fulfill(status=502, body="?"))
    page.get_by_test_id("q").fill("red")
    sentence = "The server cannot be reached" if failure == "no answer" else "The server answered 502"
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    page.unroute(query)
    page.get_by_role("button", name="Try again").click()
    expect(page).to_have_url(re.compile("q=red"))
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_test_id("feature-row").first).to_be_visible()
    page.context.close()
