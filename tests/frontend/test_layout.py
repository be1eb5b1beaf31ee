"""Where things stand on pages: long words stay in their places, tokens in their line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageOps

from tests.helpers.synthetic import word_feature

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RED = word_feature("red")


@pytest.fixture(scope="module")
def page(browser: Browser, base_url: str) -> Iterator[Page]:
    context = browser.new_context(base_url=base_url, viewport={"width": 1440, "height": 900})
    yield context.new_page()
    context.close()


def test_a_long_token_of_the_lens_is_cut_before_its_value(page: Page) -> None:
    page.goto(f"/features/{RED}")
    token = page.locator("#logits bdi").first
    assert token.get_attribute("title") == token.inner_text()
    token.evaluate("(one) => { one.textContent = '␣'.repeat(200); }")
    end = "one => one.getBoundingClientRect().right"
    start_of_value = token.evaluate("one => one.nextElementSibling.getBoundingClientRect().left")
    assert token.evaluate(end) <= start_of_value < page.locator("#logits h3").nth(1).evaluate(end)
    assert token.evaluate("one => getComputedStyle(one).textOverflow") == "ellipsis"


@pytest.mark.parametrize("width", [320, 768, 1440])
def test_a_long_name_stays_in_its_chip_and_its_panel(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"/samples/s00000?f={RED}")
    chip = page.get_by_test_id("chosen").locator(".chip").first
    chip.locator("bdi").first.evaluate("(one) => { one.textContent = 'various images ' + 'x'.repeat(90); }")
    inside = """(one) => one.scrollWidth <= one.clientWidth
      && one.getBoundingClientRect().right <= one.parentElement.getBoundingClientRect().right"""
    assert chip.evaluate(inside) and page.evaluate("document.documentElement.scrollWidth") <= width


def test_tokens_of_a_caption_have_the_gaps_of_a_sentence(page: Page) -> None:
    """A short token is as wide as its letters, and is hit in a wider square."""
    page.goto("/samples/s00000")
    gaps = page.get_by_test_id("token").evaluate_all(
        """all => all.map((one) => {
          const range = document.createRange();
          range.selectNodeContents(one);
          const target = getComputedStyle(one, "::after");
          const gap = one.getBoundingClientRect().width - range.getBoundingClientRect().width;
          return [gap, parseFloat(target.width), parseFloat(target.height)];
        })"""
    )
    assert len(gaps) > 2 and all(abs(gap) < 1 and wide >= 16 and high >= 24 for gap, wide, high in gaps)


def test_what_scrolls_sideways_shows_it_and_is_reached_by_keys(page: Page) -> None:
    """A shadow of its own at each end that stays while the content moves, a name, and a place among the tab stops."""
    page.set_viewport_size({"width": 320, "height": 900})
    n_wide = 0
    for path in ("/", "/quality", "/cooccurrence", "/sae", "/samples/s00000", "/search?q=red", "/rejected"):
        page.goto(path)
        for scroll in page.locator(".scroll").all():
            assert scroll.get_attribute("tabindex") == "0" and scroll.get_attribute("role") == "region", path
            assert scroll.get_attribute("aria-label") or scroll.get_attribute("aria-labelledby"), path
            assert scroll.evaluate("one => getComputedStyle(one).backgroundAttachment").count("local") == 2
            n_wide += scroll.evaluate("one => one.scrollWidth > one.clientWidth")
    assert n_wide >= 2  # the matrices: other tables are cards


def test_captions_give_the_ends_of_a_colour_scale_in_figures(page: Page) -> None:
    for path, n in (("/quality", 1), ("/sae", 3), ("/cooccurrence", 1)):
        page.goto(path)
        bars = page.locator("main .scale svg[role=img]")
        fills = bars.first.locator("rect").evaluate_all("all => all.map((one) => getComputedStyle(one).fill)")
        assert bars.count() >= n and len(set(fills)) == len(fills) > 3, path
        words = page.locator("main").inner_text()
        assert "deeper colour" not in words and "(pale)" not in words


def test_names_of_the_matrix_are_whole_where_there_is_space(page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto("/cooccurrence")
    key = page.get_by_test_id("matrix-key")
    assert key.locator(".axis").all_text_contents() == ["image features →", "text features ↓"]
    for drawing in (key, page.get_by_test_id("matrix")):
        box = drawing.bounding_box()
        assert box
        for name in drawing.locator("text").all():
            place = name.bounding_box()
            assert place and place["x"] >= box["x"] and place["y"] >= box["y"]
            assert place["x"] + place["width"] <= box["x"] + box["width"]


def test_heat_on_small_images_is_an_outline_until_the_pointer_is_there(page: Page) -> None:
    page.goto("/")
    small = page.locator(".thumbs .pic:has(.heat [class^=h])").first
    opacity = "one => parseFloat(getComputedStyle(one).fillOpacity)"
    assert small.locator(".heat [class^=h]").first.evaluate(opacity) == 0
    assert small.locator(".heat :is(.edge, .peak):not(.case)").locator("visible=true").count() >= 1
    small.hover()
    patch = small.locator(".heat [class^=h]").first.element_handle()
    page.wait_for_function("one => parseFloat(getComputedStyle(one).fillOpacity) > 0.4", arg=patch)


def test_the_reference_of_the_api_is_a_short_page_with_contents(page: Page) -> None:
    page.goto("/docs")
    assert page.evaluate("document.documentElement.scrollHeight") < 20_000
    contents = page.get_by_test_id("contents")
    contents.get_by_role("link", name="Features").click()
    assert page.url.endswith("#features") and contents.bounding_box()["y"] >= 0  # type: ignore[index]
    page.goto("/docs?q=get steer/start")
    assert page.get_by_test_id("operation").evaluate_all("all => all.map((one) => one.open)") == [True]
    page.goto("/docs#FeatureDetail")
    page.wait_for_function("document.querySelector('#FeatureDetail').checkVisibility()")  # its fold opens


def test_on_half_a_screen_the_pages_have_one_row_below_the_name(browser: Browser, base_url: str) -> None:
    with browser.new_context(base_url=base_url, viewport={"width": 768, "height": 900}) as context:
        narrow = context.new_page()
        narrow.goto("/")
        tops = narrow.locator(".nav a").evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")
        below = narrow.locator(".brand").evaluate("one => one.getBoundingClientRect().bottom")
        assert len(tops) > 8 and len(set(tops)) == 1 and tops[0] >= below


def test_names_in_the_tables_of_the_method_are_not_broken(browser: Browser, base_url: str) -> None:
    with browser.new_context(base_url=base_url, viewport={"width": 390, "height": 844}) as context:
        phone = context.new_page()
        phone.goto("/method")
        names = phone.locator(".prose td:first-child code").filter(has_text="omega_without_self")
        assert names.evaluate_all("all => all.map((one) => one.getClientRects().length)") == [1]


@pytest.mark.parametrize("width", [390, 1280, 1600])
def test_the_figure_of_a_card_stands_in_line_with_its_right_edge(page: Page, width: int) -> None:
    """Beside the verdict, or in a line of its own from edge to edge, as in a table; a strip of six fills its row."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/")
    edges = page.locator(".card.feature .meta .num:has(> span)").evaluate_all(
        """all => all.map((one) => {
          const range = document.createRange();
          range.selectNode(one.lastChild);
          return one.parentElement.getBoundingClientRect().right - range.getBoundingClientRect().right;
        })"""
    )
    assert len(edges) > 2 and all(abs(edge) < 2 for edge in edges), edges
    columns = page.locator(".grid.features").first.evaluate("one => getComputedStyle(one).gridTemplateColumns")
    assert len(columns.split()) == {390: 2, 1280: 6, 1600: 6}[width]


def test_the_ends_of_a_range_are_whole_in_their_fields(page: Page) -> None:
    """A field for numbers leaves no place for arrows that it does not show: its figure ends where one for text ends."""
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto("/features")
    field = page.locator(".range input").first
    field.evaluate("(one) => { one.placeholder = '−6.74e−5'; }")

    def end_of_ink() -> int:
        with Image.open(io.BytesIO(field.screenshot())) as image:
            inside = ImageOps.invert(image.convert("L")).crop((3, 3, image.width - 3, image.height - 3))
            box = inside.point(lambda level: 255 * (level > 80)).getbbox()
        assert box
        return box[2]

    end = end_of_ink()
    field.evaluate("(one) => { one.type = 'text'; }")
    assert abs(end_of_ink() - end) <= 1
    assert "Densities are shares: 0.01 is 1 %" in page.get_by_test_id("rail").inner_text()
