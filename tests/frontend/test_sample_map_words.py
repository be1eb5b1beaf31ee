"""What the map of samples says: its filters and colours in words, the lasso, and the lists it leads to."""

import re
from itertools import combinations

import numpy as np
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext, expect

from precompute.store import mapfile
from tests.helpers.colours import COLOUR_BLIND, linear, oklab, palette
from tests.helpers.map_page import ALL_SAMPLES, drawn, lonely, number, opened, place
from tests.helpers.touch import PHONE, stroke


@pytest.mark.parametrize("match", ["any", "all"])
def test_from_the_list_the_map_says_whether_any_or_all_flags_are_needed(context: BrowserContext, match: str) -> None:
    page = context.new_page()
    page.goto("/samples?flags=mismatch&flags=blank" + ("&match=any" if match == "any" else ""))
    total = number(page.get_by_test_id("total").inner_text()) if page.get_by_test_id("as-map").count() else 0
    page.goto(page.url.replace("/samples?", "/map?of=samples&"))
    drawn(page)
    expect(page.get_by_test_id(f"match-{match}")).to_be_checked()
    if total:
        expect(page.get_by_test_id("found-total")).to_have_text(re.compile(f"^{total:,} "))
    page.get_by_test_id("match-any" if match == "all" else "match-all").check()
    expect(page).to_have_url(re.compile("match=any") if match == "all" else re.compile("^((?!&match=).)*$"))
    page.locator(".map-search input[name=flags]:checked").first.uncheck()
    expect(page).to_have_url(re.compile("^((?!flags=.*flags=).)*$"))
    expect(page.get_by_test_id("match-any" if match == "all" else "match-all")).to_be_checked()


def test_a_score_as_colour_is_explained_shown_and_orders_the_list(
    context: BrowserContext, sample_map: mapfile.SampleMap
) -> None:
    row = lonely(sample_map)
    page = opened(context, f"/map?of=samples&q=red&row={row}&view=0.5,0.5,1")
    sample = page.request.get(f"/api/v1/samples?rows={row}").json()["items"][0]
    about = page.get_by_test_id("map-about")
    expect(about).to_contain_text("How many flags")
    expect(page.get_by_test_id("chosen-score")).to_have_count(0)
    page.get_by_test_id("map-colour").select_option("pooled-cosine")
    expect(about).to_contain_text("Cosine of the image's and the text's feature vectors")
    expect(about).to_contain_text("Low values are worse")
    score = f"pooled-cosine {sample['scores']['pooled-cosine']:.3g}".replace("-0", "−0")
    expect(page.get_by_test_id("chosen-score")).to_have_text(score)
    page.mouse.move(*place(page, sample_map, row))
    expect(page.get_by_test_id("map-tip")).to_contain_text(score)
    page.get_by_test_id("found-list").click()
    expect(page).to_have_url(re.compile("sort=pooled-cosine&order=asc"))
    worst = page.request.get("/api/v1/samples?q=red&sort=pooled-cosine&order=asc&limit=60").json()["items"]
    cards = page.get_by_test_id("sample-card")
    expect(cards).to_have_count(len(worst))
    ids = cards.evaluate_all("all => all.map((one) => one.dataset.sample)")
    assert ids == [one["sample_id"] for one in worst]
    page.get_by_test_id("as-map").click()
    drawn(page)
    expect(page.get_by_test_id("map-colour")).to_have_value("pooled-cosine")
    flag = page.locator("#map-colour option[data-kind=flag]").first.get_attribute("value") or ""
    page.get_by_test_id("map-colour").select_option(flag)
    expect(about).to_contain_text("High values are worse")
    assert f"sort={flag}&order=desc" in (page.get_by_test_id("found-list").get_attribute("href") or "")


@pytest.mark.parametrize("address", ["/map", ALL_SAMPLES])
def test_the_lasso_says_what_to_do_and_hides_the_tooltip(context: BrowserContext, address: str) -> None:
    page = opened(context, address)
    hint, tip = page.get_by_test_id("map-hint"), page.get_by_test_id("map-tip")
    expect(hint).to_be_hidden()
    page.get_by_test_id("map-canvas").focus()
    page.keyboard.press("ArrowRight")
    expect(tip).to_be_visible()
    page.keyboard.press("l")
    expect(hint).to_have_text("Draw around the points; Enter takes all in view; Esc ends it")
    expect(hint).to_be_visible()
    expect(tip).to_be_hidden()
    page.keyboard.press("Escape")
    expect(hint).to_be_hidden()


