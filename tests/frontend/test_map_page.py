"""The map's page: whole without JavaScript, and with it points one can move, colour, hide, find and open."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import BrowserContext, Page, expect

from backend.app import create_app
from backend.settings import Settings
from precompute.store import mapfile
from precompute.store.schema import VERDICTS
from tests.helpers.colours import contrast, palette
from tests.helpers.synthetic import word_feature

RED = word_feature("red")


@pytest.fixture
def columns(pages_app: FastAPI) -> mapfile.FeatureMap:
    return mapfile.read_map(pages_app.state.saevx.default.path / mapfile.NAME)


def opened(context: BrowserContext, address: str = "/map") -> Page:
    page = context.new_page()
    page.goto(address)
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))
    return page


def painted(page: Page) -> set[str]:
    """Colours of the pixels on the canvas, but for its ground and blends."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    result: list[list[int]] = page.evaluate(
        """() => {
          const canvas = document.getElementById("map");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const counts = new Map();
          for (let i = 0; i < data.length; i += 4) {
            const colour = (data[i] << 16) | (data[i + 1] << 8) | data[i + 2];
            counts.set(colour, (counts.get(colour) ?? 0) + 1);
          }
          return [...counts];
        }"""
    )
    return {f"#{colour:06x}" for colour, _ in result}


def place(page: Page, columns: mapfile.FeatureMap, feature: int) -> tuple[float, float]:
    """Where a feature lies in the window, with the whole map in view: map/points.js has the same rule."""
    box = page.get_by_test_id("map-canvas").bounding_box()
    assert box
    scale = 0.94 * min(box["width"], box["height"]) / mapfile.LAST
    x, y = (float(axis[feature]) - 0.5 * mapfile.LAST for axis in (columns.x, columns.y))
    return box["x"] + box["width"] / 2 + x * scale, box["y"] + box["height"] / 2 + y * scale


def lonely(columns: mapfile.FeatureMap) -> int:
    """The feature with a place that is farthest from all others: no other one is under the pointer."""
    alive = [i for i in range(len(columns.x)) if columns.x[i] != mapfile.NOWHERE]

    def apart(i: int) -> float:
        x, y = float(columns.x[i]), float(columns.y[i])
        return min((columns.x[j] - x) ** 2 + (columns.y[j] - y) ** 2 for j in alive if j != i)

    return max(alive, key=apart)


def test_every_kind_is_listed_in_words(client: TestClient) -> None:
    page = client.get("/map").text
    counts = client.get("/api/v1/store").json()["verdicts"]
    for name, n in counts.items():
        assert (f'id="mk-{name}"' in page) == (n > 0 and name != "dead")
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


def test_a_store_without_a_map_says_so(pages_app: FastAPI, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(pages_app.state.saevx.default.path, old)
    (old / mapfile.NAME).unlink()
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["files"][mapfile.NAME], manifest["sizes"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    with TestClient(create_app(Settings(stores=[old], live=False)), headers={"Accept": "text/html"}) as client:
        page = client.get("/map").text
    assert 'data-testid="map-absent"' in page and "map/index.js" not in page and 'data-testid="map-strongest"' in page


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_points_are_seen(theme: int) -> None:
    colours = palette(theme)
    names = [name for name in colours if name.startswith(("map-", "ramp-"))]
    assert len(names) == 15
    low = {name for name in names if contrast(colours[name], colours["surface"]) < 3}
    assert not low  # WCAG 2.2, 1.4.11


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


def test_the_pointer_shows_and_opens_a_feature(context: BrowserContext, columns: mapfile.FeatureMap) -> None:
    page = opened(context)
    feature = lonely(columns)
    x, y = place(page, columns, feature)
    page.mouse.move(x, y)
    expect(page.get_by_test_id("map-tip")).to_contain_text(f"#{feature}")
    expect(page.get_by_test_id("map-tip")).not_to_contain_text("…")
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-feature", str(feature))
    expect(page).to_have_url(re.compile(f"feature={feature}$"))
    page.mouse.click(x, y)
    expect(page).to_have_url(re.compile(rf"/features/{feature}$"))
    page.go_back()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-feature", str(feature))


def test_dragging_and_the_wheel_move_the_view(context: BrowserContext) -> None:
    page = opened(context)
    box = page.get_by_test_id("map-canvas").bounding_box()
    assert box
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -400)
    expect(page).to_have_url(re.compile("view="))
    zoomed = page.url
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 260, steps=5)
    page.mouse.up()
    expect(page).not_to_have_url(zoomed)
    assert "/map?" in page.url
    page.get_by_test_id("map-home").click()
    expect(page).not_to_have_url(re.compile("view="))


def test_keys_move_zoom_and_open(context: BrowserContext, columns: mapfile.FeatureMap) -> None:
    page = opened(context)
    page.get_by_test_id("map-names").focus()
    for _ in range(20):
        if page.evaluate("document.activeElement.id") == "map":
            break
        page.keyboard.press("Tab")
    expect(page.get_by_test_id("map-canvas")).to_be_focused()
    for key in ("+", "+", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    expect(page).to_have_url(re.compile(r"view=0\.5\d+%2C0\.5\d+%2C2\.25"))
    page.keyboard.press("0")
    expect(page).not_to_have_url(re.compile("view="))
    feature = lonely(columns)
    page.goto(f"/map?view={columns.x[feature] / mapfile.LAST:.4f},{columns.y[feature] / mapfile.LAST:.4f},40")
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))
    page.get_by_test_id("map-link").focus()
    for _ in range(3):
        page.keyboard.press("Tab")
    page.get_by_test_id("map-canvas").press("+")
    expect(page.get_by_test_id("map-tip")).to_contain_text(f"#{feature}")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"/features/{feature}$"))


def test_words_mark_features(context: BrowserContext) -> None:
    page = opened(context)
    before = painted(page)
    page.get_by_test_id("map-q").fill("red")
    expect(page.get_by_test_id("found").locator(f'[data-feature="{RED}"]').first).to_be_visible()
    expect(page).to_have_url(re.compile(r"/map\?q=red$"))
    assert painted(page) != before
    page.get_by_test_id("map-q").fill("nosuchword")
    expect(page.get_by_test_id("found")).to_contain_text("No feature")


def test_a_finger_asks_before_it_opens(browser: object, base_url: str, columns: mapfile.FeatureMap) -> None:
    phone = browser.new_context(  # type: ignore[attr-defined]
        base_url=base_url, viewport={"width": 390, "height": 844}, has_touch=True, device_scale_factor=2
    )
    page = opened(phone)
    feature = lonely(columns)
    page.get_by_test_id("map-canvas").scroll_into_view_if_needed()
    x, y = place(page, columns, feature)
    page.touchscreen.tap(x, y)
    expect(page.get_by_test_id("map-tip")).to_contain_text(f"#{feature}")
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
