"""The basket, lists, saved filters and marks of flagged pairs, in a real Chromium and without JavaScript."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect

API = "/api/v1"


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def page(browser: Browser, notes_url: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(base_url=notes_url, java_script_enabled=request.param)
    yield context.new_page()
    context.close()


both_databases = pytest.mark.parametrize("notes_app", ["sqlite", "postgresql"], indirect=True)
scripts = pytest.mark.parametrize("page", [True], ids=["scripts"], indirect=True)


def select(page: Page, n: int) -> list[str]:
    """Tick the first features of the list; their numbers."""
    page.goto("/features")
    rows = page.get_by_test_id("feature-row")
    for at in range(n):
        rows.nth(at).locator("input").check()
    return [str(rows.nth(at).get_attribute("data-feature")) for at in range(n)]


@both_databases
@scripts
def test_a_basket_is_kept_from_page_to_page_and_becomes_a_list(page: Page, browser: Browser, notes_url: str) -> None:
    ids = select(page, 2)
    page.get_by_test_id("basket-these").click()
    expect(page.get_by_test_id("basket")).to_have_text("Basket 2")
    page.goto("/samples")
    page.get_by_test_id("tick").first.check()
    page.get_by_test_id("basket-ticked").click()
    expect(page.get_by_test_id("basket")).to_have_text("Basket 3")
    page.goto(f"/features/{int(ids[0]) + 1}")
    page.get_by_test_id("add-to-basket").click()
    page.get_by_test_id("basket").click()
    expect(page.get_by_test_id("member")).to_have_count(3)
    expect(page.get_by_test_id("sample-card")).to_have_count(1)
    other = browser.new_context(base_url=notes_url).new_page()
    other.goto(page.url)  # as someone opens it to whom it was sent
    expect(other.get_by_test_id("member")).to_have_count(3)
    expect(other.get_by_test_id("basket")).to_be_hidden()
    other.get_by_test_id("adopt").click()
    expect(other.get_by_test_id("basket")).to_have_text("Basket 4")
    other.context.close()
    page.locator(f"[data-basket-drop='{ids[0]}']").click()
    expect(page.get_by_test_id("basket")).to_have_text("Basket 3")
    page.get_by_test_id("list-title").fill("Ones to check")
    page.reload()
    expect(page.get_by_test_id("list-title")).to_have_value("Ones to check")
    page.get_by_test_id("save-list").click()
    expect(page).to_have_url(re.compile("/lists/ones-to-check$"))
    body = page.request.get(f"{API}/annotations/lists/ones-to-check").json()
    assert len(body["features"]) == 2 and len(body["samples"]) == 1
    page.goto("/basket")
    expect(page.get_by_test_id("empty")).to_have_count(2)
    expect(page.get_by_test_id("list-form")).to_have_count(0)  # nothing to save
    page.goto(f"/basket?features={ids[0]}")
    expect(page.get_by_test_id("list-title")).to_have_value("")


def test_lists_are_made_changed_and_undone(page: Page) -> None:
    select(page, 3)
    page.get_by_test_id("basket-these").click()
    if page.locator("html.js").count():
        page.get_by_test_id("basket").click()
    page.wait_for_url("**/basket?features=*")
    sample = page.request.get(f"{API}/samples?limit=1").json()["items"][0]["sample_id"]
    page.get_by_test_id("list-title").fill("Bag")
    page.get_by_test_id("list-pair").fill(sample)
    page.get_by_test_id("save-list").click()
    page.wait_for_url("**/lists/bag")
    expect(page.get_by_test_id("matrix-pair")).to_have_count(1)
    expect(page.locator("[data-testid=matrix-row] .image-side").first).to_contain_text("image")
    page.get_by_test_id("drop").first.click()
    expect(page.get_by_test_id("member")).to_have_count(2)
    page.get_by_test_id("list-undo").click()
    expect(page.get_by_test_id("member")).to_have_count(3)
    page.get_by_test_id("list-delete").click()
    page.wait_for_url("**/lists")
    expect(page.get_by_test_id("lists")).to_have_count(0)
    assert page.request.get(f"{API}/annotations/history?kind=list&key=bag").json()["total"] == 4


def test_a_feature_is_added_to_a_new_list_from_its_page(page: Page) -> None:
    page.goto("/features/3")
    page.get_by_test_id("add-to-list").locator("summary").click()
    form = page.get_by_test_id("list-add-form")
    form.get_by_test_id("list-title").fill("Näme only!")
    form.get_by_test_id("add-to-list-button").click()
    expect(page.get_by_test_id("in-list-n-me-only")).to_be_visible()
    assert page.request.get(f"{API}/annotations/lists/n-me-only").json()["features"] == [3]


def test_filters_are_saved_and_opened_again(page: Page) -> None:
    page.goto("/features?verdict=dead&sort=id")
    page.get_by_test_id("saved-filters").locator("summary").click()
    page.get_by_test_id("filter-title").fill("The <dead>")
    page.get_by_test_id("save-filter").click()
    page.wait_for_url("**/features?verdict=dead&sort=id")
    page.goto("/features")
    page.get_by_test_id("saved-filters").locator("summary").click()
    page.get_by_role("link", name="The <dead>").click()
    page.wait_for_url("**/features?verdict=dead&sort=id")


@both_databases
def test_marks_suggest_a_threshold_and_the_export_holds_exactly_those(page: Page) -> None:
    page.goto("/quality?flag=mismatch&threshold=0")
    ids = [str(one.get_attribute("data-sample")) for one in page.locator("#flagged [data-sample]").all()]
    assert len(ids) == 12
    for at, sample in enumerate(ids):
        button = page.get_by_test_id(f"{'right' if at < 8 else 'wrong'}-{sample}")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_test_id("precision")).to_contain_text("8 of 12 above the threshold, 67 %")
    page.get_by_test_id("take-suggestion").click()
    page.wait_for_url(re.compile(r"threshold=0\.\d+"))
    expect(page.get_by_test_id("precision")).to_contain_text("100 %")
    count = int(page.get_by_test_id("flagged-count").inner_text())
    with page.expect_download() as download:
        page.get_by_test_id("export-flagged").click()
    lines = [json.loads(line)["id"] for line in Path(download.value.path()).read_text().splitlines()]
    assert len(lines) == count >= 8 and set(ids[:8]) <= set(lines) and not set(ids[8:]) & set(lines)
    page.get_by_test_id(f"right-{ids[0]}").click()  # the same again takes it back
    expect(page.get_by_test_id(f"right-{ids[0]}")).to_have_attribute("aria-pressed", "false")


@scripts
def test_pairs_are_marked_by_keys(page: Page) -> None:
    page.goto("/quality?flag=mismatch")
    first = str(page.get_by_test_id("sample-card").first.get_attribute("data-sample"))
    page.keyboard.press("j")
    for key, name in (("y", "right"), ("w", "wrong")):
        page.keyboard.press(key)
        expect(page.get_by_test_id(f"{name}-{first}")).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("width", [320, 768])
@scripts
def test_pages_fit_the_window(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("/lists", "/basket?features=1,2,3", "/quality"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_title_of_a_new_list_is_not_lost_where_another_is_chosen(notes_app: FastAPI) -> None:
    """Also without JavaScript, from the list of features and from the page of one."""
    with TestClient(notes_app, headers={"Accept": "text/html"}) as client:
        client.post("/lists", data={"title": "Old", "features": "3", "do": "add"})
        sent = client.post(
            "/lists", data={"name": "old", "title": "New", "features": "5", "do": "add"}, follow_redirects=False
        )
        assert sent.headers["location"] == "/lists/new"
        client.post("/lists/add", data={"kind": "feature", "key": "7", "list": "old", "title": "Third"})
        lists = client.get("/api/v1/annotations/lists").json()["items"]
        assert {one["name"]: one["features"] for one in lists} == {"old": [3], "new": [5], "third": [7]}
