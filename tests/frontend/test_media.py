"""Every page on paper, and in the colours that a system forces."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.helpers.synthetic import word_feature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

RED = word_feature("red")
PATHS = [
    "/", "/features", "/features?cols=place_map,agreement", f"/features/{RED}", f"/features/{RED}?modality=text&band=0",
    f"/features/{RED}?band=counter", f"/features/{RED}/partners", f"/features/{RED}/factsheet", "/map", "/samples",
    "/samples/s00000", "/samples/s00000?f=0,3", "/search?q=red", "/quality", "/sae", "/cooccurrence",
    f"/cooccurrence?feature={RED}", "/steer", "/docs", "/method", "/rejected", "/features/99999",
    "/map?of=samples", "/lists", f"/basket?features={RED}&sample=s00000", "/try", "/samples?by=cosine&min_score=0",
    "/quality?by=cosine&without=blank",
]  # fmt: skip
WITH_DRAWINGS = [one for one in PATHS if not one.startswith(("/docs", "/method", "/steer", "/rejected", "/features/9"))]
A4_PX = 718
"""Width of an A4 page without its margins, at 96 dpi."""
CUT = """(width) => {
  const name = (one) => `${one.tagName}.${[...one.classList].join(".")}#${one.id}`;
  // A line of the concordance is cut at both ends on purpose; what is for screen readers is clipped; an image fills its
  // frame.
  const meant = ".kwic .line *, .sr, .sr *, .pic, .pic *, svg, svg *, table.cards thead, table.cards thead *, canvas";
  const cut = [];
  for (const one of document.querySelectorAll("main *")) {
    if (one.matches(meant) || !one.checkVisibility() || !one.getClientRects().length) continue;
    const style = getComputedStyle(one), right = one.getBoundingClientRect().right;
    const [x, y] = ["X", "Y"].map((axis) => style["overflow" + axis] !== "visible");
    if (x && one.clientWidth && one.scrollWidth > one.clientWidth + 1) cut.push(name(one) + " is cut in width");
    if (y && one.clientHeight && one.scrollHeight > one.clientHeight + 1) cut.push(name(one) + " is cut in height");
    if (right > width + 1) cut.push(name(one) + " stands out: " + Math.round(right));
  }
  return cut;
}"""
CLOSED = """() => {
  const hides = (child) => !child.matches("summary, button") && child.textContent.trim() && !child.checkVisibility();
  const all = [...document.querySelectorAll("main details")].filter((one) => one.checkVisibility());
  return all.filter((one) => [...one.children].some(hides)).map((one) => one.textContent.slice(0, 60));
}"""
HIDDEN = [
    ".bar", ".filters", ".pager", ".tools", ".tabs", "button:not(.chip)", "dialog", ".skip", ".tour",
    "main input[type=checkbox]", "main input[type=file]", "kbd", ".patch-form", ".notes-form", ".own-form",
    "[data-testid=snippet]",
    "main :is(input:not([type=hidden]), select, textarea):not(.steer *)", ".panel:not(:has(> :not(header)))", ".doors",
]  # fmt: skip
"""Controls, and panels that have only a heading without them. The fields of steering stay: they say what was steered.
The chips of the map stay: they are its legend."""
SHOWN = """(selectors) => {
  const more = [...document.querySelectorAll("summary")].filter((one) => /^\\d+ more$/.test(one.textContent.trim()));
  const all = [...more, ...document.querySelectorAll(selectors.join(", "))];
  const seen = (one) => one.checkVisibility({visibilityProperty: true}) && one.getBoundingClientRect().height > 0;
  return all.filter(seen).map((one) => one.outerHTML.slice(0, 160));
}"""
"""Which of them are seen. By the browser itself: a page of all documents has ten thousand elements, for which the
locators of Playwright take minutes with `:has`."""
DRAWINGS = ".hist, .share, .split, .places, .scale svg, .interval, .curve, .density, .matrix, .ego, .steps"
DIVIDED = """() => {
  const seen = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.checkVisibility());
  const without = (selector, name) => seen(selector).filter((one) => getComputedStyle(one)[name] !== "avoid");
  const wholes = without("main :is(.card, tr, li, .totals, figure, svg, .pic, .note, .kv, .legend)", "breakInside");
  const headers = ".panel:not(:has(> .density)) > header, .section > header";
  const heads = without(`main :is(h1, h2, h3, ${headers}, .hist, .curve)`, "breakAfter");
  return [...wholes, ...heads].map((one) => one.outerHTML.slice(0, 120));
}"""
"""Cards, rows and charts that a sheet's end may cut, and headings and charts that it may part from what follows. The
density stands beside its heading."""
TALL = """(most) => [...document.querySelectorAll("main *")].filter((one) => one.checkVisibility()
  && getComputedStyle(one).breakInside === "avoid" && one.getBoundingClientRect().height > most)
  .map((one) => `${one.tagName} ${one.dataset.testid} ${one.getBoundingClientRect().height}`)"""
SHEET_PX = 1030
"""Height of an A4 page without its margins."""
SELECTED = """() => {
  const look = (one) => {
    const s = getComputedStyle(one);
    return [s.outlineStyle, s.outlineWidth, s.borderTopColor, s.borderTopWidth, s.textDecorationLine, s.fontWeight,
      s.backgroundColor, s.color].join(" ");
  };
  const on = (one) => (one.getAttribute("aria-current") ?? "false") !== "false" || one.ariaPressed === "true";
  const all = [...document.querySelectorAll(":is(main, .nav) :is([aria-current], [aria-pressed])")].filter(on);
  const inRow = (one) => one.parentElement.closest("li[aria-current]"); // the row is marked as a whole
  return all.filter((one) => one.checkVisibility() && !one.closest("svg") && !inRow(one)).filter((one) => {
    const others = [...one.parentElement.querySelectorAll(one.tagName)].filter((each) => !on(each));
    const style = getComputedStyle(one), other = others.find((each) => each.className === one.className);
    return other ? look(one) === look(other) : style.outlineStyle === "none" && !parseFloat(style.borderTopWidth);
  }).map((one) => one.outerHTML.slice(0, 120));
}"""
MARK = "one => { const s = getComputedStyle(one); return `${s.borderBottomStyle} ${s.textDecorationLine}`; }"


@pytest.fixture(scope="module")  # a new page of Chromium takes longer than to open an address in one that is there
def paper(browser: Browser, base_url: str) -> Iterator[Page]:
    context = browser.new_context(base_url=base_url, color_scheme="dark", viewport={"width": A4_PX, "height": 1000})
    page = context.new_page()
    page.emulate_media(media="print")
    yield page
    context.close()


@pytest.fixture(scope="module")
def forced(browser: Browser, base_url: str) -> Iterator[Page]:
    context = browser.new_context(base_url=base_url, forced_colors="active", viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_cut_on_paper_and_controls_are_left_out(paper: Page, path: str) -> None:
    paper.goto(path)
    paper.wait_for_load_state("networkidle")
    assert paper.evaluate(CUT, A4_PX) == []
    assert paper.evaluate(CLOSED) == []
    assert paper.evaluate(SHOWN, HIDDEN) == []
    assert paper.evaluate("getComputedStyle(document.body).color") == "rgb(23, 27, 33)"  # the light theme's ink
    if "/factsheet" not in path and path not in ("/docs", "/features/99999"):  # pages of no store have no provenance
        assert paper.get_by_test_id("provenance").locator("dl").is_visible()


@pytest.mark.parametrize("path", ["/features", "/samples", f"/features/{RED}", "/cooccurrence", "/quality"])
def test_a_page_of_a_wide_window_fits_on_paper(browser: Browser, base_url: str, path: str) -> None:
    """What a script has opened or moved in a wide window is left out too."""
    page = browser.new_context(base_url=base_url, viewport={"width": 1440, "height": 900}).new_page()
    page.goto(path)
    page.wait_for_load_state("networkidle")
    page.set_viewport_size({"width": A4_PX, "height": 1000})
    page.emulate_media(media="print")
    assert page.evaluate(CUT, A4_PX) == []
    assert page.evaluate(SHOWN, HIDDEN) == []
    page.context.close()


WITH_PARTS = ["/", "/features", f"/features/{RED}", "/samples/s00000", "/quality", "/sae", "/method"]


@pytest.mark.parametrize("path", WITH_PARTS)
def test_nothing_is_divided_between_two_sheets(paper: Page, path: str) -> None:
    paper.goto(path)
    assert paper.evaluate(DIVIDED) == []


@pytest.mark.parametrize(("path", "most_sheets"), [("/sae", 7), ("/quality", 5)])
def test_no_third_of_a_sheet_stays_blank(browser: Browser, measured_url: str, path: str, most_sheets: int) -> None:
    """What may not be divided is lower than a third of a sheet, so that whatever comes next leaves no more blank."""
    page = browser.new_context(viewport={"width": A4_PX, "height": 1000}).new_page()
    page.emulate_media(media="print")
    page.goto(measured_url + path)
    page.wait_for_load_state("networkidle")
    assert page.evaluate(TALL, SHEET_PX / 3) == []
    margins = {"top": "12mm", "bottom": "12mm", "left": "12mm", "right": "12mm"}
    sheets = re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", margin=margins))
    assert 0 < len(sheets) <= most_sheets
    page.context.close()


@pytest.mark.parametrize("path", [f"/features/{RED}", "/quality", "/features", "/cooccurrence"])
def test_an_interval_stays_on_one_line_of_paper(paper: Page, path: str) -> None:
    paper.goto(path)
    lines = "all => all.filter((one) => one.getClientRects().length > 1).map((one) => one.textContent)"
    assert paper.locator("main td .tiny.nowrap").evaluate_all(lines) == []


def colours_of(shot: bytes) -> list[tuple[int, Any]]:
    """(pixels, colour) of a screenshot, the most frequent first."""
    with Image.open(io.BytesIO(shot)) as image:
        return sorted(image.convert("RGB").getcolors(1 << 24) or [], reverse=True)


@pytest.mark.parametrize("path", WITH_DRAWINGS)
def test_data_and_choices_are_seen_in_forced_colours(forced: Page, path: str) -> None:
    forced.goto(path)
    forced.wait_for_load_state("networkidle")
    assert forced.evaluate(SELECTED) == []
    later = forced.locator("a[data-pairs]")
    if later.count():  # samples that are fetched when one scrolls there take the place of drawings
        later.scroll_into_view_if_needed()
        later.wait_for(state="detached")
    drawings = forced.locator(DRAWINGS).locator("visible=true")
    for i in range(min(drawings.count(), 6)):
        drawn = colours_of(drawings.nth(i).screenshot())
        assert len(drawn) > 1, drawings.nth(i).evaluate("one => one.outerHTML.slice(0, 200)")
    tokens = forced.locator(".tok[title], .word").locator("visible=true")
    for i in range(min(tokens.count(), 3)):
        assert tokens.nth(i).evaluate(MARK) != "none none"
    verdicts = forced.locator(".verdict").locator("visible=true")
    if verdicts.count():
        assert len(colours_of(verdicts.first.screenshot())) > 1


def test_heat_keeps_its_colours_where_the_system_forces_its_own(forced: Page) -> None:
    forced.goto(f"/features/{RED}?modality=image")
    path = forced.locator("[data-testid=example] .heat path[class^=h]").first
    assert path.evaluate("one => getComputedStyle(one).fill").startswith("rgb(")
    before = colours_of(forced.get_by_test_id("example").first.locator(".pic").screenshot())
    forced.keyboard.press("h")
    assert colours_of(forced.get_by_test_id("example").first.locator(".pic").screenshot()) != before
