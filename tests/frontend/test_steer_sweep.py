"""The sweep of strengths on the page of steering, beside random features that change h as much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.helpers.live_api import API, events
from tests.helpers.servers import page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def test_a_sweep_shows_each_strength_beside_a_random_feature(browser: Browser, live_url: str) -> None:
    from playwright.sync_api import expect

    with page_of(browser, live_url) as page:
        page.goto("/steer?feature=3:add:2&max_tokens=3")
        page.get_by_test_id("sweep-word").fill("dog")
        page.get_by_test_id("sweep-go").click()
        cells = {name: page.get_by_test_id(f"sweep-{name}") for name in ("feature", "random")}
        for name in cells:
            expect(cells[name]).to_have_count(cells["feature"].count())
        expect(page.get_by_test_id("sweep-target")).to_have_count(2 * cells["feature"].count(), timeout=60_000)
        expect(page.get_by_test_id("sweep-stop")).to_have_count(0, timeout=60_000)
        first = cells["feature"].first
        expect(first).to_contain_text("capped")  # of this random SAE every strength is
        link = first.locator("a.label")
        strength = str(link.text_content()).split()[0]
        link.click()
        page.wait_for_url(f"**feature=3%3Aadd%3A{strength}&target=dog*")
        expect(page.get_by_test_id("steer-strength")).to_have_value(strength)


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
