"""The map on paper and in the colours that a system forces."""

from playwright.sync_api import Browser, expect

from tests.helpers.colours import palette
from tests.helpers.map_page import opened, painted

LIGHT, DARK = palette(0), palette(1)


def test_points_keep_their_colours(browser: Browser, base_url: str) -> None:
    context = browser.new_context(base_url=base_url, forced_colors="active", color_scheme="dark")
    page = opened(context)
    assert {DARK["map-cross-modal"], DARK["map-image-only"]} <= painted(page)
    context.close()


def test_paper_is_light(browser: Browser, base_url: str) -> None:
    context = browser.new_context(base_url=base_url, color_scheme="dark")
    page = opened(context)
    assert DARK["map-cross-modal"] in painted(page)
    page.emulate_media(media="print")
    assert {LIGHT["map-cross-modal"], LIGHT["surface"]} <= painted(page)
    expect(page.get_by_test_id("map-search")).to_be_hidden()
    page.emulate_media(media="screen")
    assert DARK["map-cross-modal"] in painted(page)
    context.close()
