"""The map's page: whole without JavaScript, and with it points one can move, colour, hide, find and open."""

import re
from itertools import combinations
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import BrowserContext, Page, expect

from precompute.store import mapfile
from precompute.store.schema import VERDICTS
from tests.helpers.colours import COLOUR_BLIND, contrast, linear, oklab, palette
from tests.helpers.map_page import colours_once, drawn, go_on, lonely, opened, painted, place
from tests.helpers.synthetic import word_feature

RED = word_feature("red")


@pytest.fixture
def columns(pages_app: FastAPI) -> mapfile.FeatureMap:
    return mapfile.read_map(pages_app.state.saevx.default.path / mapfile.NAME)


def test_every_kind_is_listed_in_words(client: TestClient) -> None:
    page = client.get("/map").text
    counts = client.get("/api/v1/store").json()["verdicts"]
    for name, n in counts.items():
        assert (f'id="mk-{name}"' in page) == (n > 0 and name != "dead")
        assert (f'data-testid="map-{name}"' in page) == (n > 0 and name != "dead")
    best = client.get("/api/v1/features?verdict=cross-modal&sort=pair_lift_low&order=desc&limit=1").json()["items"][0]
    assert f'href="/features/{best["id"]}"' in page


def test_what_is_found_and_chosen_stands_in_the_page(client: TestClient) -> None:
    page = client.get(f"/map?q=red&feature={RED}").text
    ids = re.search(r'data-ids="([\d,]+)"', page)
    expected = client.get("/api/v1/features?q=red&limit=500").json()["items"]
    assert ids and sorted(map(int, ids[1].split(","))) == [one["id"] for one in expected]
    neighbours = client.get(f"/api/v1/features/{RED}").json()["neighbours"]["decoder"]
    report = ",".join(str(one["id"]) for one in neighbours)
    assert f'data-feature="{RED}" data-neighbours="{report}"' in page
    assert "no feature 99999" in client.get("/map?feature=99999").text


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_points_are_seen(theme: int) -> None:
    colours = palette(theme)
    names = [name for name in colours if name.startswith(("map-", "ramp-"))]
    assert len(names) == 17
    low = {name for name in names if contrast(colours[name], colours["surface"]) < 3}
    assert not low  # WCAG 2.2, 1.4.11


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_verdicts_have_colours_that_everybody_tells_apart(theme: int) -> None:
    colours = palette(theme)
    points = [linear(colours[f"map-{kind}"]) for kind in VERDICTS if kind != "dead"]
    for sight in (np.eye(3), *map(np.array, COLOUR_BLIND.values())):
        labs = [oklab((sight @ one).clip(0, 1)) for one in points]
        assert min(float(np.linalg.norm(a - b)) for a, b in combinations(labs, 2)) > 0.09  # .02 is just seen


def test_points_are_drawn_in_their_colours(context: BrowserContext, columns: mapfile.FeatureMap) -> None:
    page = opened(context)
    shown = int(page.get_by_test_id("map-canvas").get_attribute("data-drawn") or 0)
    assert shown == int((columns.x != mapfile.NOWHERE).sum())
    kinds = {VERDICTS[v] for v in columns.verdict} - {"dead"}
    for theme in (0, 1):
        page.evaluate(f"document.documentElement.dataset.theme = '{['light', 'dark'][theme]}'")
        colours = palette(theme)
        assert {colours[f"map-{kind}"] for kind in kinds} | {colours["surface"]} <= painted(page)
    page.get_by_test_id("map-cross-modal").click()
    assert colours["map-cross-modal"] not in painted(page)
    expect(page).to_have_url(re.compile(r"/map\?hide=cross-modal$"))
    page.get_by_test_id("colour-omega").click()
    expect(page.get_by_test_id("map-ramp")).to_be_visible()
    expect(page).to_have_url(re.compile("colour=omega&hide=cross-modal"))
    page.reload()
    expect(page.get_by_test_id("map-cross-modal")).to_have_attribute("aria-pressed", "false")
    expect(page.get_by_test_id("colour-omega")).to_have_attribute("aria-current", "true")


def test_a_click_pins_and_a_double_click_opens(context: BrowserContext, columns: mapfile.FeatureMap) -> None:
    page = opened(context)
    feature = lonely(columns)
    x, y = place(page, columns, feature)
    page.mouse.move(x, y)
    expect(page.get_by_test_id("map-tip")).to_contain_text(f"#{feature}")
    expect(page.get_by_test_id("map-tip")).not_to_contain_text("…")
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-feature", str(feature))  # a look, not yet pinned
    assert "feature=" not in page.url
    page.mouse.click(x, y)
    expect(page).to_have_url(re.compile(f"feature={feature}&"))
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("feature="))
    expect(page.get_by_test_id("chosen")).to_contain_text("No feature is pinned")
    page.go_back()
    expect(page).to_have_url(re.compile(f"feature={feature}&"))
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-feature", str(feature))
    expect(page.get_by_test_id("chosen-thumbs")).to_have_attribute("href", f"/features/{feature}")
    page.mouse.dblclick(x, y)
    expect(page).to_have_url(re.compile(rf"/features/{feature}$"))
    page.go_back()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-feature", str(feature))


