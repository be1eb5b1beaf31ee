"""A first-time user's way through the explorer, with the real model, store, server and browser."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.helpers.demo import Demo
from tests.helpers.servers import Server


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
    result = httpx.get(f"{server.url}/api/v1/search", params={"q": word}).raise_for_status().json()
    return [feature["id"] for feature in result["features"]]


def share_inside(server: Server, truth: dict[str, dict[str, Any]], feature: int, noun: str) -> float:
    """Of the feature's strongest patches, the share that the true box of such a thing covers by 40 % or more."""
    result = strongest(server, feature)
    inside = [is_inside(one["patch"]["box"], truth[one["sample_id"]], noun) for one in result]
    return sum(inside) / max(1, len(inside))


def strongest(server: Server, feature: int) -> list[dict[str, Any]]:
    query = {"modality": "image", "limit": 8}
    reply = httpx.get(f"{server.url}/api/v1/features/{feature}/examples", params=query)
    return list(reply.raise_for_status().json()["items"])


def is_inside(patch: list[float], row: dict[str, Any], noun: str) -> bool:
    """Does the true box of such a thing cover 40 % of the patch or more?"""
    x0, y0, x1, y1 = patch
    return any(
        max(0, min(x1, c) - max(x0, a)) * max(0, min(y1, d) - max(y0, b)) >= 0.4 * (x1 - x0) * (y1 - y0)
        for a, b, c, d in boxes_of(row, noun)
    )


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

    # A sample: what lights up strongest on the picture is drawn in the thing's true box.
    sample = next(
        one["sample_id"]
        for one in strongest(server, feature)
        if is_inside(one["patch"]["box"], truth[one["sample_id"]], noun)
    )
    page.locator(f'[data-testid="example"][data-sample="{sample}"] a').first.click()
    expect(page.get_by_test_id("sample")).to_be_visible()
    brightest = page.locator('[data-testid="heat"] path[class^="h"]').last
    drawn = brightest.evaluate("(p) => { const b = p.getBBox(); return [b.x, b.y, b.x + b.width, b.y + b.height]; }")
    assert is_inside(drawn, truth[sample], noun), (noun, sample, drawn)

    # And the feature steers.
    page.goto(f"/steer?sample={sample}&feature={feature}:add:2&max_tokens=8")
    page.get_by_test_id("steer-go").click()
    expect(page.get_by_test_id("steer-done")).to_be_visible()
    for channel in ("default", "steered"):
        assert page.get_by_test_id(f"out-{channel}").inner_text().strip()


def test_a_word_falls_without_the_feature_that_carried_it(page: Page, server: Server) -> None:
    """From a sample to its answer; the first feature ablated with keys, then a patch painted over too."""
    page.goto(f"/samples/{httpx.get(f'{server.url}/api/v1/samples?limit=1').json()['items'][0]['sample_id']}")
    page.get_by_test_id("why-answer").click()
    word = page.locator('[data-testid="answer-token"][aria-current] bdi')
    expect(word).to_be_visible()
    first = page.get_by_test_id("carrier").first
    assert first.locator(".signed .image").count() or first.locator(".signed .text").count()
    first.get_by_test_id("pick").focus()
    page.keyboard.press("Space")
    expect(page.locator("[data-picked]")).to_have_text("1 feature")
    page.get_by_test_id("explain-test").press("Enter")
    row = page.get_by_test_id("fate").filter(has=page.locator("bdi", has_text=word.inner_text())).first
    expect(row.get_by_test_id("below-each")).to_be_visible()  # it falls more than in each of the three random removals
    expect(page.get_by_test_id("test-says")).to_contain_text("nats")
    assert "ablate=" in page.url
    page.emulate_media(media="print")
    row, name = first.bounding_box(), first.locator(".name").bounding_box()
    assert row and name and name["width"] > row["width"] / 2  # without the box to tick, whose column it would take
    page.emulate_media(media="screen")
    pad = page.get_by_test_id("explain-pad")
    pad.focus()
    for key in ("ArrowDown", "ArrowDown", "Space"):
        page.keyboard.press(key)
    expect(page.get_by_test_id("patches")).to_have_value("0:1:0")
    box = pad.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.5, steps=8)
    page.mouse.up()
    expect(page.locator("[data-picked]")).to_contain_text(re.compile(r"1 feature, [3-9] patches"))
    page.get_by_test_id("explain-test").click()
    expect(page.get_by_test_id("answers")).to_contain_text(re.compile(r"Without 1 feature and [3-9] patches"))
    page.go_back()
    expect(page.get_by_test_id("answers")).to_contain_text(re.compile(r"Without 1 feature\b(?! and)"))


def test_a_dropped_picture_finds_features(page: Page, demo: Demo, truth: dict[str, dict[str, Any]]) -> None:
    row = next(r for r in truth.values() if not r["planted"] and len(r["entities"]) == 1)
    page.goto("/search")
    page.get_by_test_id("image-input").set_input_files(Path(demo.data / row["file_name"]))
    if not page.get_by_test_id("ranked").is_visible():
        page.get_by_test_id("search-button").click()
    expect(page.get_by_test_id("ranked")).to_be_visible()
    assert page.get_by_test_id("result-feature").count() >= 5
    assert page.get_by_test_id("nearest-samples").locator("li").count() >= 1


def test_a_moved_threshold_changes_the_flagged_samples_and_the_export(page: Page, server: Server) -> None:
    page.goto("/quality?flag=blank")
    before = int(page.get_by_test_id("flagged-count").inner_text().replace(",", ""))
    assert before >= 4, "the demo has planted blank pictures"
    page.get_by_test_id("threshold").fill("1000000")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("flagged-count")).to_have_text("0")
    page.get_by_test_id("threshold").fill("0.5")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("flagged-count")).to_have_text(re.compile("^[1-9][0-9,]*$"))  # no longer about
    over = int(page.get_by_test_id("flagged-count").inner_text().replace(",", ""))
    assert over >= before, "a lower threshold flags no fewer"
    n = httpx.get(f"{server.url}/api/v1/store").json()["n_samples"]
    assert len(exported(page, "export-flag")) == n - over

    page.goto("/quality?by=pooled-cosine&keep=20")
    remaining = int(page.get_by_test_id("kept").inner_text().replace(",", ""))
    assert len(exported(page, "export-keep")) == remaining == round(0.2 * n)


def exported(page: Page, link: str) -> list[str]:
    """Ids of the downloaded lines."""
    with page.expect_download() as download:
        page.get_by_test_id(link).click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_an_empty_form_of_steering_offers_features_that_agree(page: Page, server: Server) -> None:
    page.goto(server.url + "/steer")
    offers = page.get_by_test_id("steer-suggestions").get_by_role("link")
    query = {"verdict": "cross-modal", "sort": "evidence", "order": "desc", "fold": "names", "limit": 4}
    expected = httpx.get(f"{server.url}/api/v1/features", params=query).json()["items"]
    assert [one.get_attribute("href") for one in offers.all()] == [f"/steer?feature={one['id']}" for one in expected]
    offers.first.click()
    expect(page.get_by_test_id("steer-number")).to_be_visible()
    expect(page.get_by_test_id("steer-suggestions")).to_have_count(0)
    page.get_by_test_id("steer-go").click()  # the first try changes the answer, and the answer does not repeat itself
    expect(page.get_by_test_id("steer-done")).to_be_visible(timeout=60_000)
    default, steered = (page.get_by_test_id(f"out-{name}").inner_text().split() for name in ("default", "steered"))
    assert steered != default and max(map(steered.count, steered)) <= 2, (default, steered)