def test_on_a_phone_the_list_of_an_area_comes_into_view(
    browser: Browser, base_url: str, sample_map: mapfile.SampleMap
) -> None:
    phone = browser.new_context(base_url=base_url, **PHONE)
    page = opened(phone, ALL_SAMPLES)
    page.get_by_test_id("map-canvas").scroll_into_view_if_needed()
    page.touchscreen.tap(*place(page, sample_map, lonely(sample_map)))
    expect(page.get_by_test_id("map-tip")).to_be_visible()
    page.get_by_test_id("map-lasso").tap()
    expect(page.get_by_test_id("map-tip")).to_be_hidden()
    expect(page.get_by_test_id("map-hint")).to_have_text(re.compile("^Draw around the points"))
    box = page.get_by_test_id("map-canvas").bounding_box()
    assert box
    x, y, r = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, box["height"] / 3
    stroke(page, [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)])
    heading = page.get_by_test_id("area").locator("h2")
    expect(heading).to_contain_text("in this area")
    expect(heading).to_be_in_viewport()
    phone.close()


def test_the_legend_of_flags_has_no_less_than_one(context: BrowserContext) -> None:
    page = opened(context, ALL_SAMPLES)
    expect(page.get_by_test_id("map-ramp").locator("[data-low]")).to_have_text("flags: 1")
    flag = page.locator("#map-colour option[data-kind=flag]").first.get_attribute("value") or ""
    page.get_by_test_id("map-colour").select_option(flag)
    expect(page.get_by_test_id("map-flag")).to_have_text("has the flag without the flag not judged")


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_colours_of_a_flag_are_told_apart_by_everybody(theme: int) -> None:
    colours = palette(theme)
    points = [linear(colours[f"map-{kind}"]) for kind in ("flagged", "none", "unjudged")]
    for sight in (np.eye(3), *map(np.array, COLOUR_BLIND.values())):
        labs = [oklab((sight @ one).clip(0, 1)) for one in points]
        assert min(float(np.linalg.norm(a - b)) for a, b in combinations(labs, 2)) > 0.15  # .02 is just seen


def test_other_filters_have_their_values_and_a_side_only_with_a_feature(client: TestClient) -> None:
    page = client.get("/map?of=samples&feature=2&side=text-only&tag=to-look&by=cosine&min_score=-0.5&max_length=9").text
    assert (
        "Also filtered by tag to-look, feature 2 in the caption but not on the image, cosine from −0.5, "
        "captions to 9 tokens:" in page
    )
    assert "Also filtered" not in client.get("/map?of=samples&q=red&side=text").text
    link = client.get("/samples?q=red&side=text").text.split('data-testid="as-map"')[0].rpartition("<a")[2]
    assert "q=red" in link and "side=" not in link


def test_apply_names_a_side_only_with_a_feature(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/samples")
    page.get_by_test_id("side").select_option("text")
    page.get_by_test_id("q").fill("red")
    expect(page).to_have_url(re.compile(r"/samples\?q=red"))
    assert "side" not in page.url
    page.get_by_test_id("feature").fill("2")
    page.get_by_test_id("feature").press("Enter")
    expect(page).to_have_url(re.compile("feature=2&side=text"))


def test_an_unknown_colour_is_answered_with_those_of_the_select(client: TestClient) -> None:
    options = re.findall(r'<option value="([^"]+)" title', client.get(ALL_SAMPLES).text)
    answer = client.get(f"{ALL_SAMPLES}&colour=zzz")
    assert answer.status_code == 422
    named = re.search(r"colour: choose ([^<]+)\.", answer.text)
    assert named and re.split(", | or ", named[1]) == options
    for one in client.get("/api/v1/flags").json()["items"]:  # a list sorted by a flag that no sample has leads here
        assert f'value="{one["name"]}"' in client.get(f"{ALL_SAMPLES}&colour={one['name']}").text