def test_the_wheel_scrolls_until_the_map_is_clicked(context: BrowserContext) -> None:
    page = opened(context)
    page.set_viewport_size({"width": 1440, "height": 500})
    box = page.get_by_test_id("map-canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + 200, box["y"] + 100)
    page.mouse.wheel(0, 400)
    expect(page.get_by_test_id("map-canvas")).not_to_be_in_viewport(ratio=1)
    assert "view=" not in page.url
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    page.mouse.down()
    page.mouse.up()
    page.mouse.wheel(0, -400)
    expect(page).to_have_url(re.compile("view="))
    assert page.evaluate("scrollY") == 0
    zoomed = page.url
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 60, steps=5)
    page.mouse.up()
    expect(page).not_to_have_url(zoomed)
    page.get_by_test_id("map-home").click()
    expect(page).not_to_have_url(re.compile("view="))


def test_keys_go_from_feature_to_feature(context: BrowserContext, columns: mapfile.FeatureMap) -> None:
    page = opened(context, f"/map?feature={lonely(columns)}&view=0.5,0.5,1")
    panel = page.get_by_test_id("chosen")
    page.get_by_test_id("map-names").focus()
    while page.evaluate("document.activeElement.id") != "map":
        page.keyboard.press("Tab")
    expect(page.get_by_test_id("map-tip")).to_contain_text(f"#{lonely(columns)}")
    page.keyboard.press("0")
    seen = {lonely(columns)}
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"):
        before = int(panel.get_attribute("data-feature") or -1)
        sign = -1 if key in ("ArrowLeft", "ArrowUp") else 1
        axis = columns.y if key in ("ArrowUp", "ArrowDown") else columns.x
        after = go_on(page, key, "data-feature")
        if after != before:
            assert sign * (int(axis[after]) - int(axis[before])) > 0
        seen.add(after)
    assert len(seen) > 2
    for key in ("+", "+", "Shift+ArrowRight"):
        page.keyboard.press(key)
    expect(page).to_have_url(re.compile(r"view=0\.\d+%2C0\.\d+%2C2\.25"))
    feature = panel.get_attribute("data-feature")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"/features/{feature}$"))
    page.go_back()
    expect(page.get_by_test_id("map-canvas")).to_be_focused()


def drawn_around(page: Page, columns: mapfile.FeatureMap, feature: int) -> None:
    """Draw a square of 60 pixels around a feature."""
    x, y = place(page, columns, feature)
    page.mouse.move(x - 30, y - 30)
    page.mouse.down()
    for dx, dy in ((30, -30), (30, 30), (-30, 30)):
        page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()


def test_a_lasso_makes_a_list_that_can_be_shared(
    context: BrowserContext, browser: object, base_url: str, columns: mapfile.FeatureMap
) -> None:
    page = opened(context)
    feature = lonely(columns)
    page.keyboard.press("l")
    expect(page.get_by_test_id("map-lasso")).to_have_attribute("aria-pressed", "true")
    page.mouse.move(*place(page, columns, feature))  # on the way to where the stroke begins
    expect(page.get_by_test_id("map-tip")).to_be_hidden()
    drawn_around(page, columns, feature)
    area = page.get_by_test_id("area")
    expect(area).to_be_visible()
    expect(area.locator(f'[data-feature="{feature}"]').first).to_be_visible()
    expect(page.get_by_test_id("map-lasso")).to_have_attribute("aria-pressed", "false")
    expect(page).to_have_url(re.compile("area="))
    heading = area.locator("h2").inner_text()
    fresh = browser.new_context(base_url=base_url)  # type: ignore[attr-defined]
    shared = fresh.new_page()
    shared.goto(page.url)
    expect(shared.get_by_test_id("area").locator("h2")).to_have_text(heading)
    fresh.close()
    page.get_by_test_id("area-list").click()
    n, noun, *_ = heading.split()
    assert f"{n} of {n} {noun}" in page.locator(".pager").inner_text()
    page.go_back()
    expect(page.get_by_test_id("area")).to_be_visible()
    page.get_by_test_id("area-clear").click()
    expect(page.get_by_test_id("area")).to_be_hidden()
    expect(page).not_to_have_url(re.compile("area="))
    page.go_back()
    expect(page.get_by_test_id("area").locator("h2")).to_have_text(heading)


def test_a_list_leads_back_to_the_map_as_it_was(context: BrowserContext) -> None:
    page = opened(context, "/map?layout=profile&colour=omega&hide=rare&view=0.3,0.6,4")
    page.get_by_test_id("map-canvas").focus()
    page.keyboard.press("+")  # after the server has written the links
    expect(page).to_have_url(re.compile(r"view=0.3000%2C0.6000%2C6.00"))
    for list_link in ("list-image-only", "area-list"):
        if list_link == "area-list":
            page.get_by_test_id("map-canvas").focus()
            for key in ("l", "Enter"):
                page.keyboard.press(key)
            expect(page).to_have_url(re.compile("area="))
        state = parse_qs(urlsplit(page.url).query)
        assert state.keys() >= {"layout", "colour", "hide", "view"} or list_link == "area-list"
        page.get_by_test_id(list_link).click()
        expect(page.get_by_test_id("feature-table")).to_be_visible()
        api = [link.get_attribute("href") or "" for link in page.get_by_test_id("json-link").all()]
        assert not any(name in link for link in api for name in ("view=", "colour=", "hide="))
        page.get_by_test_id("on-map").click()
        drawn(page)
        assert parse_qs(urlsplit(page.url).query) == state


