"""The two layouts of the map in Chromium: the switch, what it keeps, and areas that are of one layout."""

from __future__ import annotations

import re

from playwright.sync_api import BrowserContext, Page, expect


def drawn(page: Page) -> None:
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))


def test_the_switch_keeps_what_holds_on_both(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/map?view=0.4,0.4,3")
    drawn(page)
    page.get_by_test_id("colour-omega").click()
    page.get_by_test_id("map-rare").click()
    page.get_by_test_id("layout-profile").click()
    expect(page).to_have_url(re.compile(r"layout=profile&colour=omega&hide=rare$"))
    drawn(page)
    expect(page.get_by_test_id("layout-profile")).to_have_attribute("aria-current", "true")
    expect(page.get_by_text("are alike")).to_be_visible()

    page.get_by_test_id("map-canvas").focus()
    page.keyboard.press("l")
    page.keyboard.press("Enter")  # all that is in view
    expect(page).to_have_url(re.compile("area=profile_"))
    total = page.get_by_test_id("area").get_by_role("heading").inner_text()
    page.reload()
    drawn(page)
    expect(page.get_by_test_id("area").get_by_role("heading")).to_have_text(total)
    page.get_by_test_id("layout-decoder").click()
    expect(page).to_have_url(re.compile(r"/map\?colour=omega&hide=rare$"))
    expect(page.get_by_test_id("area")).to_be_hidden()
    page.go_back()
    expect(page.get_by_test_id("layout-profile")).to_have_attribute("aria-current", "true")
    expect(page.get_by_test_id("area").get_by_role("heading")).to_have_text(total)
