"""The quality page in Chromium: counts while one drags, the matrix of flags, and what the export holds."""

import re

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.helpers.quality_page import exported_ids, handle_share, number
from tests.helpers.servers import page_of
from tests.helpers.touch import PHONE

QUALITY = "/quality?flag=mismatch"


def drag(page: Page, to: float) -> None:
    """The handle of the threshold to a share of the histogram; the button stays down."""
    box = page.locator("[data-drag]").bounding_box()
    assert box
    at = box["x"] + box["width"] * min(1, max(0, handle_share(page)))
    page.mouse.move(at, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * to, box["y"] + box["height"] / 2, steps=5)


def ids_of(page: Page, testid: str) -> list[str]:
    return exported_ids(page, page.get_by_test_id(testid).click)


def test_a_dragged_threshold_counts_at_once_and_exports_what_it_says(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(QUALITY)
    count, export = page.get_by_test_id("flagged-count"), page.get_by_test_id("export-flag")
    before, address = number(count.inner_text()), page.url
    drag(page, 0.4)
    expect(count).to_have_text(re.compile("^≈"))  # the button is still down
    during = number(count.inner_text())
    assert during > before and page.url == address
    assert export.get_attribute("aria-disabled") == "true" and export.get_attribute("href") is None
    page.mouse.up()
    expect(page).to_have_url(re.compile("threshold="))
    expect(count).not_to_have_text(re.compile("≈"))
    exact = number(count.inner_text())
    assert abs(exact - during) <= 5  # about a bar of the histogram
    threshold = page.get_by_test_id("threshold").input_value()
    reply = page.request.get(f"/api/v1/samples?flag=mismatch&threshold={threshold}&limit=200").json()
    assert reply["total"] == exact
    flagged = {one["sample_id"] for one in reply["items"]}
    rest = ids_of(page, "export-flag")
    assert not flagged & set(rest) and len(rest) + len(flagged) == 80
    # The same threshold stands in the matrix, and its cells open the pairs of both flags.
    cell = page.get_by_test_id("overlap-table").locator("tbody tr").first.locator("td a").nth(1)
    n = number(cell.inner_text())
    cell.click()
    expect(page).to_have_url(re.compile(r"/samples\?flags=mismatch%3A"))
    assert page.request.get("/api/v1/samples" + page.url[page.url.index("?") :]).json()["total"] == n


def test_a_handle_put_back_gives_the_exports_back(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(QUALITY)
    handle = page.get_by_test_id("handle")
    handle.evaluate(
        "e => { e.focus(); const v = e.value; for (const to of [e.min, v]) "
        "{ e.value = to; e.dispatchEvent(new Event('input', {bubbles: true})); } }"
    )
    assert page.get_by_test_id("export-flag").get_attribute("href")


def test_the_export_holds_exactly_what_the_tray_counts(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/quality")
    page.get_by_test_id("without-mismatch").check()
    expect(page).to_have_url(re.compile("without=mismatch"))
    page.get_by_test_id("by").select_option("pooled-cosine")
    expect(page.get_by_test_id("file-name")).to_have_text(
        re.compile(r"^synthetic-not-mismatch-[\d.]+-pooled-cosine-50\.jsonl$")
    )
    slider, total = page.get_by_test_id("keep"), page.get_by_test_id("kept")
    matching = int(slider.get_attribute("data-matching") or 0)
    slider.evaluate("e => { e.focus(); e.value = 30; e.dispatchEvent(new Event('input', {bubbles: true})); }")
    expect(total).to_have_text(str(int(matching * 0.3 + 0.5)))  # before the server has answered
    assert page.get_by_test_id("export-csv").get_attribute("aria-disabled") == "true"
    slider.evaluate("e => e.dispatchEvent(new Event('change', {bubbles: true}))")
    expect(page).to_have_url(re.compile("keep=30"))
    expect(page.get_by_test_id("export-csv")).not_to_have_attribute("aria-disabled", "true")
    ids = ids_of(page, "export-keep")
    assert len(ids) == number(total.inner_text()) == int(matching * 0.3 + 0.5)
    cards = page.get_by_test_id("preview").get_by_test_id("sample-card")
    lowest = [card.get_attribute("data-sample") for card in cards.all()]
    scores = {id: page.request.get(f"/api/v1/samples/{id}").json()["scores"]["pooled-cosine"] for id in ids}
    assert lowest == sorted(ids, key=lambda id: (scores[id], id))[:6]
    page.get_by_test_id("require-mismatch").check()  # a flag is left out or required
    expect(page).to_have_url(re.compile("require=mismatch"))
    assert "without" not in page.url
    page.go_back()
    expect(page.get_by_test_id("without-mismatch")).to_be_checked()


def test_a_near_duplicate_stands_beside_the_sample_that_it_repeats(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/quality?flag=near-duplicate&threshold=0.05")
    cards = page.get_by_test_id("flagged-samples").get_by_test_id("sample-card")
    assert cards.count() >= 2
    for card in cards.all():
        sample = page.request.get(f"/api/v1/samples/{card.get_attribute('data-sample')}").json()
        twin = card.get_by_test_id("twin")
        expect(twin.locator(".meta a")).to_have_attribute("title", sample["near_sample_id"])
        own, other = card.locator("img").first.bounding_box(), twin.locator("img").bounding_box()
        assert own and other and own["y"] == other["y"] and own["x"] + own["width"] <= other["x"]
    page.goto(QUALITY)
    assert page.get_by_test_id("twin").count() == 0


@pytest.mark.parametrize("width", [320, 390])
def test_a_tap_on_the_histogram_moves_nothing_and_nothing_is_too_wide(
    browser: Browser, base_url: str, width: int
) -> None:
    context = browser.new_context(base_url=base_url, viewport={"width": width, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(QUALITY)
    area = page.locator("[data-drag]")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box
    page.touchscreen.tap(box["x"] + box["width"] * 0.2, box["y"] + 40)
    page.wait_for_timeout(200)
    assert "threshold" not in page.url and "≈" not in page.get_by_test_id("flagged-count").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    card, export = page.get_by_test_id("flagged-samples").locator("li").first, page.get_by_test_id("export-flag")
    tops = [one.evaluate("one => one.getBoundingClientRect().top") for one in (card, export)]
    assert tops[0] < tops[1]  # what is flagged comes before what one does with it
    context.close()


def test_on_a_phone_the_export_is_one_tap_from_the_top_and_marks_say_what_they_mean(
    browser: Browser, base_url: str
) -> None:
    with page_of(browser, base_url, **PHONE) as page:
        page.goto(QUALITY)
        export = page.locator("#kp-h")
        expect(export).not_to_be_in_viewport()
        page.get_by_test_id("to-export").tap()
        expect(export).to_be_in_viewport()
        expect(page.get_by_test_id("mark-help")).to_contain_text(
            "✓ right: the pair has this fault; ✗ wrong: it has not"
        )
