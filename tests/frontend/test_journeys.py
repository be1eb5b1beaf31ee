"""Ways through the pages from a question to its answer, by mouse and by keyboard."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.helpers.dropping import drop
from tests.helpers.servers import page_of
from tests.helpers.synthetic import word_feature

RED = word_feature("red")


@pytest.fixture
def live_page(browser: Browser, live_url: str) -> Iterator[Page]:
    with page_of(browser, live_url) as fresh:
        yield fresh


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the focus is on such an element."""
    for _ in range(250):
        page.keyboard.press("Tab")
        if page.evaluate("(what) => document.activeElement?.matches(what) ?? false", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")


def on_the_pair(page: Page) -> None:
    """The page of a pair shows a sample with both features, each with its number and hue."""
    expect(page).to_have_url(re.compile(r"/cooccurrence/pair\?.*a=\d+&b=\d+"))
    strip = page.get_by_test_id("strip-both")
    expect(strip.get_by_test_id("sample-card").first).to_be_visible()
    assert {"1", "2"} <= set(" ".join(strip.locator(".numbers, .hue-numbers").all_text_contents()).replace(" ", ""))


def test_word_to_feature_to_counter_example_to_a_sample_of_a_pair_by_mouse(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    page.get_by_test_id("front-search").fill("red")
    page.get_by_role("button", name="Search", exact=True).click()
    page.locator(f'[data-testid="word-features"] [data-feature="{RED}"] a.label').click()
    expect(page.get_by_test_id("feature-label")).to_contain_text("red")
    page.get_by_test_id("band-counter").click()
    expect(page).to_have_url(re.compile("band=counter"))
    expect(page.get_by_test_id("counter-kind")).to_have_count(2)
    page.get_by_test_id("example").first.locator("a").first.click()
    expect(page.get_by_test_id("sample")).to_be_visible()
    page.go_back()
    expect(page.get_by_test_id("counter-kind")).to_have_count(2)
    page.get_by_test_id("cooccurring").scroll_into_view_if_needed()
    sample = page.get_by_test_id("pair-sample").first
    expect(sample).to_be_visible()
    expect(sample.locator("img").first).to_have_js_property("complete", True)
    assert sample.locator(".numbers, .hue-numbers text").count() > 0
    sample.click()
    on_the_pair(page)
    page.get_by_test_id("strip-both").get_by_test_id("sample-card").first.locator("a").first.click()
    expect(page.get_by_test_id("chosen").locator("li")).to_have_count(2)
    for _ in range(2):
        page.go_back()
    expect(page).to_have_url(re.compile(rf"/features/{RED}\?.*band=counter"))


def test_word_to_feature_to_counter_example_to_a_sample_of_a_pair_by_keyboard(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    page.keyboard.press("/")
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("word-features")).to_be_visible()
    page.wait_for_load_state()
    page.keyboard.press("j")
    page.keyboard.press("o")
    expect(page.get_by_test_id("feature-label")).to_contain_text("red")
    page.wait_for_load_state()
    tab_to(page, "[data-testid=band-counter]")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("counter-kind")).to_have_count(2)
    expect(page.get_by_test_id("band-counter")).to_be_focused()
    tab_to(page, "[data-testid=cooccurring] a.label")  # the focus brings the partners into the window
    expect(page.get_by_test_id("pair-sample").first).to_be_visible()
    tab_to(page, "[data-testid=pair-sample]")
    page.keyboard.press("Enter")
    on_the_pair(page)
    page.wait_for_load_state()
    page.keyboard.press("j")
    page.keyboard.press("o")
    expect(page.get_by_test_id("chosen").locator("li")).to_have_count(2)


def groups_of(page: Page) -> list[str]:
    expect(page.get_by_test_id("group").first).to_be_visible()
    return page.get_by_test_id("group").locator("h3").all_inner_texts()


def test_photo_dropped_to_group_to_feature_and_back_to_the_photo_by_mouse(live_page: Page, made: Path) -> None:
    live_page.goto("/")
    drop(live_page, "notes.txt", "text/plain", b"words")
    expect(live_page.get_by_test_id("front-note")).to_contain_text("notes.txt is not an image")
    drop(live_page, "a.png", "image/png", (made / "data" / "005.png").read_bytes())
    live_page.wait_for_url("**/search?image=*")
    before = groups_of(live_page)
    expect(live_page.get_by_test_id("query-image").locator("img")).to_have_js_property("complete", True)
    group = live_page.get_by_test_id("group").first
    group.hover()
    expect(live_page.locator("#query-image .heat").first.locator("path")).not_to_have_count(0)
    group.locator("a.label").first.click()
    live_page.wait_for_url("**/features/*")
    live_page.go_back()
    live_page.wait_for_url("**/search?image=*")
    assert groups_of(live_page) == before
    assert live_page.locator("#query-image img").evaluate("one => one.decode().then(() => one.naturalWidth)") > 0


def test_photo_pasted_to_group_to_feature_and_back_by_keyboard(live_page: Page, made: Path) -> None:
    live_page.goto("/")
    drop(live_page, "a.png", "image/png", (made / "data" / "007.png").read_bytes(), how="paste")
    live_page.wait_for_url("**/search?image=*")
    before = groups_of(live_page)
    live_page.wait_for_load_state()
    regions, ranking = live_page.get_by_test_id("groups"), live_page.get_by_test_id("ranked")
    tops = [box["y"] for box in (regions.bounding_box(), ranking.bounding_box()) if box]
    assert len(tops) == 2 and tops[0] < tops[1], "regions are seen first"
    tab_to(live_page, "[data-testid=group] a.label, [data-testid=ranked] a")
    assert live_page.evaluate("document.activeElement.closest('[data-testid=groups]') !== null"), "and reached first"
    tab_to(live_page, "[data-testid=group] a.label")
    expect(live_page.locator("#query-image .heat").first.locator("path")).not_to_have_count(0)
    live_page.keyboard.press("Enter")
    live_page.wait_for_url("**/features/*")
    live_page.wait_for_load_state()
    live_page.go_back()  # a headless browser has no key for it
    live_page.wait_for_url("**/search?image=*")
    assert groups_of(live_page) == before


def test_one_field_of_the_front_page_takes_words_and_numbers(live_page: Page) -> None:
    for typed, address in (("3", r"/features/3$"), ("#5", r"/features/5$"), ("dog", r"/search\?q=dog$")):
        live_page.goto("/")
        live_page.get_by_test_id("front-search").fill(typed)
        live_page.keyboard.press("Enter")
        expect(live_page).to_have_url(re.compile(address))
