"""The map of samples in Chromium: from the list to the map, to an area, to a list that another browser opens."""

from __future__ import annotations

import re
from itertools import combinations
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, expect

from precompute.store import mapfile
from tests.helpers.colours import COLOUR_BLIND, linear, oklab, palette
from tests.helpers.map_page import draw_area, drawn, lonely, opened, painted, place
from tests.helpers.touch import PHONE, stroke

ALL = "/map?of=samples"


@pytest.fixture
def stored(pages_app: FastAPI) -> mapfile.SampleMap:
    return mapfile.read_sample_map(pages_app.state.saevx.default.path / mapfile.SAMPLES_NAME)


def number(text: str) -> int:
    return int(re.sub(r"\D", "", text.split()[0]))


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


def test_a_point_shows_its_image_is_pinned_and_opens(
    context: BrowserContext, stored: mapfile.SampleMap
) -> None:
    page = opened(context, ALL)
    row = lonely(stored)
    sample = page.request.get(f"/api/v1/samples?rows={row}").json()["items"][0]
    x, y = place(page, stored, row)
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
    page.mouse.dblclick(*place(page, stored, row))  # the click on the button has scrolled the page
    expect(page).to_have_url(re.compile(f"/samples/{sample['sample_id']}$"))
    page.go_back()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-row", str(row))
    page.get_by_test_id("chosen-link").click()
    page.get_by_test_id("on-map").click()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-row", str(row))


def test_keys_fill_the_panel(context: BrowserContext, stored: mapfile.SampleMap) -> None:
    page = opened(context, f"/map?of=samples&row={lonely(stored)}&view=0.5,0.5,1")
    page.get_by_test_id("map-names").focus()
    while page.evaluate("document.activeElement.id") != "map":
        page.keyboard.press("Tab")
    panel, seen = page.get_by_test_id("chosen"), {lonely(stored)}
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
        page.wait_for_timeout(600)
        seen.add(int(panel.get_attribute("data-row") or -1))
    assert len(seen) > 2 and -1 not in seen
    row = int(panel.get_attribute("data-row") or -1)
    sample = page.request.get(f"/api/v1/samples?rows={row}").json()["items"][0]
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/samples/{sample['sample_id']}$"))
    page.go_back()
    expect(page.get_by_test_id("map-canvas")).to_be_focused()


def test_colours_come_when_chosen(context: BrowserContext) -> None:
    page = opened(context, ALL)
    before = painted(page)
    choice = page.get_by_test_id("map-colour")
    choice.select_option("pooled-cosine")
    expect(page).to_have_url(re.compile("colour=pooled-cosine"))
    expect(page.get_by_test_id("map-ramp")).to_contain_text("pooled-cosine")
    assert painted(page) != before
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
    page = opened(offline, ALL)
    before = painted(page)
    page.route("**/map/samples/colours*", lambda route: route.abort())
    page.get_by_test_id("map-colour").select_option("l0")
    expect(page.get_by_test_id("map-problem")).to_contain_text("cannot be reached")
    expect(page.get_by_test_id("map-colour")).to_have_value("flags")
    assert painted(page) == before
    offline.close()


def test_without_colours_the_points_are_there(browser: Browser, base_url: str) -> None:
    offline = browser.new_context(base_url=base_url)
    page = offline.new_page()
    page.route("**/map/samples/colours*", lambda route: route.abort())
    page.goto(ALL)
    drawn(page)
    expect(page.get_by_test_id("map-problem")).to_contain_text("cannot be reached")
    assert len(painted(page)) > 1
    offline.close()


