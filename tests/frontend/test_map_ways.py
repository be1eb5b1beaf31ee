"""Ways from the map and back, and what the map says of a point whose name does not come."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, expect

from precompute.store import mapfile
from tests.helpers.map_page import drawn, lonely, opened, place
from tests.helpers.synthetic import word_feature

RED = word_feature("red")


@pytest.fixture
def columns(pages_app: FastAPI) -> mapfile.FeatureMap:
    return mapfile.read_map(pages_app.state.saevx.default.path / mapfile.NAME)


def test_words_an_area_and_the_pinned_feature_come_back_from_the_list_of_a_verdict(context: BrowserContext) -> None:
    page = opened(context, f"/map?feature={RED}")
    page.get_by_test_id("map-q").fill("red")
    expect(page).to_have_url(re.compile(r"q=red.*view="))
    page.get_by_test_id("map-canvas").focus()
    for key in ("l", "Enter"):
        page.keyboard.press(key)
    expect(page).to_have_url(re.compile("area="))
    state = parse_qs(urlsplit(page.url).query)
    assert state.keys() >= {"q", "area", "feature", "view"}
    page.get_by_test_id("list-image-only").click()
    expect(page.get_by_test_id("feature-table")).to_be_visible()
    assert {"q", "area", "feature"} & parse_qs(urlsplit(page.url).query).keys() == set(), "the list is of the verdict"
    total = page.get_by_test_id("total").inner_text()
    page.get_by_test_id("sort").select_option("id")  # the form has them too
    expect(page).to_have_url(re.compile("sort=id"))
    expect(page.get_by_test_id("total")).to_have_text(total)
    page.get_by_test_id("on-map").click()
    drawn(page)
    back = parse_qs(urlsplit(page.url).query)
    assert {name: back[name] for name in ("q", "area", "feature")} == {
        name: state[name] for name in ("q", "area", "feature")
    }
    expect(page.get_by_test_id("map-q")).to_have_value("red")
    expect(page.get_by_test_id("found").locator(f'[data-feature="{RED}"]').first).to_be_visible()
    expect(page.get_by_test_id("area").locator("h2")).to_contain_text("in this area")
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-feature", str(RED))


def test_a_list_leads_back_to_a_map_that_shows_all_in_another_colour(context: BrowserContext) -> None:
    """Whose address has no view."""
    page = opened(context, "/map?colour=omega")
    page.get_by_test_id("list-image-only").click()
    page.get_by_test_id("on-map").click()
    drawn(page)
    assert parse_qs(urlsplit(page.url).query) == {"colour": ["omega"]}


@pytest.mark.parametrize("of", ["features", "samples"])
def test_a_name_that_does_not_come_is_asked_for_again(
    browser: Browser, base_url: str, columns: mapfile.FeatureMap, sample_map: mapfile.SampleMap, of: str
) -> None:
    """The tooltip has the number, says that the name did not come, and the next look at the point brings it."""
    offline = browser.new_context(base_url=base_url, viewport={"width": 1440, "height": 900})
    page = offline.new_page()
    page.route(re.compile(rf"/api/v1/{of}\?"), lambda route: route.abort())
    page.goto(f"/map?of={of}")
    drawn(page)
    points = columns if of == "features" else sample_map
    at, tip = place(page, points, lonely(points)), page.get_by_test_id("map-tip")
    page.mouse.move(*at)
    expect(tip).to_contain_text("did not come")
    expect(tip).to_contain_text(f"{'#' if of == 'features' else 'row '}{lonely(points)}")
    expect(tip).not_to_contain_text("…")
    page.unroute(re.compile(rf"/api/v1/{of}\?"))
    page.mouse.move(at[0], at[1] - 40)
    page.mouse.move(*at)
    expect(tip).not_to_contain_text("did not come")
    expect(tip.locator("strong, bdi")).to_have_text(re.compile(r"\w"))
    offline.close()
