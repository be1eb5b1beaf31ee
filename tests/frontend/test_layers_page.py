"""From layer to layer and between two stores in a browser, by mouse, by keys, and on a phone."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from backend.app import create_app
from backend.settings import Settings
from tests.helpers import synthetic, synthetic_layers
from tests.helpers.servers import over_http, page_of
from tests.helpers.synthetic import word_feature
from tests.helpers.touch import PHONE, is_reachable

OTHER = "synthetic-7"
NUMBER = {int(old): new for new, old in enumerate(synthetic_layers.layer_order(7))}


@pytest.fixture(scope="module")
def layers_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    stores = [synthetic.small_store(tmp_path_factory), synthetic_layers.layer_store(tmp_path_factory)]
    with over_http(create_app(Settings(stores=stores, live=False)), lifespan="off") as url:
        yield url


@pytest.fixture
def page(browser: Browser, layers_url: str) -> Iterator[Page]:
    with page_of(browser, layers_url) as fresh:
        yield fresh


def test_to_the_best_match_and_back(page: Page) -> None:
    page.goto("/features/0")
    page.get_by_test_id("layers").get_by_role("link", name="7").click()
    expect(page).to_have_url(re.compile(rf"/features/{NUMBER[0]}\?.*store={OTHER}"))
    expect(page.get_by_test_id("layer-note")).to_contain_text("is the best match of #0 of layer 3 by shared samples")
    page.keyboard.press("[")
    expect(page).to_have_url(re.compile(r"/features/0\?"))
    expect(page.get_by_test_id("layer-note")).to_contain_text(f"is the best match of #{NUMBER[0]} of layer 7")


def test_no_match_is_said_on_the_page_one_is_on(page: Page) -> None:
    dog = word_feature("dog")
    page.goto(f"/features/{dog}")
    page.keyboard.press("]")
    expect(page).to_have_url(re.compile(rf"/features/{dog}\?missing={OTHER}"))
    expect(page.get_by_test_id("layer-note")).to_contain_text("has no match in layer 7")


def test_from_two_stores_to_a_matched_feature(page: Page) -> None:
    page.goto(f"/compare?with={OTHER}")
    page.get_by_test_id("by").select_option("samples")
    expect(page).to_have_url(re.compile("by=samples"))
    expect(page.get_by_test_id("n-matched")).to_have_text(re.compile(r"[1-9]"))
    page.get_by_test_id("show-here").click()
    expect(page).to_have_url(re.compile("show=here"))
    expect(page.get_by_test_id("match").first).to_contain_text("#")
    page.go_back()
    expect(page.get_by_test_id("show-all")).to_have_attribute("aria-current", "true")
    point = page.get_by_test_id("chart").first.get_by_test_id("point").first
    point.focus()
    before = page.evaluate("document.activeElement.getAttribute('href')")
    after = before
    for key in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"):
        if after == before:
            page.keyboard.press(key)
            after = page.evaluate("document.activeElement.getAttribute('href')")
    assert after != before
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(after)))


def test_on_a_phone_by_touch(browser: Browser, layers_url: str) -> None:
    with page_of(browser, layers_url, **PHONE) as page:
        page.goto(f"/compare?with={OTHER}&by=samples")
        assert is_reachable(page)
        page.get_by_test_id("show-there").tap()
        expect(page.get_by_test_id("only-note")).to_contain_text(f"Features of {OTHER}")
        assert is_reachable(page)
        page.goto("/samples")
        page.get_by_test_id("sample-card").first.get_by_role("link").first.tap()
        page.get_by_test_id("layers").get_by_role("link", name="7").tap()
        expect(page).to_have_url(re.compile(f"/samples/.*store={OTHER}"))
        assert is_reachable(page)
