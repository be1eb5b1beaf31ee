"""Tables in a narrow window: cards instead of columns that one scrolls to, and a matrix whose names stay."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.servers import page_of


@pytest.mark.parametrize("width", [320, 390])
def test_tables_of_figures_need_no_scrolling_on_a_phone(browser: Browser, measured_url: str, width: int) -> None:
    names = {
        "sae-table": [],
        "evaluation-table": ["Original", "Reconstruction", "Zeros", "Loss recovered"],
        "scorecard-table": ["This SAE", "Random decoder", "Untrained model"],
        "score-table": ["AUROC", "Mean"],
        "hallucination-ways": ["Hallucinated", "Captions"],
    }
    with page_of(browser, measured_url, viewport={"width": width, "height": 844}) as page:
        for path, tables in (
            ("/sae", [name for name in names if name != "score-table"]),
            ("/quality", ["score-table"]),
        ):
            page.goto(path)
            for name in tables:
                table = page.get_by_test_id(name)
                scrolls = "one => one.parentElement.scrollWidth - one.parentElement.clientWidth"
                assert table.evaluate(scrolls) <= 1, name
                before = "all => all.map((one) => getComputedStyle(one, '::before').content)"
                drawn = table.locator("td").evaluate_all(before)
                assert {f'"{title}"' for title in names[name]} <= set(drawn), name
            intervals = page.locator(".slim td .nowrap").evaluate_all(
                "all => all.map((one) => [one.getClientRects().length, one.innerText])"
            )
            assert intervals and [text for boxes, text in intervals if boxes > 1] == [], (
                "begins a line before it breaks"
            )
        page.goto("/quality")
        tray = page.locator(".tray")
        assert tray.evaluate("one => one.parentElement.scrollWidth - one.parentElement.clientWidth") <= 1


def test_a_table_stays_a_table_where_there_is_space(browser: Browser, measured_url: str) -> None:
    with page_of(browser, measured_url, viewport={"width": 1000, "height": 800}) as page:
        page.goto("/sae")
        expect(page.get_by_test_id("sae-glance")).to_contain_text(
            "the model recovers 100 % of the loss that zeros in the place of h cause"
        )
        table = page.get_by_test_id("scorecard-table")
        expect(table.locator("thead th").nth(2)).to_be_visible()
        tops = (
            table.locator("tbody tr:nth-child(2)")
            .first.locator("td")
            .evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")
        )
        assert len(tops) == 5 and len(set(tops)) == 1


def scroll_on(page: Page) -> tuple[float, float, float]:
    """The left edges of the names, of their box and of the first cell after the box was scrolled by 120 pixels."""
    return tuple(
        page.get_by_test_id("matrix-key").evaluate(
            """(key) => {
              key.parentElement.scrollLeft = 120;
              const cell = key.parentElement.querySelector(".cells rect");
              return [key, key.parentElement, cell].map((one) => one.getBoundingClientRect().left);
            }"""
        )
    )


def test_the_matrix_says_that_it_scrolls_and_its_names_stay(browser: Browser, base_url: str) -> None:
    path = "/cooccurrence?min_support=2"
    with page_of(browser, base_url, viewport={"width": 390, "height": 844}) as page:
        page.goto(path)
        page.locator(".matrix-box").evaluate("one => { one.style.maxWidth = '15rem'; }")  # the made-up matrix is small
        expect(page.get_by_test_id("sideways")).to_be_visible()
        before = page.locator(".cells rect").first.bounding_box()
        key, box, cell = scroll_on(page)
        assert before and abs(key - box) < 1 and abs(before["x"] - cell - 120) < 1
        rows = page.get_by_test_id("matrix-key").locator("a text")
        levels = [one.bounding_box() for one in rows.all()]
        cells = page.locator(".cells rect").evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")
        first = levels[0]
        assert first and any(abs(top + 12 - first["y"] - first["height"] / 2) < 3 for top in cells), "beside its row"
        page.locator(".matrix-box").evaluate("one => { one.style.maxWidth = ''; }")
        page.set_viewport_size({"width": 1440, "height": 844})
        expect(page.get_by_test_id("sideways")).to_be_hidden()
