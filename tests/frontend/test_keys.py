"""Keys in a real Chromium: rows of a list, the list's trail through its pages, the dialog that lists the keys."""

import re

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from backend.templating import KEYS


def test_rows_are_walked_and_opened(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features?sort=id&order=asc&fold=none")
    rows = page.get_by_test_id("feature-row")
    for key, at in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        expect(rows.nth(at).locator("a.label")).to_be_focused()
    page.keyboard.press("o")
    expect(page).to_have_url(re.compile("/features/1$"))


def test_the_trail_goes_on_into_the_next_page_and_ends_with_the_list(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features?sort=id&order=asc&fold=none")
    first = page.get_by_test_id("feature-row").count()
    total = page.request.get("/api/v1/features?limit=1").json()["total"]
    assert first < total
    page.get_by_test_id("feature-row").last.locator("a.label").click()
    expect(page.get_by_test_id("in-list")).to_have_text(f"{first} of {total} in the list")
    page.keyboard.press("j")
    expect(page).to_have_url(re.compile(rf"/features/{first}$"))
    page.goto("/features?q=red&fold=none")
    n = page.get_by_test_id("feature-row").count()
    page.get_by_test_id("feature-row").last.locator("a.label").click()
    expect(page.get_by_test_id("in-list")).to_have_text(f"{n} of {n} in the list, the last one")
    here = page.url
    page.keyboard.press("j")
    page.wait_for_timeout(200)
    assert page.url == here


def test_a_list_whose_next_page_did_not_come_goes_on_later(browser: Browser, base_url: str) -> None:
    with browser.new_context(base_url=base_url) as context:
        page = context.new_page()
        page.goto("/features?sort=id&order=asc&fold=none")
        first = page.get_by_test_id("feature-row").count()
        total = page.request.get("/api/v1/features?limit=1").json()["total"]
        page.route("**/api/v1/features?*cursor=*", lambda route: route.fulfill(status=503, json={"detail": "busy"}))
        page.get_by_test_id("feature-row").last.locator("a.label").click()
        expect(page.get_by_test_id("in-list")).to_have_text(f"{first} of {total} in the list")
        page.unroute("**/api/v1/features?*cursor=*")
        page.reload()
        expect(page.locator(f"a[rel=next][href*='/features/{first}']")).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/features", "/features/0", "/samples", "/map", "/search", "/steer", "/docs"])
def test_every_page_lists_the_keys(context: BrowserContext, path: str) -> None:
    page = context.new_page()
    page.goto(path)
    page.locator("main").focus()
    page.keyboard.press("?")
    dialog = page.get_by_test_id("keys")
    expect(dialog).to_be_visible()
    expect(dialog.locator("dd")).to_have_count(len(KEYS))
    page.keyboard.press("j")  # no key acts on the page behind
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_test_id("keys-button").click()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    assert page.url.split("?")[0].endswith(path)


def test_other_tabs_take_over_the_theme_and_the_system_comes_back(context: BrowserContext) -> None:
    one, other = context.new_page(), context.new_page()
    one.goto("/")
    other.goto("/features")
    own = "document.documentElement.dataset.theme ?? null"
    seen = []
    for _ in range(3):
        one.get_by_test_id("theme-toggle").click()
        other.wait_for_function(f"theme => ({own}) === theme", arg=one.evaluate(own))
        seen.append(one.evaluate(own))
    assert seen == ["dark", "light", None]  # the browser of the tests is light
