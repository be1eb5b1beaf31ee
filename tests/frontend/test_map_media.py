"""The map on paper and in the colours that a system forces."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, Page, expect

from tests.helpers.colours import palette

LIGHT, DARK = palette(0), palette(1)


def colours(page: Page) -> set[str]:
    """Colours of the pixels on the canvas."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    result: list[int] = page.evaluate(
        """() => {
          const canvas = document.getElementById("map");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          const seen = new Set();
          for (let i = 0; i < data.length; i += 4) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
          return [...seen];
        }"""
    )
    return {f"#{colour:06x}" for colour in result}


def test_points_keep_their_colours(browser: Browser, base_url: str) -> None:
    context = browser.new_context(base_url=base_url, forced_colors="active", color_scheme="dark")
    page = context.new_page()
    page.goto("/map")
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))
    assert {DARK["map-cross-modal"], DARK["map-image-only"]} <= colours(page)
    context.close()


def test_paper_is_light(browser: Browser, base_url: str) -> None:
    context = browser.new_context(base_url=base_url, color_scheme="dark")
    page = context.new_page()
    page.goto("/map")
    expect(page.get_by_test_id("map-canvas")).to_have_attribute("data-drawn", re.compile(r"\d"))
    assert DARK["map-cross-modal"] in colours(page)
    page.emulate_media(media="print")
    assert {LIGHT["map-cross-modal"], LIGHT["surface"]} <= colours(page)
    expect(page.get_by_test_id("map-search")).to_be_hidden()
    page.emulate_media(media="screen")
    assert DARK["map-cross-modal"] in colours(page)
    context.close()
