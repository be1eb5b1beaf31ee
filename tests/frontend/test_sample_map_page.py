"""The map of samples in Chromium: from the list to the map, to an area, to a list that another browser opens."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from precompute.store import mapfile
from tests.helpers.map_page import (
    ALL_SAMPLES,
    colours_once,
    draw_area,
    drawn,
    go_on,
    lonely,
    number,
    opened,
    painted,
    place,
)


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_from_the_list_to_the_map_to_a_list_that_another_browser_opens(
    context: BrowserContext, browser: Browser, base_url: str, how: str
) -> None:
    page = context.new_page()
    page.goto("/samples?q=red")
    n_red = number(page.get_by_test_id("total").inner_text())
    page.get_by_test_id("as-map").click()
    expect(page).to_have_url(re.compile(r"/map\?of=samples&q=red"))
    drawn(page)
    expect(page.get_by_test_id("found-total")).to_have_text(f"{n_red} samples")
    canvas = page.get_by_test_id("map-canvas")
    if how == "keyboard":
        canvas.focus()
        for key in ("+", "l", "Enter"):
            page.keyboard.press(key)
    else:
        draw_area(page)
    area = page.get_by_test_id("area")
    expect(area).to_be_visible()
    expect(page).to_have_url(re.compile("area="))
    heading = area.locator("h2").inner_text()
    n = number(heading)
    assert 0 < n < n_red
    query = parse_qs(urlsplit(page.url).query)
    inside = page.request.get("/api/v1/samples", params={"area": query["area"][0], "q": "red", "limit": "500"}).json()
    assert inside["total"] == n
    on_map = page.url
    exported = page.request.get(area.get_by_test_id("area-export").get_attribute("href") or "").text()
    assert len(exported.splitlines()) == n
    page.get_by_test_id("area-list").click()
    expect(page.get_by_test_id("total")).to_have_text(f"{n} sample{'s' if n != 1 else ''}")
    expect(page.get_by_test_id("in-area")).to_be_visible()
    ids = page.locator("[data-testid=sample-card]").evaluate_all("all => all.map((one) => one.dataset.sample)")
    assert ids == [one["sample_id"] for one in inside["items"]]

    other = browser.new_context(base_url=base_url)
    shared = other.new_page()
    shared.goto(on_map)
    expect(shared.get_by_test_id("area").locator("h2")).to_have_text(heading)
    expect(shared.get_by_test_id("found-total")).to_have_text(f"{n_red} samples")
    drawn(shared)
    shared.goto(page.url)
    expect(shared.get_by_test_id("total")).to_have_text(f"{n} sample{'s' if n != 1 else ''}")
    other.close()
    page.go_back()
    expect(page.get_by_test_id("area").locator("h2")).to_have_text(heading)


def test_a_list_leads_back_to_the_view_from_which_it_was_opened(context: BrowserContext) -> None:
    page = opened(context, f"{ALL_SAMPLES}&q=red&view=0.3,0.6,4")
    page.get_by_test_id("map-canvas").focus()
    page.keyboard.press("+")  # after the server has written the links
    expect(page).to_have_url(re.compile(r"view=0.3000%2C0.6000%2C6.00"))
    view = parse_qs(urlsplit(page.url).query)["view"]
    page.get_by_test_id("found-list").click()
    expect(page.get_by_test_id("total")).to_be_visible()
    assert "view" not in (page.get_by_test_id("json-link").last.get_attribute("href") or "")
    page.get_by_test_id("as-map").click()
    drawn(page)
    assert parse_qs(urlsplit(page.url).query)["view"] == view
    assert page.get_by_test_id("map-canvas").get_attribute("data-view") == view[0]
    page.go_back()
    page.get_by_test_id("q").fill("blue")  # other filters mark other points, which the map then shows
    expect(page).to_have_url(re.compile("q=blue"))
    assert "view" not in (page.get_by_test_id("as-map").get_attribute("href") or "")


def test_a_point_shows_its_image_is_pinned_and_opens(context: BrowserContext, sample_map: mapfile.SampleMap) -> None:
    page = opened(context, ALL_SAMPLES)
    row = lonely(sample_map)
    sample = page.request.get(f"/api/v1/samples?rows={row}").json()["items"][0]
    x, y = place(page, sample_map, row)
    page.mouse.move(x, y)
    tip = page.get_by_test_id("map-tip")
    expect(tip).to_contain_text(sample["text"][:20])
    expect(tip.locator("img")).to_have_js_property("complete", True)
    assert tip.locator("img").evaluate("(one) => one.naturalWidth") > 0
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-row", str(row))
    assert "row=" not in page.url
    page.mouse.click(x, y)
    expect(page).to_have_url(re.compile(f"of=samples&row={row}&"))
    expect(page.get_by_test_id("chosen-text")).to_have_text(sample["text"])
    page.get_by_test_id("chosen-basket").click()
    expect(page.get_by_test_id("basket")).to_have_text("Basket 1")
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("row="))
    page.mouse.dblclick(*place(page, sample_map, row))  # the click on the button has scrolled the page
    expect(page).to_have_url(re.compile(f"/samples/{sample['sample_id']}$"))
    page.go_back()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-row", str(row))
    page.get_by_test_id("chosen-link").click()
    page.get_by_test_id("on-map").click()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-row", str(row))


def test_keys_fill_the_panel(context: BrowserContext, sample_map: mapfile.SampleMap) -> None:
    page = opened(context, f"/map?of=samples&row={lonely(sample_map)}&view=0.5,0.5,1")
    page.get_by_test_id("map-names").focus()
    while page.evaluate("document.activeElement.id") != "map":
        page.keyboard.press("Tab")
    panel, seen = page.get_by_test_id("chosen"), {lonely(sample_map)}
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        seen.add(go_on(page, key, "data-row"))
    assert len(seen) > 2 and -1 not in seen
    row = int(panel.get_attribute("data-row") or -1)
    sample = page.request.get(f"/api/v1/samples?rows={row}").json()["items"][0]
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/samples/{sample['sample_id']}$"))
    page.go_back()
    expect(page.get_by_test_id("map-canvas")).to_be_focused()


def test_colours_come_when_chosen(context: BrowserContext) -> None:
    page = opened(context, ALL_SAMPLES)
    before = painted(page)
    choice = page.get_by_test_id("map-colour")
    choice.select_option("pooled-cosine")
    expect(page).to_have_url(re.compile("colour=pooled-cosine"))
    expect(page.get_by_test_id("map-ramp")).to_contain_text("pooled-cosine")
    colours_once(page, lambda colours: colours != before)
    flag = choice.locator("option[data-kind=flag]").first.get_attribute("value") or ""
    choice.select_option(flag)
    expect(page.get_by_test_id("map-flag")).to_be_visible()
    expect(page.get_by_test_id("map-ramp")).to_be_hidden()
    expect(page).to_have_url(re.compile(f"colour={flag}"))
    page.reload()
    drawn(page)
    expect(choice).to_have_value(flag)


def test_a_colour_that_does_not_come_leaves_the_map_as_it_is(browser: Browser, base_url: str) -> None:
    offline = browser.new_context(base_url=base_url)
    page = opened(offline, ALL_SAMPLES)
    before = painted(page)
    page.route("**/map/samples/colours*", lambda route: route.abort())
    page.get_by_test_id("map-colour").select_option("l0")
    expect(page.get_by_test_id("map-problem")).to_contain_text("cannot be reached")
    expect(page.get_by_test_id("map-colour")).to_have_value("flags")
    colours_once(page, lambda colours: colours == before)
    offline.close()


def test_without_colours_the_points_are_there(browser: Browser, base_url: str) -> None:
    offline = browser.new_context(base_url=base_url)
    page = offline.new_page()
    page.route("**/map/samples/colours*", lambda route: route.abort())
    page.goto(ALL_SAMPLES)
    drawn(page)
    expect(page.get_by_test_id("map-problem")).to_contain_text("cannot be reached")
    assert len(painted(page)) > 1
    offline.close()


def test_filters_mark_points_and_narrow_the_area(context: BrowserContext) -> None:
    page = opened(context, ALL_SAMPLES)
    before = painted(page)
    page.get_by_test_id("map-q").fill("red")
    expect(page.get_by_test_id("found-total")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/map\?of=samples&q=red&view="))
    colours_once(page, lambda colours: colours != before)
    page.get_by_test_id("map-home").click()
    page.get_by_test_id("map-canvas").focus()
    for key in ("l", "Enter"):
        page.keyboard.press(key)
    heading = page.get_by_test_id("area").locator("h2")
    expect(heading).to_contain_text("in this area")
    n_red = number(heading.inner_text())
    flag = page.locator(".map-search input[name=flags]").first
    flag.check()
    expect(page).to_have_url(re.compile("flags="))
    expect(heading).not_to_have_text(re.compile(f"^{n_red} "))
    page.get_by_test_id("map-q").fill("nosuchword")
    expect(page.get_by_test_id("found")).to_contain_text("No sample matches")


def test_the_switch_leads_from_one_map_to_the_other(context: BrowserContext) -> None:
    page = opened(context, "/map")
    page.get_by_test_id("map-of-samples").click()
    expect(page).to_have_url(re.compile(r"/map\?of=samples$"))
    drawn(page)
    expect(page.get_by_test_id("map-of-samples")).to_have_attribute("aria-current", "page")
    page.get_by_test_id("map-of-features").click()
    expect(page).to_have_url(re.compile(r"/map$"))
    drawn(page)
    expect(page.get_by_test_id("colour-verdict")).to_be_visible()


def test_by_touch_on_a_small_window(browser: Browser, base_url: str, sample_map: mapfile.SampleMap) -> None:
    phone = browser.new_context(
        base_url=base_url, viewport={"width": 390, "height": 844}, has_touch=True, device_scale_factor=2
    )
    page = opened(phone, ALL_SAMPLES)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    row = lonely(sample_map)
    page.get_by_test_id("map-canvas").scroll_into_view_if_needed()
    page.touchscreen.tap(*place(page, sample_map, row))
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-row", str(row))
    page.get_by_test_id("map-canvas").scroll_into_view_if_needed()
    page.touchscreen.tap(*place(page, sample_map, row))
    expect(page).to_have_url(re.compile("/samples/"))
    phone.close()
