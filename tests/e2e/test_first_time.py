"""A first-time user's way through the explorer, with the real model, store, server and browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Demo, Server


@pytest.fixture(scope="module")
def truth(demo: Demo) -> dict[str, dict[str, Any]]:
    """Rows of the demo's metadata by id: what stands where in each picture."""
    lines = (demo.data / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def boxes_of(row: dict[str, Any], word: str) -> list[list[float]]:
    return [e["box"] for e in row["entities"] if word in (e["noun"], e["colour"])]


def labelled(server: Server, verdicts: tuple[str, ...] = ("cross-modal",)) -> list[dict[str, Any]]:
    """Features by label over the API, the ones that fire most widely first."""
    out = []
    for verdict in verdicts:
        reply = httpx.get(
            f"{server.url}/api/v1/features",
            params={"verdict": verdict, "sort": "n_samples", "order": "desc", "limit": 100},
        )
        out += reply.raise_for_status().json()["items"]
    return out


def a_thing(server: Server, truth: dict[str, dict[str, Any]]) -> tuple[str, int]:
    """A noun of the scenes, and a cross-modal feature that bears its name and lights up on it: its strongest
    patches lie in the thing's true box, which few patches do by chance (docs/demo.md: box share)."""
    nouns = {e["noun"] for row in truth.values() for e in row["entities"] if e["colour"] is None}
    for feature in labelled(server):
        noun, id = feature["label"], feature["id"]
        if noun in nouns and share_inside(server, truth, id, noun) >= 0.75 and id in found_by_word(server, noun):
            return noun, id
    pytest.fail("no feature lights up on the thing that it is labelled with")


def found_by_word(server: Server, word: str) -> list[int]:
    found = httpx.get(f"{server.url}/api/v1/search", params={"q": word}).raise_for_status().json()
    return [feature["id"] for feature in found["features"]]


def share_inside(server: Server, truth: dict[str, dict[str, Any]], feature: int, noun: str) -> float:
    """Of the feature's strongest patches, the share that the true box of such a thing covers by 40 % or more."""
    asked = {"modality": "image", "limit": 8}
    found = httpx.get(f"{server.url}/api/v1/features/{feature}/examples", params=asked).raise_for_status().json()
    inside = 0
    for example in found["items"]:
        x0, y0, x1, y1 = example["patch"]["box"]
        inside += any(
            max(0, min(x1, c) - max(x0, a)) * max(0, min(y1, d) - max(y0, b)) >= 0.4 * (x1 - x0) * (y1 - y0)
            for a, b, c, d in boxes_of(truth[example["sample_id"]], noun)
        )
    return inside / max(1, len(found["items"]))


def test_word_to_feature_to_patch_to_partner_to_sample_to_steer(
    page: Page, server: Server, truth: dict[str, dict[str, Any]]
) -> None:
    noun, feature = a_thing(server, truth)
    page.goto("/")
    page.get_by_test_id("front-search").fill(noun)
    page.keyboard.press("Enter")
    page.locator(f'[data-testid="word-features"] [data-feature="{feature}"] a.label').first.click()
    expect(page.get_by_test_id("feature-label")).to_have_text(noun)

    expect(page.get_by_test_id("example").first).to_be_visible()

    # A partner leads to another feature's page.
    partner = page.get_by_test_id("partner").locator("a.label").first
    name = partner.inner_text()
    partner.click()
    expect(page.get_by_test_id("feature-label")).to_contain_text(name.split("#")[0].strip())
    page.go_back()

    # A sample: the patch lights in the thing's true box.
    sample = page.get_by_test_id("example").first.get_attribute("data-sample")
    assert sample is not None
    page.get_by_test_id("example").first.locator("a").first.click()
    expect(page.get_by_test_id("sample")).to_be_visible()
    strongest = page.locator('[data-testid="heat"] path').last
    expect(strongest).to_be_attached()

    # And the feature steers.
    page.goto(f"/steer?sample={sample}&feature={feature}:add:2&max_tokens=8")
    page.get_by_test_id("steer-go").click()
    expect(page.get_by_test_id("steer-done")).to_be_visible(timeout=60_000)
    for channel in ("default", "steered"):
        assert page.get_by_test_id(f"out-{channel}").inner_text().strip()


def test_a_dropped_picture_finds_features(page: Page, demo: Demo, truth: dict[str, dict[str, Any]]) -> None:
    row = next(r for r in truth.values() if not r["planted"] and len(r["entities"]) == 1)
    page.goto("/search")
    page.get_by_test_id("image-input").set_input_files(Path(demo.data / row["file_name"]))
    if not page.get_by_test_id("ranked").is_visible():
        page.get_by_test_id("search-button").click()
    expect(page.get_by_test_id("ranked")).to_be_visible(timeout=30_000)
    assert page.get_by_test_id("result-feature").count() >= 5
    assert page.get_by_test_id("nearest-samples").locator("li").count() >= 1


def test_a_moved_threshold_changes_the_offenders_and_the_export(page: Page, server: Server) -> None:
    page.goto("/quality?flag=blank")
    before = int(page.get_by_test_id("offender-count").inner_text().replace(",", ""))
    assert before >= 4, "the demo has planted blank pictures"
    page.get_by_test_id("threshold").fill("1000000")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("offender-count")).to_have_text("0")
    page.goto("/quality?by=pooled-cosine&keep=20")
    kept = int(page.get_by_test_id("kept").inner_text().replace(",", ""))
    with page.expect_download() as download:
        page.get_by_test_id("export-keep").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == kept
    assert all("id" in json.loads(line) or "sample_id" in json.loads(line) for line in lines)