def test_filters_mark_points_and_narrow_the_area(context: BrowserContext) -> None:
    page = opened(context, ALL)
    before = painted(page)
    page.get_by_test_id("map-q").fill("red")
    expect(page.get_by_test_id("found-total")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/map\?of=samples&q=red&view="))
    page.wait_for_timeout(300)
    assert painted(page) != before
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


def test_by_touch_on_a_small_window(browser: Browser, base_url: str, stored: mapfile.SampleMap) -> None:
    phone = browser.new_context(
        base_url=base_url, viewport={"width": 390, "height": 844}, has_touch=True, device_scale_factor=2
    )
    page = opened(phone, ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    row = lonely(stored)
    page.get_by_test_id("map-canvas").scroll_into_view_if_needed()
    page.touchscreen.tap(*place(page, stored, row))
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-row", str(row))
    page.get_by_test_id("map-canvas").scroll_into_view_if_needed()
    page.touchscreen.tap(*place(page, stored, row))
    expect(page).to_have_url(re.compile("/samples/"))
    phone.close()


@pytest.mark.parametrize("match", ["any", "all"])
def test_from_the_list_the_map_says_whether_any_or_all_flags_are_needed(context: BrowserContext, match: str) -> None:
    page = context.new_page()
    page.goto("/samples?flags=mismatch&flags=blank" + ("&match=any" if match == "any" else ""))
    total = number(page.get_by_test_id("total").inner_text()) if page.get_by_test_id("as-map").count() else 0
    page.goto(page.url.replace("/samples?", "/map?of=samples&"))
    drawn(page)
    expect(page.get_by_test_id(f"match-{match}")).to_be_checked()
    if total:
        expect(page.get_by_test_id("found-total")).to_have_text(re.compile(f"^{total:,} "))
    page.get_by_test_id("match-any" if match == "all" else "match-all").check()
    expect(page).to_have_url(re.compile("match=any") if match == "all" else re.compile("^((?!&match=).)*$"))
    page.locator(".map-search input[name=flags]:checked").first.uncheck()
    expect(page).to_have_url(re.compile("^((?!flags=.*flags=).)*$"))
    expect(page.get_by_test_id("match-any" if match == "all" else "match-all")).to_be_checked()


def test_a_score_as_colour_is_explained_shown_and_orders_the_list(
    context: BrowserContext, stored: mapfile.SampleMap
) -> None:
    row = lonely(stored)
    page = opened(context, f"/map?of=samples&q=red&row={row}&view=0.5,0.5,1")
    sample = page.request.get(f"/api/v1/samples?rows={row}").json()["items"][0]
    about = page.get_by_test_id("map-about")
    expect(about).to_contain_text("How many flags")
    expect(page.get_by_test_id("chosen-score")).to_have_count(0)
    page.get_by_test_id("map-colour").select_option("pooled-cosine")
    expect(about).to_contain_text("Cosine of the image's and the text's feature vectors")
    expect(about).to_contain_text("Low values are worse")
    shown = f"pooled-cosine {sample['scores']['pooled-cosine']:.3g}".replace("-0", "−0")
    expect(page.get_by_test_id("chosen-score")).to_have_text(shown)
    page.mouse.move(*place(page, stored, row))
    expect(page.get_by_test_id("map-tip")).to_contain_text(shown)
    page.get_by_test_id("found-list").click()
    expect(page).to_have_url(re.compile("sort=pooled-cosine&order=asc"))
    ids = page.locator("[data-testid=sample-card]").evaluate_all("all => all.map((one) => one.dataset.sample)")
    worst = page.request.get("/api/v1/samples?q=red&sort=pooled-cosine&order=asc&limit=60").json()["items"]
    assert ids == [one["sample_id"] for one in worst]
    page.get_by_test_id("as-map").click()
    drawn(page)
    expect(page.get_by_test_id("map-colour")).to_have_value("pooled-cosine")
    flag = page.locator("#map-colour option[data-kind=flag]").first.get_attribute("value") or ""
    page.get_by_test_id("map-colour").select_option(flag)
    expect(about).to_contain_text("High values are worse")
    assert f"sort={flag}&order=desc" in (page.get_by_test_id("found-list").get_attribute("href") or "")


@pytest.mark.parametrize("address", ["/map", ALL])
def test_the_lasso_says_what_to_do_and_hides_the_tooltip(context: BrowserContext, address: str) -> None:
    page = opened(context, address)
    hint, tip = page.get_by_test_id("map-hint"), page.get_by_test_id("map-tip")
    expect(hint).to_be_hidden()
    page.get_by_test_id("map-canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(tip).to_be_visible()
    page.keyboard.press("l")
    expect(hint).to_have_text("Draw around the points; Enter takes all in view; Esc ends it")
    expect(hint).to_be_visible()
    expect(tip).to_be_hidden()
    page.keyboard.press("Escape")
    expect(hint).to_be_hidden()


def test_on_a_phone_the_list_of_an_area_comes_into_view(
    browser: Browser, base_url: str, stored: mapfile.SampleMap
) -> None:
    phone = browser.new_context(base_url=base_url, **PHONE)
    page = opened(phone, ALL)
    page.get_by_test_id("map-canvas").scroll_into_view_if_needed()
    page.touchscreen.tap(*place(page, stored, lonely(stored)))
    expect(page.get_by_test_id("map-tip")).to_be_visible()
    page.get_by_test_id("map-lasso").tap()
    expect(page.get_by_test_id("map-tip")).to_be_hidden()
    expect(page.get_by_test_id("map-hint")).to_have_text(re.compile("^Draw around the points"))
    box = page.get_by_test_id("map-canvas").bounding_box()
    assert box
    x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["height"] / 3
    stroke(page, [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)])
    heading = page.get_by_test_id("area").locator("h2")
    expect(heading).to_contain_text("in this area")
    expect(heading).to_be_in_viewport()
    phone.close()


def test_the_legend_of_flags_has_no_less_than_one(context: BrowserContext) -> None:
    page = opened(context, ALL)
    expect(page.get_by_test_id("map-ramp").locator("[data-low]")).to_have_text("flags: 1")
    flag = page.locator("#map-colour option[data-kind=flag]").first.get_attribute("value") or ""
    page.get_by_test_id("map-colour").select_option(flag)
    expect(page.get_by_test_id("map-flag")).to_have_text("has the flag without the flag not judged")


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_colours_of_a_flag_are_told_apart_by_everybody(theme: int) -> None:
    colours = palette(theme)
    points = [linear(colours[f"map-{kind}"]) for kind in ("flagged", "none", "unjudged")]
    for sight in (np.eye(3), *map(np.array, COLOUR_BLIND.values())):
        labs = [oklab((sight @ one).clip(0, 1)) for one in points]
        assert min(float(np.linalg.norm(a - b)) for a, b in combinations(labs, 2)) > 0.15  # .02 is just seen


def test_other_filters_have_their_values_and_a_side_only_with_a_feature(client: TestClient) -> None:
    page = client.get("/map?of=samples&feature=2&side=text-only&tag=to-look&by=cosine&min_score=-0.5&max_length=9").text
    assert (
        "Also filtered by tag to-look, feature 2 in the caption but not on the image, cosine from −0.5, "
        "captions to 9 tokens:" in page
    )
    assert "Also filtered" not in client.get("/map?of=samples&q=red&side=text").text
    link = client.get("/samples?q=red&side=text").text.split('data-testid="as-map"')[0].rpartition("<a")[2]
    assert "q=red" in link and "side=" not in link


def test_apply_names_a_side_only_with_a_feature(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/samples")
    page.get_by_test_id("side").select_option("text")
    page.get_by_test_id("q").fill("red")
    expect(page).to_have_url(re.compile(r"/samples\?q=red"))
    assert "side" not in page.url
    page.get_by_test_id("feature").fill("2")
    page.get_by_test_id("feature").press("Enter")
    expect(page).to_have_url(re.compile("feature=2&side=text"))


def test_an_unknown_colour_is_answered_with_those_of_the_select(client: TestClient) -> None:
    options = re.findall(r'<option value="([^"]+)" title', client.get(ALL).text)
    answer = client.get(f"{ALL}&colour=zzz")
    assert answer.status_code == 422
    named = re.search(r"colour: choose ([^<]+)\.", answer.text)
    assert named and re.split(", | or ", named[1]) == options
    for one in client.get("/api/v1/flags").json()["items"]:  # a list sorted by a flag that no sample has leads here
        assert f'value="{one["name"]}"' in client.get(f"{ALL}&colour={one['name']}").text
