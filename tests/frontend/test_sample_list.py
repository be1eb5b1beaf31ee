"""The list of samples in a real Chromium: filters in the address, and the export of what is ticked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pytest
from playwright.sync_api import expect

from tests.helpers.synthetic import word_feature

if TYPE_CHECKING:
    from fastapi.testclient import TestClient
    from playwright.sync_api import Browser, BrowserContext, Page

RED = word_feature("red")
API = "/api/v1"


def shown(page: Page) -> list[str | None]:
    return [one.get_attribute("data-sample") for one in page.get_by_test_id("sample-card").all()]


def test_filters_are_in_the_address_and_back_undoes_them(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/samples")
    page.get_by_test_id("flag-mismatch").check()
    expect(page).to_have_url(re.compile("flags=mismatch"))
    page.get_by_test_id("flag-unsupported").check()
    expect(page).to_have_url(re.compile("flags=mismatch.*flags=unsupported"))
    both = page.get_by_test_id("total").inner_text()
    page.get_by_test_id("match-any").check()
    expect(page).to_have_url(re.compile("match=any"))
    expect(page.get_by_test_id("total")).not_to_have_text(both)
    reply = page.request.get(f"{API}/samples?flags=mismatch,unsupported&match=any&limit=60").json()
    assert shown(page) == [one["sample_id"] for one in reply["items"]]
    page.go_back()
    expect(page.get_by_test_id("match-all")).to_be_checked()
    expect(page.get_by_test_id("total")).to_have_text(both)
    page.go_back()
    expect(page.get_by_test_id("flag-unsupported")).not_to_be_checked()


def test_a_feature_on_one_side_and_a_range_of_a_score(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/samples")
    page.get_by_test_id("feature").fill(str(RED))
    page.get_by_test_id("feature").press("Tab")
    expect(page.get_by_test_id("feature-filter")).to_contain_text("fires on the image")
    page.get_by_test_id("side").select_option("both")
    expect(page).to_have_url(re.compile("side=both"))
    expect(page.get_by_test_id("feature-filter")).to_contain_text("on the image and in the caption")
    page.get_by_test_id("range").locator("summary").click()
    page.get_by_test_id("by").select_option("pooled-cosine")
    expect(page.get_by_test_id("range").locator("rect")).not_to_have_count(0)
    page.get_by_test_id("min-score").fill("0.6")
    page.get_by_test_id("min-score").press("Tab")
    expect(page).to_have_url(re.compile("min_score=0.6"))
    expect(page.get_by_test_id("range").locator("rect.left")).not_to_have_count(0)
    query = f"feature={RED}&side=both&by=pooled-cosine&min_score=0.6&limit=60"
    reply = page.request.get(f"{API}/samples?{query}").json()
    assert shown(page) == [one["sample_id"] for one in reply["items"]] != []
    address = page.url
    page.goto("/")
    page.goto(address)  # as someone opens it to whom it was sent
    assert shown(page) == [one["sample_id"] for one in reply["items"]]
    expect(page.get_by_test_id("side")).to_have_value("both")


@pytest.mark.parametrize("scripts", [True, False])
def test_ticked_samples_are_exported(browser: Browser, base_url: str, tmp_path: Path, scripts: bool) -> None:
    context = browser.new_context(base_url=base_url, java_script_enabled=scripts)
    page = context.new_page()
    page.goto("/samples?sort=cosine&order=desc")
    ticks = page.get_by_test_id("tick")
    for at in (0, 2):
        ticks.nth(at).check()
    wanted = {shown(page)[at] for at in (0, 2)}
    with page.expect_download() as download:
        page.get_by_test_id("export-ticked").click()
    download.value.save_as(tmp_path / "ticked")
    lines = [json.loads(line) for line in (tmp_path / "ticked").read_text().splitlines()]
    assert {line["id"] for line in lines} == wanted and len(lines) == 2
    assert re.search(r"-2-samples\.jsonl$", download.value.suggested_filename)
    page.goto("/samples?q=red&feature=0&side=text")
    every = shown(page)
    page.get_by_test_id("tick").nth(1).check()
    with page.expect_download() as download:
        page.get_by_test_id("export-unticked").click()
    download.value.save_as(tmp_path / "others")
    lines = [json.loads(line) for line in (tmp_path / "others").read_text().splitlines()]
    assert {line["id"] for line in lines} == {*every} - {every[1]} and 1 < len(every) < 60
    page.get_by_test_id("basket-ticked").click()
    if not scripts:  # the filter is no feature of the basket
        expect(page).to_have_url(re.compile(r"/basket\?sample="))
    context.close()


def test_exports_hold_exactly_what_the_filters_choose(client: TestClient) -> None:
    query = "flags=mismatch,unsupported&match=any&by=cosine&max_score=3"
    listed = client.get(f"{API}/samples?{query}&limit=500").json()
    lines = client.get(f"{API}/export?{query}").text.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [one["sample_id"] for one in listed["items"]] != []
    assert all(json.loads(line)["cosine"] <= 3 for line in lines)
    ids = client.get(f"{API}/export?{query}&format=ids").text.split()
    assert ids == [one["sample_id"] for one in listed["items"]]
    nothing = client.get(f"{API}/export?ticked=1", headers={"accept": "application/json"})
    assert nothing.status_code == 422 and nothing.json()["detail"].startswith("No sample is ticked: tick")
    ticked = [("id", one) for one in ids[:2]]
    others = client.get(f"{API}/export", params=[*parse_qsl(f"{query}&format=ids&leave_out=1"), *ticked]).text
    assert others.split() == ids[2:]


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("min_score=0.5", 400, "A range needs the name of its score in <code>by</code>"),
        ("feature=99999", 404, "There is no feature 99999"),
        ("flags=bad&match=any", 400, "Unknown flag &#39;bad&#39;"),
    ],
)
def test_wrong_filters_are_one_sentence(client: TestClient, query: str, status: int, sentence: str) -> None:
    reply = client.get(f"/samples?{query}")
    assert reply.status_code == status and sentence in reply.text


@pytest.mark.parametrize("width", [320, 390, 768, 900])
def test_filters_fit_the_window(context: BrowserContext, width: int) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"/samples?by=cosine&min_score=1&feature={RED}&side=image-only")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