def test_back_leads_to_what_was_seen_last(context: BrowserContext) -> None:
    """Also where one leaves the map before its address has followed."""
    page = opened(context)
    page.evaluate(
        """() => {
          document.getElementById("map").dispatchEvent(new KeyboardEvent("keydown", { key: "+" }));
          document.querySelector("[data-testid=list-image-only]").click();
        }"""
    )
    expect(page.get_by_test_id("feature-table")).to_be_visible()
    page.go_back()
    drawn(page)
    expect(page).to_have_url(re.compile(r"view=0.5000%2C0.5000%2C1.50"))


def test_an_area_without_a_pointer(context: BrowserContext, columns: mapfile.FeatureMap) -> None:
    page = opened(context)
    page.get_by_test_id("map-canvas").focus()
    page.keyboard.press("l")
    page.keyboard.press("Enter")
    alive = int((columns.x != mapfile.NOWHERE).sum())
    expect(page.get_by_test_id("area").locator("h2")).to_have_text(f"{alive} features in this area")


@pytest.mark.parametrize("colour", ["family", "agreement", "label_score", "place", "sample"])
def test_other_colours_come_when_chosen(context: BrowserContext, sample_id: str, colour: str) -> None:
    page = opened(context, f"/map?sample={sample_id}")
    before = painted(page)
    with page.expect_response(re.compile(f"/map/colours.*by={colour}")) as reply:
        page.get_by_test_id(f"colour-{colour}").click()
    expect(page).to_have_url(re.compile(f"colour={colour}"))
    if any(reply.value.body()):
        colours_once(page, lambda colours: colours != before)
    page.reload()
    expect(page.get_by_test_id(f"colour-{colour}")).to_have_attribute("aria-current", "true")


def test_a_colour_that_does_not_come_leaves_the_map_as_it_is(browser: object, base_url: str) -> None:
    offline = browser.new_context(base_url=base_url)  # type: ignore[attr-defined]
    page = opened(offline)
    before = painted(page)
    page.route("**/map/colours*", lambda route: route.abort())
    page.get_by_test_id("colour-agreement").click()
    expect(page.get_by_test_id("map-problem")).to_contain_text("cannot be reached")
    expect(page.get_by_test_id("colour-verdict")).to_have_attribute("aria-current", "true")
    colours_once(page, lambda colours: colours == before)
    offline.close()


def test_words_mark_features(context: BrowserContext, columns: mapfile.FeatureMap) -> None:
    page = opened(context)
    before = painted(page)
    page.mouse.move(*place(page, columns, lonely(columns)))
    expect(page.get_by_test_id("map-tip")).to_be_visible()
    page.get_by_test_id("map-q").fill("red")
    expect(page.get_by_test_id("found").locator(f'[data-feature="{RED}"]').first).to_be_visible()
    expect(page).to_have_url(re.compile(r"/map\?q=red&view="))  # the view moves to what was found
    expect(page.get_by_test_id("map-tip")).to_be_hidden()
    colours_once(page, lambda colours: colours != before)
    page.get_by_test_id("map-q").fill("nosuchword")
    expect(page.get_by_test_id("found")).to_contain_text("No feature")


def test_a_finger_pins_opens_and_scrolls(browser: object, base_url: str, columns: mapfile.FeatureMap) -> None:
    touch = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "device_scale_factor": 2}
    phone = browser.new_context(base_url=base_url, **touch)  # type: ignore[attr-defined]
    page = opened(phone)
    feature = lonely(columns)
    canvas = page.get_by_test_id("map-canvas")
    box = canvas.bounding_box()
    assert box and box["height"] <= 0.7 * 844 + 1
    assert canvas.evaluate("(one) => getComputedStyle(one).touchAction") == "pan-y"
    canvas.scroll_into_view_if_needed()
    x, y = place(page, columns, feature)
    page.touchscreen.tap(x, y)
    expect(page.get_by_test_id("map-tip")).to_contain_text(f"#{feature}")
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-feature", str(feature))
    assert "/map" in page.url
    page.touchscreen.tap(x, y)
    expect(page).to_have_url(re.compile(rf"/features/{feature}$"))
    phone.close()


def test_a_map_that_does_not_come_can_be_tried_again(browser: object, base_url: str) -> None:
    offline = browser.new_context(base_url=base_url)  # type: ignore[attr-defined]
    page = offline.new_page()
    page.route("**/api/v1/map*", lambda route: route.abort())
    page.goto("/map")
    expect(page.get_by_test_id("map-state")).to_contain_text("cannot be reached")
    page.unroute("**/api/v1/map*")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))
    expect(page.get_by_test_id("map-state")).to_be_hidden()
    offline.close()
