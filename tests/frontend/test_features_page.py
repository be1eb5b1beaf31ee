"""The list of features in a real Chromium: ranges, columns, selection, files, numbers."""

import csv
import io
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, expect

from backend.app import create_app
from backend.settings import Settings
from tests.helpers import synthetic


def test_a_range_is_dragged_and_typed_and_back_undoes_it(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features?fold=none")
    everything = page.get_by_test_id("total").inner_text()
    samples = page.get_by_test_id("range-n_samples")
    samples.scroll_into_view_if_needed()
    box = samples.locator("svg").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 20, steps=3)
    page.mouse.up()
    expect(page).to_have_url(re.compile("min_n_samples="))
    expect(page.get_by_test_id("total")).not_to_have_text(everything)
    least = float(samples.locator("input").first.input_value())
    total = page.request.get("/api/v1/features", params={"min_n_samples": least, "limit": 1}).json()["total"]
    expect(page.get_by_test_id("total")).to_have_text(f"{total:,}")
    assert samples.locator("rect.left").count() > 0
    page.go_back()
    expect(page.get_by_test_id("total")).to_have_text(everything)
    expect(samples.locator("rect.left")).to_have_count(0)
    samples.locator("input").first.focus()
    page.keyboard.press("ArrowUp")  # to the next bar
    page.keyboard.press("ArrowUp")
    expect(page).to_have_url(re.compile("min_n_samples="))
    expect(samples.locator("rect.left")).not_to_have_count(0)


