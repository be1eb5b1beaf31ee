"""Two journeys in Chromium, by mouse and by keyboard: from a threshold to the file, from a lasso to a shared list."""

import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.helpers.map_page import draw_area
from tests.helpers.quality_page import exported_ids, handle_share, number, unflagged_ids


def listed(page: Page) -> list[int]:
    rows = page.get_by_test_id("feature-row")
    return rows.evaluate_all("all => all.map((one) => Number(one.dataset.feature))")


def reach(page: Page, target: Locator) -> None:
    """Tab until the control has the focus."""
    for _ in range(250):
        if target.evaluate("one => one === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError("Tab does not reach it")


def move_threshold(page: Page, how: str) -> None:
    handle = page.get_by_test_id("handle")
    if how == "keyboard":
        reach(page, handle)
        for _ in range(6):
            page.keyboard.press("PageDown")
        return
    box = handle.bounding_box()
    assert box
    at = handle_share(page)
    page.mouse.move(box["x"] + box["width"] * at, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * (at - 0.3), box["y"] + box["height"] / 2, steps=6)
    page.mouse.up()


def use(page: Page, how: str, target: Locator, key: str = "Enter") -> None:
    if how == "mouse":
        target.click()
        return
    reach(page, target)
    page.keyboard.press(key)


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_from_a_threshold_to_exactly_those_pairs(context: BrowserContext, how: str) -> None:
    page = context.new_page()
    page.goto("/quality?flag=mismatch")
    count = page.get_by_test_id("flagged-count")
    before = number(count.inner_text())
    move_threshold(page, how)
    expect(page).to_have_url(re.compile("threshold="))
    expect(count).not_to_have_text(re.compile("≈"))
    n_flagged = number(count.inner_text())
    assert n_flagged > before
    threshold = page.get_by_test_id("threshold").input_value()

    # The overlap knows the moved threshold, opens the pairs, and Back leads here again.
    cell = page.get_by_test_id("overlap-table").locator("tbody tr").first.locator("td a").nth(1)
    n_both = number(cell.inner_text())
    use(page, how, cell)
    expect(page).to_have_url(re.compile(r"/samples\?flags=mismatch%3A"))
    assert page.request.get("/api/v1/samples" + page.url[page.url.index("?") :]).json()["total"] == n_both > 0
    page.go_back()
    expect(count).to_have_text(f"{n_flagged:,}")

    use(page, how, page.get_by_test_id("without-mismatch"), "Space")
    expect(page).to_have_url(re.compile("without=mismatch"))
    expect(page.get_by_test_id("kept").first).to_have_text(str(80 - n_flagged))
    link = page.get_by_test_id("export-keep")
    expect(link).not_to_have_attribute("aria-disabled", "true")
    ids = exported_ids(page, lambda: use(page, how, link))
    assert ids == unflagged_ids(page, "mismatch", threshold)


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_from_a_lasso_to_a_list_that_another_browser_opens(
    context: BrowserContext, browser: Browser, base_url: str, how: str
) -> None:
    page = context.new_page()
    page.goto("/map")
    canvas = page.get_by_test_id("map-canvas")
    expect(canvas).to_have_attribute("data-drawn", re.compile(r"\d"))
    if how == "keyboard":
        reach(page, canvas)
        for key in ("+", "+", "Shift+ArrowLeft", "l", "Enter"):
            page.keyboard.press(key)
    else:
        draw_area(page)
    area = page.get_by_test_id("area")
    expect(area).to_be_visible()
    n = number(area.locator("h2").inner_text())
    assert 0 < n < int(canvas.get_attribute("data-drawn") or 0)
    text = re.search(r"area=([^&]+)", page.url)
    assert text
    inside = page.request.get(f"/api/v1/features?area={text[1]}&limit=500").json()
    assert inside["total"] == n
    on_map = page.url
    use(page, how, page.get_by_test_id("area-list"))
    expect(page).to_have_url(re.compile("/features\\?"))
    expect(page.get_by_test_id("total")).to_have_text(f"{n:,}")
    ids = listed(page)
    assert set(ids) <= {one["id"] for one in inside["items"]}

    other = browser.new_context(base_url=base_url)
    shared = other.new_page()
    shared.goto(on_map)
    expect(shared.get_by_test_id("area").locator("h2")).to_have_text(re.compile(f"^{n:,} features? in this area"))
    shared.goto(page.url)
    expect(shared.get_by_test_id("total")).to_have_text(f"{n:,}")
    assert listed(shared) == ids
    other.close()
