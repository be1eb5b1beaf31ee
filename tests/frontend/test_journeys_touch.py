"""The journeys once more on a phone, by touch alone: 390 pixels, taps and strokes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.helpers.touch import PHONE, is_reachable, stroke

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


@pytest.fixture
def phone(browser: Browser, base_url: str) -> Iterator[BrowserContext]:
    fresh = browser.new_context(base_url=base_url, **PHONE)
    wrong: list[str] = []
    fresh.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    fresh.on("weberror", lambda error: wrong.append(str(error.error)))
    yield fresh
    fresh.close()
    assert not wrong, wrong


def number(text: str) -> int:
    return int(re.sub(r"\D", "", text))


def box_of(page: Page, testid: str) -> tuple[float, float, float, float]:
    """Left, top, width, height in the window, where the whole of it is to be seen."""
    target = page.get_by_test_id(testid)
    target.evaluate("one => one.scrollIntoView({block: 'center'})")
    box = target.bounding_box()
    assert box and box["y"] >= 0
    return box["x"], box["y"], box["width"], box["height"]


def test_from_a_threshold_to_exactly_those_pairs(phone: BrowserContext) -> None:
    page = phone.new_page()
    page.goto("/quality?flag=mismatch")
    assert is_reachable(page)
    count = page.get_by_test_id("flagged-count")
    before = number(count.inner_text())
    x, y, width, height = box_of(page, "handle")
    handle = page.get_by_test_id("handle")
    low, high, value = (float(handle.get_attribute(name) or 0) for name in ("min", "max", "value"))
    at = x + width * (value - low) / (high - low)
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
    with page.expect_download() as started:
        page.get_by_test_id("export-keep").tap()
    ids = [json.loads(line)["id"] for line in started.value.path().read_text().splitlines()]
    flagged = page.request.get(f"/api/v1/samples?flag=mismatch&threshold={threshold}&limit=200").json()["items"]
    everyone = page.request.get("/api/v1/samples?limit=200").json()["items"]
    left_out = {one["sample_id"] for one in flagged}
    assert ids == [one["sample_id"] for one in everyone if one["sample_id"] not in left_out]


def test_from_a_lasso_to_a_list_that_another_phone_opens(
    phone: BrowserContext, browser: Browser, base_url: str
) -> None:
    page = phone.new_page()
    page.goto("/map")
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))
    assert is_reachable(page)
    page.get_by_test_id("map-lasso").tap()
    expect(page.get_by_test_id("map-lasso")).to_have_attribute("aria-pressed", "true")
    x, y, width, height = box_of(page, "map-canvas")
    scrolled = page.evaluate("scrollY")
    corners = [(0.15, 0.15), (0.8, 0.15), (0.8, 0.75), (0.15, 0.75)]
    stroke(page, [(x + width * across, y + height * down) for across, down in corners])
    assert page.evaluate("scrollY") == scrolled  # the stroke draws, it does not scroll
    area = page.get_by_test_id("area")
    expect(area).to_be_visible()
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
