"""Several runs at once on the page of steering, beside random features that change h as much; tokens and patches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from tests.helpers.live_api import API, events
from tests.helpers.servers import page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def finished(page: Page) -> None:
    page.locator("[data-testid=sweep][data-running=no]").wait_for(timeout=60_000)


@pytest.fixture(scope="module")
def page(browser: Browser, live_url: str) -> Iterator[Page]:
    with page_of(browser, live_url) as one:
        yield one


def test_a_sweep_shows_each_strength_beside_a_random_feature(page: Page) -> None:
    from playwright.sync_api import expect

    page.goto("/steer?feature=3:add:2&max_tokens=3")
    page.get_by_test_id("sweep-word").fill("dog")
    page.get_by_test_id("many-strengths").click()
    cells = {name: page.get_by_test_id(f"sweep-{name}") for name in ("feature", "random")}
    finished(page)
    n = cells["feature"].count()
    assert n  # one alone where each is capped to the same
    expect(cells["random"]).to_have_count(n)
    expect(page.get_by_test_id("sweep-target")).to_have_count(2 * n)
    first = cells["feature"].first
    expect(first).to_contain_text("capped")  # of this random SAE every strength is
    texts = cells["feature"].all_inner_texts()
    page.reload()  # the address names it: it runs again, from the server's cache
    finished(page)
    assert cells["feature"].all_inner_texts() == texts
    link = first.locator("a.label")
    strength = str(link.text_content()).split()[0]
    link.click()
    page.wait_for_url(f"**feature=3%3Aadd%3A{strength}&target=dog*")
    expect(page.get_by_test_id("steer-strength")).to_have_value(strength)


def test_features_are_ranked_by_the_gain_of_the_target_or_by_kl(page: Page, live_url: str) -> None:
    from playwright.sync_api import expect

    for target in ("dog", ""):
        page.goto(
            f"/steer?feature=3:add:2&feature=5:add:1&feature=7:ablate:0&sample=pair-1&max_tokens=3&target={target}"
        )
        page.get_by_test_id("many-features").click()
        finished(page)
        rows = page.get_by_test_id("ranked")
        expect(rows).to_have_count(3)
        values = [float(one.replace("−", "-")) for one in page.get_by_test_id("ranked-value").all_inner_texts()]
        assert values == sorted(values, reverse=True)
        body: dict[str, Any] = {"prompt": "What is in the image?", "sample_id": "pair-1", "max_tokens": 3}
        body |= {"scope": ["image", "prompt"]} | ({"target": target} if target else {})
        first = int(str(rows.first.get_attribute("data-feature")))
        edit = {3: ("add", 2), 5: ("add", 1), 7: ("ablate", 0)}[first]
        candidate = {"features": [{"id": first, "mode": edit[0], "strength": edit[1]}]}
        reply = httpx.post(live_url + API + "/steer", json={**body, "candidates": [candidate]}, timeout=60)
        (run,) = reply.json()["runs"]
        gain = np.log(run["target"]["p_steered"] / run["target"]["p_default"]) if target else run["mean_kl"]
        assert values[0] == pytest.approx(gain, abs=0.011)


def test_seeds_say_how_many_answers_hold_the_target(page: Page) -> None:
    from playwright.sync_api import expect

    page.goto("/steer?feature=3:add:2&sample=pair-1&max_tokens=3&target=a")
    expect(page.get_by_test_id("many-seeds")).to_be_disabled()
    page.goto("/steer?feature=3:add:2&sample=pair-1&max_tokens=3&target=a&temperature=1&seed=4&many=seeds")
    finished(page)
    answers = page.get_by_test_id("seed")
    expect(answers).to_have_count(8)
    expect(answers.first).to_contain_text("Seed 4")
    steered = answers.locator(".sweep-answer").all_inner_texts()
    n = sum("a" in text.lower() for text in steered)
    expect(page.get_by_test_id("seed-shares")).to_contain_text(f"stands in {n} of 8 steered answers")


def test_a_token_tells_its_log_probability_in_both_models(page: Page, live_url: str) -> None:
    from playwright.sync_api import expect

    page.goto("/steer?feature=3:add:2&sample=pair-1&max_tokens=4")
    page.get_by_test_id("steer-go").click()
    expect(page.get_by_test_id("steer-done")).to_be_visible()
    body = {"prompt": "What is in the image?", "features": [{"id": 3, "strength": 2}], "sample_id": "pair-1"}
    body |= {"scope": ["image", "prompt"]}
    reply = httpx.post(live_url + API + "/steer", json={**body, "max_tokens": 4, "alternatives": 5}, timeout=60)
    tokens = [data for name, data in events(reply) if name == "token" and data["channel"] == "steered"]
    first = page.get_by_test_id("token-steered").first
    number = int(str(first.get_attribute("data-token")))
    first.click()
    detail = page.get_by_test_id("token-detail")
    for one in (tokens[number]["logprob"], tokens[number]["other_logprob"]):
        expect(detail).to_contain_text(f"log p −{abs(one):.2f}")
    expect(detail.locator("ol.likely > li")).to_have_count(10)
    last = page.get_by_test_id("token-default").last
    last.focus()
    expect(detail).to_contain_text(f"Token {int(str(last.get_attribute('data-token'))) + 1} of the default answer")


def test_only_chosen_patches_are_steered_and_stand_in_the_address(page: Page, made: Path) -> None:
    from playwright.sync_api import expect

    page.goto("/steer?feature=3:add:2&sample=pair-1&max_tokens=2&scope=image")
    page.get_by_test_id("steer-paint").click()
    pad = page.get_by_test_id("steer-pad")
    expect(pad).to_be_visible()
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 12, box["y"] + 12)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 12, steps=12)
    page.mouse.up()
    expect(page.get_by_test_id("steer-patches")).to_contain_text("Steers at 3 patches")
    page.wait_for_url("**mask=0%3A0%3A0-2*")
    page.reload()
    expect(pad).to_be_visible()
    pad.focus()
    for key in ("ArrowDown", "ArrowDown", "Space"):  # the first shows where one is
        page.keyboard.press(key)
    page.wait_for_url("**mask=0%3A0%3A0-2%2C0%3A1%3A0*")
    page.get_by_test_id("steer-go").click()
    expect(page.get_by_test_id("steer-done")).to_contain_text("over 4 tokens")
    page.get_by_test_id("steer-all-patches").click()
    expect(page.get_by_test_id("steer-paint")).to_be_visible()
    expect(page).not_to_have_url(re.compile("mask="))

    page.get_by_test_id("steer-image").set_input_files(made / "data" / "005.png")  # whose patches only the model knows
    page.wait_for_url("**image=*")
    page.get_by_test_id("steer-paint").click()
    expect(pad).to_be_visible()
    pad.focus()
    for key in ("ArrowRight", "Space"):
        page.keyboard.press(key)
    page.wait_for_url("**mask=0%3A0%3A0*")


def test_by_touch_from_a_word_to_a_sweep_and_its_link(browser: Browser, live_url: str) -> None:
    """At 390 px: word, feature, steering, sweep, and the same from its address elsewhere."""
    from playwright.sync_api import expect

    listed = httpx.get(live_url + API + "/features?sort=evidence&order=desc&limit=50").json()["items"]
    word = next(word for one in listed for word in re.findall("[a-z]+", one["label"] or "") if one["verdict"] != "dead")
    touch: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    with page_of(browser, live_url, **touch) as page:
        page.goto("/search")
        page.get_by_test_id("q").fill(word)
        page.keyboard.press("Enter")
        page.get_by_test_id("word-features").locator("a.label").first.tap()
        page.wait_for_url("**/features/*")
        page.locator("a.btn", has_text="Steer").first.tap()
        page.wait_for_url("**/steer?*")
        strength = page.get_by_test_id("steer-strength").input_value()
        page.get_by_test_id("sweep-word").fill("dog")
        page.get_by_test_id("many-strengths").tap()
        finished(page)
        cells = page.get_by_test_id("sweep-feature")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        height_of = "all => all.map((one) => one.getBoundingClientRect().height)"
        assert min(page.locator(".many button").evaluate_all(height_of)) >= 24
        texts, address = cells.all_inner_texts(), page.url
        assert "many=strengths" in address and float(strength) > 0 and texts
    with page_of(browser, live_url, **touch) as other:
        other.goto(address)
        finished(other)
        expect(other.get_by_test_id("sweep-word")).to_have_value("dog")
        assert other.get_by_test_id("sweep-feature").all_inner_texts() == texts


def test_the_api_names_the_random_feature_and_the_probability_of_the_target(live_url: str) -> None:
    body = {"prompt": "a red dog", "features": [{"id": 3, "strength": 2}], "max_tokens": 2, "sample_id": "pair-1"}
    feature, random = (
        events(httpx.post(live_url + API + "/steer", json={**body, "target": "dog", **more}, timeout=60))
        for more in ({}, {"control": 0})
    )
    done = [next(data for name, data in one if name == "done") for one in (feature, random)]
    assert done[0]["control"] is None and done[1]["control"] not in (None, 3)
    target = [next(data for name, data in one if name == "target") for one in (feature, random)]
    assert target[0]["p_default"] == pytest.approx(target[1]["p_default"], abs=1e-6)
    assert all(0 < one[name] < 1 for one in target for name in ("p_default", "p_steered"))
    assert [name for name, _ in feature][:1] in (["target"], ["waiting"])


def test_frozen_attention_is_in_the_address_and_in_every_run(page: Page, live_url: str) -> None:
    from playwright.sync_api import expect

    page.goto("/steer?feature=3:add:2&sample=pair-1&max_tokens=3")
    expect(page.get_by_test_id("steer-frozen")).not_to_be_checked()
    page.get_by_test_id("steer-frozen").focus()
    page.keyboard.press("Space")
    page.wait_for_url("**attention=frozen*")
    with page.expect_request("**/api/v1/steer") as sent:
        page.get_by_test_id("steer-go").click()
    assert sent.value.post_data_json["attention"] == "frozen"
    expect(page.get_by_test_id("steer-done")).to_be_visible()
    page.reload()
    expect(page.get_by_test_id("steer-frozen")).to_be_checked()
    body: dict[str, Any] = {"prompt": "What is in the image?", "sample_id": "pair-1", "max_tokens": 3}
    edit = [{"features": [{"id": 3, "mode": "add", "strength": 2}]}]
    replies = [
        httpx.post(live_url + API + "/steer", json={**body, "candidates": edit, "attention": one}, timeout=60).json()
        for one in ("free", "frozen")
    ]
    kl = [reply["runs"][0]["kl"][0]["kl"] for reply in replies]
    assert kl[0] != pytest.approx(kl[1], rel=1e-3) and min(kl) > 0
    texts = [reply["runs"][0]["text"]["default"] for reply in replies]
    assert texts[0] == texts[1]


def test_a_strength_is_a_slider_and_a_number_with_its_ends_and_its_cap(page: Page, live_url: str) -> None:
    from playwright.sync_api import expect

    start = httpx.get(live_url + API + "/steer/start?feature=3").json()
    page.goto("/steer?feature=3")
    number, slider = page.get_by_test_id("steer-number"), page.get_by_test_id("steer-strength")
    expect(number).to_have_value(f"{start['strength']:g}")
    number.fill("1.5")
    expect(slider).to_have_value("1.5")
    page.wait_for_url("**feature=3%3Aadd%3A1.5*")
    slider.press("ArrowRight")
    expect(number).to_have_value("1.75")
    expect(page.get_by_test_id("steer-ends")).to_have_text(re.compile(r"^−\d+0\d+$"))
    expect(page.get_by_test_id("steer-cap")).to_have_attribute("aria-label", re.compile("[Cc]ap"))
    number.fill("1000")  # beyond what the API takes
    page.wait_for_timeout(200)
    assert "1.75" in page.url
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_question_can_be_stopped_and_says_so(page: Page, made: Path) -> None:
    """The button by keys; a new question ends the one before."""
    from playwright.sync_api import expect

    page.goto("/explain?sample=pair-1&ask=1&max_tokens=2")
    expect(page.get_by_test_id("answer")).to_be_visible()

    held: list[Any] = []  # the server's answer takes its time
    page.route("**/explain?**", lambda route: held.append(route))
    page.get_by_test_id("explain-prompt").fill("what else is there")
    page.get_by_test_id("explain-ask").click()
    page.get_by_test_id("explain-stop").press("Enter")
    expect(page.get_by_test_id("explain-stopped")).to_contain_text("Cancelled: the model was stopped")
    expect(page.get_by_test_id("explain-stop")).to_have_count(0)
    page.unroute("**/explain?**")
    page.get_by_test_id("explain-ask").click()
    expect(page.get_by_test_id("explain-stopped")).to_have_count(0)
    expect(page).to_have_url(re.compile("what\\+else"))
