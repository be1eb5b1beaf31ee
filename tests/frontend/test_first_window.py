"""What a page shows before one scrolls, and that controls which are of no use there stay away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.helpers.servers import page_of
from tests.helpers.synthetic import word_feature
from tests.helpers.touch import PHONE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

RED = word_feature("red")


def test_the_list_of_features_begins_with_rows(context: BrowserContext) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto("/features")
    row = page.get_by_test_id("feature-row")
    for at in range(4):
        expect(row.nth(at)).to_be_in_viewport(ratio=1)
    for name in ("key", "json-link"):  # what explains the list, and what leads out of it, stand below
        first = page.get_by_test_id("feature-table").bounding_box()
        other = page.get_by_test_id(name).first.bounding_box()
        assert first and other and other["y"] > first["y"] + first["height"]


def test_on_a_phone_lists_show_what_they_list(browser: Browser, base_url: str) -> None:
    """Filters that are used rarely are folded, and buttons come with the first tick."""
    with page_of(browser, base_url, **PHONE) as page:
        page.goto("/features")
        expect(page.get_by_test_id("feature-row").first.locator("a.label")).to_be_in_viewport(ratio=1)
        fold, button = page.get_by_test_id("fold"), page.get_by_test_id("steer-these")
        expect(fold).to_be_hidden()
        expect(button).to_be_hidden()
        page.get_by_role("checkbox", name="Select feature").first.check()
        expect(button).to_be_visible()
        page.get_by_test_id("more-filters").locator("summary").tap()
        fold.select_option("none")
        expect(page).to_have_url(re.compile("fold=none"))
        page.reload()
        expect(fold).to_be_visible()  # what is set is seen
        page.goto("/samples")
        expect(page.get_by_test_id("sample-card").first.locator("img")).to_be_in_viewport()
        expect(page.get_by_test_id("export-ticked")).to_be_hidden()
        page.get_by_test_id("tick").first.check()
        expect(page.get_by_test_id("export-ticked")).to_be_visible()


def test_on_a_phone_the_features_of_a_sample_follow_its_image(browser: Browser, base_url: str, sample_id: str) -> None:
    with page_of(browser, base_url, **PHONE) as page:
        page.goto(f"/samples/{sample_id}")
        names = ("stage-image", "group-both", "scores", "nearest")
        tops = [box["y"] for name in names if (box := page.get_by_test_id(name).bounding_box())]
        assert tops == sorted(tops) and len(tops) == len(names)
        page.set_viewport_size({"width": 1280, "height": 900})
        image, group, scores = (page.get_by_test_id(name).bounding_box() for name in names[:3])
        assert image and group and scores
        assert group["x"] > image["x"] + image["width"] and scores["x"] < group["x"] and scores["y"] > group["y"]


@pytest.mark.parametrize("path", ["/features", "/samples", "/quality", "/cooccurrence", "/rejected", "/sae", "/map"])
def test_no_link_to_json_stands_among_filters(context: BrowserContext, path: str) -> None:
    page = context.new_page()
    page.goto(path)
    assert page.locator(".chips .tool").count() == 0


def test_on_a_phone_features_to_steer_and_the_button_come_first(browser: Browser, base_url: str) -> None:
    with page_of(browser, base_url, **PHONE) as page:
        page.goto(f"/steer?feature={RED}:add:2&prompt=What+is+red")
        for name in ("steer-find", "steer-feature", "steer-go"):
            expect(page.get_by_test_id(name)).to_be_in_viewport(ratio=1)
        settings, prompt = page.get_by_test_id("steer-input"), page.get_by_test_id("steer-prompt")
        expect(settings.locator("summary")).to_contain_text("“What is red”")
        expect(prompt).to_be_hidden()
        settings.locator("summary").tap()
        prompt.fill("What is blue")
        expect(page).to_have_url(re.compile("prompt=What\\+is\\+blue"))
        settings.locator("summary").tap()
        expect(settings.locator("summary")).to_contain_text("“What is blue”")


def test_on_a_phone_the_input_is_open_where_something_is_wrong_with_it(browser: Browser, base_url: str) -> None:
    with page_of(browser, base_url, **PHONE) as page:
        page.goto("/steer?image=" + "0" * 64)
        expect(page.get_by_test_id("steer-note")).to_be_visible()


def test_before_an_answer_the_image_stands_beside_the_question(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/explain")
    ask, image = page.get_by_test_id("explain-ask").bounding_box(), page.get_by_test_id("explain-stage").bounding_box()
    form = page.locator("form[data-ask]").bounding_box()
    assert ask and image and form
    assert image["x"] > form["x"] + form["width"] and image["y"] < ask["y"]


@pytest.mark.parametrize("scripts", [True, False])
def test_a_patch_is_chosen_by_number_only_where_it_cannot_be_pointed_at(
    browser: Browser, base_url: str, sample_id: str, scripts: bool
) -> None:
    context = browser.new_context(base_url=base_url, java_script_enabled=scripts)
    page = context.new_page()
    page.goto(f"/samples/{sample_id}")
    form = page.locator(".patch-form")
    expect(form).to_be_visible(visible=not scripts)
    if not scripts:
        form.locator("[name=row]").fill("1")
        form.get_by_role("button").click()
        expect(page.get_by_test_id("features-here")).to_contain_text("row 1, column 0")
    context.close()


def test_keys_of_the_browser_stay_its_own_on_a_pad(context: BrowserContext, sample_id: str) -> None:
    page = context.new_page()
    page.goto(f"/samples/{sample_id}")
    pad = page.get_by_test_id("patch-pad")
    press = "(one, keys) => one.dispatchEvent(new KeyboardEvent('keydown', {cancelable: true, ...keys}))"
    assert pad.evaluate(press, {"key": "ArrowLeft", "altKey": True}) is True  # back in the history
    assert pad.evaluate(press, {"key": "ArrowLeft"}) is False


def test_on_a_phone_no_page_speaks_of_keys(browser: Browser, base_url: str) -> None:
    with page_of(browser, base_url, **PHONE) as page:
        for path in ("/", f"/features/{RED}", "/samples", "/cooccurrence", "/map", "/map?of=samples"):
            page.goto(path)
            keys = page.locator("main kbd").filter(visible=True).all_inner_texts()
            assert keys == [], path


def test_numbers_of_names_say_so_and_lead_to_numbers_of_features(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/features")
    n_features = page.request.get("/api/v1/features?limit=1").json()["total"]
    assert int(page.get_by_test_id("total").inner_text()) < n_features
    link = page.get_by_test_id("every-feature")
    expect(link).to_have_text("count features, not names")
    link.click()
    expect(page.get_by_test_id("total")).to_have_text(str(n_features))  # as the front page counts them
    expect(link).to_have_count(0)
