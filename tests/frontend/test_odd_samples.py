"""Samples with odd ids and captions in a real browser: their links open them, their tokens can be clicked."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from backend.app import create_app
from backend.links import sample_path
from backend.settings import Settings
from tests.helpers.servers import over_http, page_of


@pytest.fixture(scope="module")
def odd_url(odd_store: Path) -> Iterator[str]:
    app = create_app(Settings(stores=[odd_store], live=False))
    with over_http(app) as url:
        yield url


@pytest.fixture
def odd_page(browser: Browser, odd_url: str) -> Iterator[Page]:
    with page_of(browser, odd_url) as fresh:
        yield fresh


@pytest.mark.parametrize(
    "sample_id", ["a/image", "..", "\n", " lead", "\u200b", "~YS9pbWFnZQ", "https://example.org/a/1.jpg?size=2"]
)
def test_an_odd_sample_opens_from_the_list(odd_page: Page, sample_id: str) -> None:
    odd_page.goto("/samples?sort=row&order=desc")
    link = odd_page.locator(f'a.mono[href="{sample_path(sample_id)}"]')
    link.click()  # it has something to see and so a width
    expect(odd_page).to_have_url(re.compile(re.escape(sample_path(sample_id)) + "$"))
    stage = odd_page.get_by_test_id("sample")
    expect(stage).to_have_attribute("data-path", sample_path(sample_id))
    for _ in range(100):  # the image may come a moment after the page
        width = odd_page.evaluate("document.querySelector('[data-testid=stage-image] img').naturalWidth")
        if width:
            break
        odd_page.wait_for_timeout(100)
    assert width > 0
    odd_page.wait_for_load_state()  # the module listens
    feature = odd_page.get_by_test_id("sample-feature").first.locator("[data-feature]").first
    with odd_page.expect_response(re.compile(r"/activations\?feature=\d+")) as answer:
        feature.hover()
    assert answer.value.ok and answer.value.json()["sample_id"] == sample_id
    odd_page.get_by_role("link", name="Steer", exact=True).last.click()
    picture = odd_page.get_by_alt_text("Image that the model reads")
    expect(picture).to_have_js_property("naturalWidth", 40)


def test_a_line_break_can_be_clicked(odd_page: Page) -> None:
    odd_page.goto("/samples/space")
    tokens = odd_page.get_by_test_id("token")
    drawn = tokens.all_text_contents()
    assert {"⏎", "⇥", "␣"} <= set(drawn)
    for sign in "⏎⇥␣":
        tokens.nth(drawn.index(sign)).click()
        expect(odd_page.locator("#he-h")).to_have_text(f"Here: “{sign}”")


def test_every_token_of_a_character_can_be_clicked(odd_page: Page) -> None:
    odd_page.goto("/samples/zh2")
    tokens = odd_page.get_by_test_id("token")
    assert tokens.all_text_contents()[:3] == ["两", "·", "·"]
    tokens.nth(2).click()
    expect(odd_page.locator("#he-h")).to_have_text("Here: “两”")


def test_the_steering_page_keeps_an_odd_sample(odd_page: Page) -> None:
    odd_page.goto("/steer?sample=%20lead")
    expect(odd_page.get_by_test_id("steer-sample")).to_have_value(" lead")
    odd_page.reload()
    expect(odd_page.get_by_test_id("steer-sample")).to_have_value(" lead")
    odd_page.get_by_test_id("steer-find").fill("\u0000猫")
    odd_page.get_by_test_id("steer-find-button").click()
    expect(odd_page.get_by_text("No feature has these words")).to_be_visible()