def test_the_rail_is_folded_in_a_narrow_window(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features")
    field = page.get_by_test_id("range-agreement").locator("input").first
    expect(field).to_be_visible()
    page.set_viewport_size({"width": 768, "height": 900})
    page.goto("/features")
    expect(field).to_be_hidden()
    page.get_by_test_id("rail").locator("summary").click()
    expect(field).to_be_visible()


def test_selected_features_are_steered(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features")
    rows = page.get_by_test_id("feature-row")
    ids = [rows.nth(at).get_attribute("data-feature") for at in (0, 2)]
    for button in ("steer-these", "basket-these"):  # nothing is selected yet
        expect(page.get_by_test_id(button)).to_be_disabled()
    for key in "jxjjx":
        page.keyboard.press(key)
    page.get_by_test_id("steer-these").click()
    page.wait_for_url(re.compile("/steer"))
    assert parse_qs(urlsplit(page.url).query)["feature"] == [f"{id}:add:1" for id in ids]


def test_a_verdict_is_a_chip_that_the_other_filters_keep(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features")
    page.get_by_test_id("verdict-image-only").click()
    expect(page).to_have_url(re.compile("verdict=image-only"))
    page.get_by_test_id("sort").select_option("id")
    expect(page).to_have_url(re.compile("sort=id"))
    assert parse_qs(urlsplit(page.url).query)["verdict"] == ["image-only"]
    expect(page.get_by_test_id("verdict-image-only")).to_have_attribute("aria-current", "true")


def test_columns_are_chosen_and_filters_keep_them(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features?cols=lift")
    head = page.get_by_test_id("feature-table").locator("th.num")
    expect(head).to_have_text(["Lift of ω"])
    page.get_by_test_id("columns").click()
    page.get_by_role("link", name="Max", exact=True).click()
    expect(head).to_have_text(["Lift of ω", "Max"])
    page.get_by_test_id("sort").select_option("id")
    expect(page).to_have_url(re.compile("cols=lift%2Cmax_activation"))
    expect(head).to_have_text(["Lift of ω", "Max"])


def test_places_are_a_column(client: TestClient) -> None:
    """A small map for each feature that fires on images, a dash for others; not shown unless chosen."""
    assert "place-map" not in client.get("/features").text
    page = client.get("/features?cols=place_map&fold=none&sort=id&order=asc").text
    rows = page.split('data-testid="feature-row"')[1:]
    assert len(rows) == 30
    for row in rows:
        id = re.search(r'data-feature="(\d+)"', row)
        detail = client.get(f"/api/v1/features/{id[1]}").json() if id else {}
        fires = any((detail["place_map"] or {"mean": []})["mean"])
        assert ("place-map" in row) == fires
        where = re.search(r"strongest in row (\d+), column (\d+)", row)
        if where:
            places = detail["place_map"]
            at = int(where[1]) * places["columns"] + int(where[2])
            assert places["mean"][at] == max(places["mean"])
    assert any("place-map" in row for row in rows) and not all("place-map" in row for row in rows)


def test_what_the_list_is_about_is_a_column(client: TestClient) -> None:
    def titles(address: str) -> list[str]:
        head = client.get(address).text.partition("<thead>")[2].partition("</thead>")[0]
        return [one.rstrip(" ↑↓") for one in re.findall(r'<th class="num"[^>]*><a [^>]*>([^<]+)</a>', head)]

    usual = titles("/features")
    assert "Evidence" not in usual and titles("/features?sort=evidence") == [*usual, "Evidence"]
    assert titles("/features?sort=place_share")[-2:] == ["One place", "Place map"]
    assert titles("/features?sort=place_share&cols=lift") == ["Lift of ω"]


def test_a_number_opens_its_feature(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features")
    page.get_by_test_id("q").fill("#5")
    expect(page.get_by_test_id("by-number").locator("a")).to_have_attribute("href", "/features/5")
    page.get_by_test_id("q").press("Enter")
    expect(page).to_have_url(re.compile("/features/5$"))


def test_files_and_the_random_feature_follow_the_filters(client: TestClient) -> None:
    page = client.get("/features?q=red&fold=none&min_n_samples=2&sort=lift&limit=3").text
    address = re.search(r'href="([^"]+features\.csv[^"]*)"', page)
    assert address
    lines = list(csv.DictReader(io.StringIO(client.get(address[1].replace("&amp;", "&")).text)))
    total = client.get("/api/v1/features?q=red&min_n_samples=2&limit=1").json()["total"]
    assert len(lines) == total > 0 and f">{total}</strong>" in page
    reply = client.get("/features/random?q=red&fold=none&min_n_samples=2", follow_redirects=False)
    assert reply.status_code == 303
    assert reply.headers["location"].rpartition("/")[2] in {line["id"] for line in lines}
    assert client.get("/features/random?min_agreement=2").status_code == 404


def test_words_have_one_order_in_search_list_and_cooccurrence(client: TestClient) -> None:
    """Each feature with a line of its own, the same ones first, and its words on the card."""
    searched = client.get("/search?q=red").text
    cards = re.findall(r'data-testid="feature-card" data-feature="(\d+)"', searched)
    rows = re.findall(r'data-testid="feature-row" data-feature="(\d+)"', client.get("/features?q=red").text)
    n = min(len(cards), len(rows))
    assert cards[:n] == rows[:n] and n > 2
    assert f'data-feature="{rows[0]}"' in client.get("/cooccurrence?q=red").text
    assert 'data-testid="card-words"' in searched and "lift of ω" not in searched


def test_selected_features_are_tagged_listed_and_compared(browser: Browser, notes_url: str) -> None:
    """By keys; what is typed stays until it is saved."""
    page = browser.new_page(base_url=notes_url)
    page.goto("/features")
    rows = page.get_by_test_id("feature-row")
    ids = [rows.nth(at).get_attribute("data-feature") for at in (0, 1)]
    expect(page.get_by_test_id("tag-button")).to_be_disabled()
    expect(page.get_by_test_id("tag")).to_have_attribute("title", re.compile("^Nobody has given a tag: select rows"))
    for key in "jxjx":
        page.keyboard.press(key)
    page.get_by_test_id("tag-button").press("Enter")
    tags = page.get_by_test_id("bulk-tags")
    tags.fill("x" * 300)
    tags.press("Enter")
    expect(page.get_by_test_id("tag-form").get_by_role("alert")).to_contain_text("tags")
    expect(tags).to_have_value("x" * 300)
    page.keyboard.press("Escape")
    page.get_by_test_id("tag-button").press("Enter")
    expect(tags).to_have_value("x" * 300)
    tags.fill("pet, <b>")
    tags.press("Enter")
    expect(rows.nth(1).get_by_test_id("own-tags-shown")).to_have_text("pet<b>")
    expect(rows.nth(2).get_by_test_id("own-tags-shown")).to_have_count(0)
    page.get_by_test_id("tag").select_option("pet")  # the filter knows the new tag at once
    expect(rows).to_have_count(2)
    page.get_by_test_id("tag").select_option("any")
    expect(rows).to_have_count(30)
    page.get_by_test_id("select-all").check()
    expect(page.get_by_test_id("compare-these")).to_be_disabled()
    page.get_by_test_id("list-button").click()
    page.get_by_test_id("bulk-title").fill("A page")
    page.get_by_test_id("save-list").click()
    page.wait_for_url(re.compile("/lists/a-page"))
    listed = page.request.get("/api/v1/annotations/lists/a-page").json()["features"]
    assert len(listed) == 30 and [str(one) for one in listed[:2]] == ids
    page.goto("/features")
    rows.nth(4).get_by_role("checkbox").check()
    page.get_by_test_id("list-button").click()
    expect(page.get_by_test_id("bulk-list")).to_have_value("a-page")
    page.get_by_test_id("bulk-title").fill("Another one")  # who types a title does not mean the list that is there
    expect(page.get_by_test_id("bulk-list")).to_have_value("")
    page.get_by_test_id("save-list").click()
    page.wait_for_url(re.compile("/lists/another-one"))
    assert len(page.request.get("/api/v1/annotations/lists/a-page").json()["features"]) == 30
    page.goto("/features")
    tops = "all => all.map((one) => one.getBoundingClientRect().top)"
    places = page.locator("#steer-these :is(button, label)").evaluate_all(tops)
    for at in (0, 1):
        rows.nth(at).get_by_role("checkbox").check()
    assert page.locator("#steer-these :is(button, label)").evaluate_all(tops) == places, "nothing jumps"
    page.get_by_test_id("compare-these").click()
    page.wait_for_url(re.compile(f"/compare.a={ids[0]}&b={ids[1]}$"))
    page.close()


def test_without_writing_the_list_has_no_buttons_that_write(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = synthetic.small_store(tmp_path_factory)
    for read_only in (True, False):
        with TestClient(create_app(Settings(stores=[store], live=False, read_only=read_only))) as running:
            page = running.get("/features", headers={"Accept": "text/html"}).text
            samples = running.get("/samples", headers={"Accept": "text/html"}).text
        assert all("no tags yet" in one and 'data-testid="tag"' in one for one in (page, samples))
        assert ("tag-form" in page) is ("list-button" in page) is not read_only
        assert "compare-these" in page
