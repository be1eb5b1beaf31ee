"""The page of a sample in a real Chromium: several features at once, values where one points, a list within reach."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from backend.pages.sample.marks import MAX_CHOSEN, strongest_step
from backend.pages.sample.view import toggle
from tests.helpers.synthetic import word_feature

if TYPE_CHECKING:
    from fastapi.testclient import TestClient
    from playwright.sync_api import Browser, BrowserContext, Page

RED = word_feature("red")


@pytest.mark.parametrize("width", [390, 768, 1000, 1440])
def test_the_scores_fit_beside_the_image(context: BrowserContext, width: int) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/samples/s00000")
    assert page.get_by_test_id("scores").locator(".scroll").evaluate("one => one.scrollWidth - one.clientWidth") <= 0


@pytest.fixture
def red_sample(client: TestClient) -> dict[str, Any]:
    """The sample on whose image the feature of a word is strongest, with its strongest features on both sides."""
    one = client.get(f"/api/v1/features/{RED}/examples?modality=image&limit=1").json()["items"][0]
    return client.get(f"/api/v1/samples/{one['sample_id']}").json()


def firing(sample: dict[str, Any], n: int) -> list[int]:
    """Features that are on in the image of a sample, that of the word first."""
    others = [one["id"] for one in sample["top_features"]["image"] if one["id"] != RED]
    return [RED, *others][:n]


def test_a_sixth_feature_takes_the_place_of_the_oldest() -> None:
    assert toggle([], 7) == "7" and toggle([7], 7) is None
    assert toggle([1, 2, 3], 2) == "1,3"
    assert toggle([1, 2, 3, 4, 5], 9) == "2,3,4,5,9" and MAX_CHOSEN == 5


def test_a_place_has_the_hue_of_the_relatively_strongest_feature() -> None:
    assert strongest_step([2.0, 3.0, None], [2.0, 6.0, 1.0]) == (1, 8)
    assert strongest_step([0.5, 3.0], [2.0, 6.0]) == (2, 4)
    assert strongest_step([0.0, None], [2.0, 6.0]) == (0, 0) and strongest_step([], []) == (0, 0)


def test_every_part_of_a_row_selects_and_the_arrow_opens(context: BrowserContext, red_sample: dict[str, Any]) -> None:
    page = context.new_page()
    page.goto(f"/samples/{red_sample['sample_id']}")
    row = page.get_by_test_id("group-both").get_by_test_id("sample-feature").first
    number = row.get_attribute("data-feature")
    row.locator(".share").first.click(force=True)
    expect(page).to_have_url(re.compile(rf"f={number}$"))
    row.locator(".num").click(force=True)
    expect(page).not_to_have_url(re.compile("f="))
    row.get_by_label(f"Open feature {number}").click()
    expect(page).to_have_url(re.compile(rf"/features/{number}$"))


def test_several_features_have_a_number_and_a_hue_each(context: BrowserContext, red_sample: dict[str, Any]) -> None:
    page = context.new_page()
    first, second = firing(red_sample, 2)
    page.goto(f"/samples/{red_sample['sample_id']}?f={first},{second}")
    chips = page.get_by_test_id("chosen").locator("li")
    assert [one.inner_text().split()[0] for one in chips.all()] == ["1", "2"]
    numbers = page.get_by_test_id("hue-numbers").locator("text").all_text_contents()
    assert {part for one in numbers for part in one.split()} == {"1", "2"}
    hues = page.get_by_test_id("heat").locator("path").evaluate_all("all => all.map(one => one.classList[0])")
    assert set(hues) <= {"q1", "q2"} and hues
    reply = page.request.get(
        f"/api/v1/samples/{red_sample['sample_id']}/activations?feature={first}&feature={second}"
    ).json()
    for token in page.get_by_test_id("token").all():
        position = int(token.get_attribute("data-position") or -1)
        values = next(one["values"] for one in reply["tokens"] if one["position"] == position)
        drawn = token.locator("xpath=following-sibling::sup").locator("b").all_text_contents() if any(values) else []
        assert drawn[: sum(map(bool, values))] == [str(i) for i, value in enumerate(values, 1) if value]
    chips.first.get_by_label("Stop showing").click()
    expect(page).to_have_url(re.compile(rf"f={second}$"))
    page.go_back()
    expect(chips).to_have_count(2)


def test_a_sixth_feature_says_which_one_it_replaces(context: BrowserContext, red_sample: dict[str, Any]) -> None:
    page = context.new_page()
    five = firing(red_sample, 5)
    page.goto(f"/samples/{red_sample['sample_id']}?f={','.join(map(str, five))}")
    others = "".join(f":not([data-feature='{one}'])" for one in five)
    page.locator(f"[data-testid=sample-feature]{others} .share:visible").first.click(force=True)
    expect(page).to_have_url(re.compile(rf"f={'(,|%2C)'.join(map(str, five[1:]))}(,|%2C)\d+$"))
    expect(page.get_by_test_id("readout")).to_contain_text(f"feature {five[0]} is no longer")
    expect(page.locator("[aria-live=polite]")).to_contain_text(f"feature {five[0]} is no longer")


def test_why_opens_in_sight_with_the_focus_on_its_heading(context: BrowserContext, red_sample: dict[str, Any]) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 1280, "height": 500})
    page.goto(f"/samples/{red_sample['sample_id']}")
    page.locator("a.explain").last.click()
    heading = page.get_by_test_id("why").get_by_role("heading", level=2)
    expect(heading).to_be_focused()
    expect(heading).to_be_in_viewport()


def test_values_are_read_by_pointer_and_by_key(context: BrowserContext, red_sample: dict[str, Any]) -> None:
    page = context.new_page()
    page.goto(f"/samples/{red_sample['sample_id']}?f={RED}")
    grid = page.request.get(f"/api/v1/samples/{red_sample['sample_id']}/activations?feature={RED}").json()["grids"][0]
    places = [(value or 0, row, col) for row, line in enumerate(grid["values"][0]) for col, value in enumerate(line)]
    value, row, col = max(places)
    pad, line = page.get_by_test_id("patch-pad"), page.get_by_test_id("readout")
    box = pad.bounding_box()
    assert box
    x, y = box["width"] * (col + 0.5) / grid["cols"], box["height"] * (row + 0.5) / grid["rows"]
    pad.hover(position={"x": x, "y": y})
    expect(line).to_contain_text(f"row {row}, column {col}: ")
    expect(line).to_contain_text(f"{value:.2f}")
    status = page.locator("[aria-live=polite]")
    assert status.count() == 0  # what the pointer passes is shown, not announced
    pad.focus()
    page.keyboard.press("ArrowRight")
    expect(status).to_contain_text("row 0, column 0: ")
    token = page.get_by_test_id("token").first
    token.focus()
    expect(line).to_contain_text(f"“{token.inner_text()}”")
    expect(status).to_contain_text(f"“{token.inner_text()}”")


def tap(page: Page) -> None:
    box = page.get_by_test_id("patch-pad").bounding_box()
    assert box
    page.get_by_test_id("patch-pad").tap(position={"x": box["width"] / 2, "y": box["height"] / 2})


def test_on_a_phone_the_list_of_a_patch_is_in_sight(browser: Browser, base_url: str, sample_id: str) -> None:
    phone = browser.new_context(base_url=base_url, viewport={"width": 390, "height": 844}, has_touch=True)
    page = phone.new_page()
    page.goto(f"/samples/{sample_id}")
    tap(page)
    here = page.get_by_test_id("features-here")
    expect(here.get_by_role("heading")).to_be_in_viewport()
    assert page.evaluate("scrollY") == 0 and page.evaluate("document.documentElement.scrollWidth") == 390
    expect(page.get_by_test_id("patch-pad")).to_be_in_viewport()
    page.get_by_test_id("close-here").tap()
    expect(here).to_have_count(0)
    phone.close()


@pytest.mark.parametrize("query", ["f=one", "f=1,2,3,4,5,6"])
def test_a_wrong_list_of_features_is_one_sentence(client: TestClient, sample_id: str, query: str) -> None:
    reply = client.get(f"/samples/{sample_id}?{query}")
    assert reply.status_code == 422
    assert "f: give at most 5 whole numbers, separated by commas." in reply.text


def test_one_feature_by_its_older_name(client: TestClient, red_sample: dict[str, Any]) -> None:
    path = f"/samples/{red_sample['sample_id']}"
    parts = [client.get(f"{path}?{query}").text for query in (f"feature={RED}", f"f={RED}")]
    heats = [re.findall(r'<path class="h\d" d="[^"]+"', one) for one in parts]
    assert heats[0] == heats[1] != []


def test_features_that_are_alike_are_listed_at_their_link(client: TestClient) -> None:
    for sample in client.get("/api/v1/samples?limit=20").json()["items"]:
        page = client.get(f"/samples/{sample['sample_id']}").text
        if links := re.findall(r'href="([^"]+)"[^>]*data-testid="members">\+(\d+) alike', page):
            break
    assert links
    for link, n in links[:3]:
        listed = client.get(link.replace("&amp;", "&")).text
        assert listed.count('data-testid="feature-row"') == int(n) + 1
