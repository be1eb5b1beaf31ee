"""The journeys once more on a phone, by touch alone: 390 pixels, taps and strokes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.helpers.quality_page import exported_ids, handle_share, number, unflagged_ids
from tests.helpers.servers import page_of
from tests.helpers.synthetic import word_feature
from tests.helpers.touch import PHONE, is_reachable, stroke

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page


RED = word_feature("red")


@pytest.fixture
def page(browser: Browser, base_url: str) -> Iterator[Page]:
    with page_of(browser, base_url, **PHONE) as fresh:
        yield fresh


def box_of(page: Page, testid: str) -> tuple[float, float, float, float]:
    """Left, top, width, height in the window, where the whole of it is to be seen."""
    target = page.get_by_test_id(testid)
    target.evaluate("one => one.scrollIntoView({block: 'center'})")
    box = target.bounding_box()
    assert box and box["y"] >= 0
    return box["x"], box["y"], box["width"], box["height"]


def test_from_a_threshold_to_exactly_those_pairs(page: Page) -> None:
    page.goto("/quality?flag=mismatch")
    assert is_reachable(page)
    count = page.get_by_test_id("flagged-count")
    before = number(count.inner_text())
    x, y, width, height = box_of(page, "handle")
    at = x + width * handle_share(page)
    stroke(page, [(at, y + height / 2), (at - 0.2 * width, y + height / 2), (at - 0.35 * width, y + height / 2)])
    expect(page).to_have_url(re.compile("threshold="))
    expect(count).not_to_have_text(re.compile("≈"))
    n_flagged = number(count.inner_text())
    assert n_flagged > before
    threshold = page.get_by_test_id("threshold").input_value()

    cell = page.get_by_test_id("overlap-table").locator("tbody tr").first.locator("td a").nth(1)
    n_both = number(cell.inner_text())
    cell.tap()
    expect(page).to_have_url(re.compile(r"/samples\?flags=mismatch%3A"))
    assert is_reachable(page)
    assert page.request.get("/api/v1/samples" + page.url[page.url.index("?") :]).json()["total"] == n_both > 0
    page.go_back()
    page.get_by_test_id("without-mismatch").tap()
    expect(page).to_have_url(re.compile("without=mismatch"))
    expect(page.get_by_test_id("kept").first).to_have_text(str(80 - n_flagged))
    ids = exported_ids(page, page.get_by_test_id("export-keep").tap)
    assert ids == unflagged_ids(page, "mismatch", threshold)


def test_from_a_lasso_to_a_list_that_another_phone_opens(page: Page, browser: Browser, base_url: str) -> None:
    page.goto("/map")
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))
    assert is_reachable(page)
    page.get_by_test_id("map-lasso").tap()
    expect(page.get_by_test_id("map-lasso")).to_have_attribute("aria-pressed", "true")
    x, y, width, height = box_of(page, "map-canvas")
    scrolled = page.evaluate("scrollY")
    corners = [(0.15, 0.15), (0.8, 0.15), (0.8, 0.75), (0.15, 0.75)]
    at_end = stroke(page, [(x + width * across, y + height * down) for across, down in corners])
    assert at_end == scrolled  # the stroke draws, it does not scroll; the list of its area then comes into view
    area = page.get_by_test_id("area")
    expect(area).to_be_visible()
    ends = "one => { const { top, bottom } = one.getBoundingClientRect(); return [top + scrollY, bottom + scrollY]; }"
    below = area.evaluate(ends)[0] - page.get_by_test_id("map-panel").evaluate(ends)[1]
    assert 0 <= below < 40  # right below the map
    n = number(area.locator("h2").inner_text())
    assert n > 0
    on_map = page.url
    page.get_by_test_id("area-list").tap()
    expect(page.get_by_test_id("total")).to_have_text(f"{n:,}")
    assert is_reachable(page)
    other = browser.new_context(base_url=base_url, **PHONE)
    shared = other.new_page()
    shared.goto(on_map)
    expect(shared.get_by_test_id("area").locator("h2")).to_have_text(re.compile(f"^{n:,} features? in this area"))
    shared.goto(page.url)
    expect(shared.get_by_test_id("total")).to_have_text(f"{n:,}")
    shared.get_by_test_id("feature-row").first.locator("a.label").tap()
    expect(shared).to_have_url(re.compile(r"/features/\d+"))
    assert is_reachable(shared)
    other.close()


def test_from_a_word_to_a_sample_of_a_pair(page: Page) -> None:
    page.goto("/")
    page.get_by_test_id("front-search").tap()
    page.keyboard.type("red")
    page.get_by_role("button", name="Search", exact=True).tap()
    page.locator(f'[data-testid="word-features"] [data-feature="{RED}"] a.label').tap()
    expect(page.get_by_test_id("feature-label")).to_contain_text("red")
    assert is_reachable(page)
    page.get_by_test_id("band-counter").tap()
    expect(page.get_by_test_id("counter-kind")).to_have_count(2)
    assert is_reachable(page)
    page.get_by_test_id("cooccurring").scroll_into_view_if_needed()
    sample = page.get_by_test_id("pair-sample").first
    expect(sample).to_be_visible()
    sample.tap()
    expect(page).to_have_url(re.compile(r"/cooccurrence/pair\?"))
    assert is_reachable(page)
    page.get_by_test_id("strip-both").get_by_test_id("sample-card").first.locator("a").first.tap()
    expect(page.get_by_test_id("chosen").locator("li")).to_have_count(2)
    assert is_reachable(page)
    x, y, width, height = box_of(page, "stage-image")
    page.touchscreen.tap(x + width * 0.6, y + height * 0.6)
    sheet = page.get_by_test_id("features-here")
    expect(sheet).to_be_visible()
    box = sheet.bounding_box()
    assert box and box["y"] + box["height"] <= 845 and box["y"] > 300  # over the lower part, below the image
    for _ in range(3):
        page.go_back()
    expect(page.get_by_test_id("counter-kind")).to_have_count(2)


def test_from_a_photo_to_a_feature_and_back(browser: Browser, live_url: str, made: Path) -> None:
    with page_of(browser, live_url, **PHONE) as page:  # a server with a live model
        page.goto("/search")
        expect(page.get_by_test_id("image-input")).to_be_enabled()
        with page.expect_file_chooser() as chooser:
            page.get_by_test_id("image-input").tap()
        chooser.value.set_files(made / "data" / "005.png")
        page.wait_for_url("**/search?image=*")
        groups = page.get_by_test_id("group")
        expect(groups.first).to_be_visible()
        assert is_reachable(page)
        names = groups.locator("h3").all_inner_texts()
        x, y, width, height = box_of(page, "query-image")
        page.touchscreen.tap(x + width / 2, y + height / 2)
        expect(page).to_have_url(re.compile("patch="))
        page.go_back()
        expect(groups.first).to_be_visible()
        groups.first.locator("a.label").first.tap()
        page.wait_for_url("**/features/*")
        assert is_reachable(page)
        page.go_back()
        page.wait_for_url("**/search?image=*")
        assert groups.locator("h3").all_inner_texts() == names
