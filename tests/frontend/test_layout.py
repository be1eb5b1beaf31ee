"""Where things stand on pages: long words stay in their places, tokens in their line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

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
