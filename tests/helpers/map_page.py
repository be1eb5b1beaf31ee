"""What tests of the maps of features and of samples share: the page once its points are drawn, and where these are."""

import re
import time
from collections.abc import Callable
from contextlib import suppress

from playwright.sync_api import BrowserContext, Page, expect

from precompute.store import mapfile

ALL_SAMPLES = "/map?of=samples"
Columns = mapfile.FeatureMap | mapfile.SampleMap


def number(text: str) -> int:
    """The first word of a text such as "1,500 samples"."""
    return int(re.sub(r"\D", "", text.split()[0]))


def opened(context: BrowserContext, address: str = "/map") -> Page:
    page = context.new_page()
    page.goto(address)
    drawn(page)
    return page


def drawn(page: Page) -> None:
    """Waits until the points are on the screen."""
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))


def draw_area(page: Page) -> None:
    """Draws around the middle of the map with the mouse."""
    box = page.get_by_test_id("map-canvas").bounding_box()
    assert box
    x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["height"] / 3
    page.get_by_test_id("map-lasso").click()
    page.mouse.move(x - r, y - r)
    page.mouse.down()
    for dx, dy in ((r, -r), (r, r), (-r, r)):
        page.mouse.move(x + dx, y + dy, steps=8)
    page.mouse.up()


def painted(page: Page) -> set[str]:
    """Colours of the pixels on the canvas once they are drawn finely: a busy machine first draws without soft edges."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(page.get_by_test_id("map-canvas")).not_to_have_attribute("data-rough", "")
    result: list[int] = page.evaluate(
        """() => {
          const canvas = document.getElementById("map");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const colours = new Set();
          for (let i = 0; i < data.length; i += 4) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
          return [...colours];
        }"""
    )
    return {f"#{colour:06x}" for colour in result}


def colours_once(page: Page, met: Callable[[set[str]], bool]) -> set[str]:
    """The colours on the canvas once they are as `met` wants: what a filter marks is drawn when its answer comes."""
    end = time.monotonic() + 60
    while not met(colours := painted(page)):
        assert time.monotonic() < end, "the map is not drawn anew"
    return colours


def go_on(page: Page, key: str, name: str) -> int:
    """Presses an arrow key; the point in the panel once it has followed, or the same where no point lies that way.

    Args:
        name: the panel's attribute that has the point's number.
    """
    panel = page.get_by_test_id("chosen")
    start = panel.get_attribute(name) or ""
    page.keyboard.press(key)
    with suppress(AssertionError):
        expect(panel).not_to_have_attribute(name, start, timeout=5_000)
    return int(panel.get_attribute(name) or -1)


def place(page: Page, columns: Columns, i: int) -> tuple[float, float]:
    """Where a point lies in the window, with the whole map in view: map/points.js has the same rule."""
    box = page.get_by_test_id("map-canvas").bounding_box()
    assert box
    scale = 0.94 * min(box["width"], box["height"]) / mapfile.LAST
    x, y = (float(axis[i]) - 0.5 * mapfile.LAST for axis in (columns.x, columns.y))
    return box["x"] + box["width"] / 2 + x * scale, box["y"] + box["height"] / 2 + y * scale


def lonely(columns: Columns) -> int:
    """The point with a place that is farthest from all others: no other one is under the pointer."""
    alive_ids = [i for i in range(len(columns.x)) if columns.x[i] != mapfile.NOWHERE]

    def apart(i: int) -> float:
        x, y = float(columns.x[i]), float(columns.y[i])
        return min((columns.x[j] - x) ** 2 + (columns.y[j] - y) ** 2 for j in alive_ids if j != i)

    return max(alive_ids, key=apart)
