"""The measured effect over HTTP: what the API says, its page, and its panel in Chromium."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from backend.live.effects import CACHE
from backend.settings import Settings
from precompute.live.effect import N_PAIRS, choose_control, measure_effect, strongest_samples
from precompute.live.originals import Originals
from precompute.store.reader import Store
from tests.helpers.running import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

API = "/api/v1"
PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def running(made: Path) -> Iterator[Running]:
    with Running(Settings(stores=[made / "store"], device="cpu")) as server:
        yield server


@pytest.fixture(scope="module")
def feature(made: Path) -> int:
    """The feature that fires in most samples."""
    items: list[dict[str, Any]] = Store.open(made / "store").features.list(sort="n_samples", order="desc").items
    return int(items[0]["id"])


def page(server: Running, path: str) -> str:
    reply = httpx.get(server.url + path, headers=PAGE, timeout=60)
    assert reply.status_code == 200
    return reply.text


def test_the_api_has_what_the_model_does(running: Running, made: Path, feature: int) -> None:
    reply = running.get(f"{API}/features/{feature}/effect").json()
    store, engine = Store.open(made / "store"), running.state.live.engines["store"]
    control = choose_control(store, engine.sae, feature)
    assert control is not None and control != feature and reply["control_feature"]["id"] == control
    samples = strongest_samples(store, feature)
    assert len(samples) == N_PAIRS
    pairs = [Originals(store).pair(row) for row in samples.values()]
    effect = measure_effect(engine.mllm, engine.sae, store.manifest, pairs, (feature, control))
    assert effect is not None and (reply["n_pairs"], reply["n_places"]) == (effect.n_pairs, effect.n_places)
    for side, change in (("ablated", effect.ablation), ("control", effect.control)):
        assert reply[side]["kl"] == pytest.approx(change.kl)
        order = np.argsort(change.probability_v)
        for name, ids in (("lowered", order[:10]), ("raised", order[::-1][:10])):
            assert [one["token"] for one in reply[side][name]] == [store.vocabulary.text(v) for v in ids.tolist()]
            np.testing.assert_allclose([one["change"] for one in reply[side][name]], change.probability_v[ids])
            np.testing.assert_allclose([one["before"] for one in reply[side][name]], effect.before_v[ids])


def test_it_is_measured_once(running: Running, feature: int) -> None:
    first = running.get(f"{API}/features/{feature}/effect")
    with running.held_up():  # the model answers nobody now
        assert running.get(f"{API}/features/{feature}/effect").json() == first.json()


def test_a_dead_feature_has_no_effect(running: Running, made: Path) -> None:
    dead = Store.open(made / "store").features.list(verdict="dead").items
    assert dead, "the store is meant to have a dead feature"
    path = f"/features/{dead[0]['id']}/effect"
    assert running.get(API + path).json()["n_places"] == 0
    assert "there is nothing to measure" in page(running, path)


def test_the_page_of_an_effect_is_whole_without_javascript(running: Running, feature: int) -> None:
    assert f'href="/features/{feature}/effect"' in page(running, f"/features/{feature}")
    text = page(running, f"/features/{feature}/effect")
    for name in ("ablated", "control"):
        panel = re.search(rf'data-testid="effect-{name}">(.*?)</div>\s*</div>', text, re.S)
        assert panel
        changes = running.get(f"{API}/features/{feature}/effect").json()[name]["lowered"]
        tokens = [html.unescape(one) for one in re.findall("<bdi>(.*?)</bdi>", panel[1].split("raised")[0])]
        assert len(tokens) == (len(changes) if name == "ablated" else 5)


def test_without_the_model_the_page_says_why(made: Path, feature: int) -> None:
    CACHE.entries.clear()
    with Running(Settings(stores=[made / "store"], live=False), ready=False) as off:
        assert off.get(f"{API}/features/{feature}/effect").status_code == 503
        for path in (f"/features/{feature}", f"/features/{feature}/effect"):
            assert "The model is off (started with --no-live)" in page(off, path)
    server = Running(Settings(stores=[made / "store"], device="cpu"), ready=False)
    with server.held_up(), server:
        reply = server.get(f"{API}/features/{feature}/effect")
        assert reply.status_code == 503 and reply.headers["retry-after"] == "5"
        loading = page(server, f"/features/{feature}/effect")
        assert "still loading" in loading and "Try again" in loading


def test_in_chromium_it_is_measured_on_demand_and_stays_in_the_address(
    browser: Browser, running: Running, feature: int
) -> None:
    from playwright.sync_api import expect

    tab = browser.new_context(base_url=running.url).new_page()
    tab.goto(f"/features/{feature}")
    button = tab.get_by_test_id("measure")
    tab.route(re.compile("/effect"), lambda route: route.abort())
    button.click()
    expect(button).to_have_text("Try again")  # the server is gone: nothing is measured any more
    tab.unroute(re.compile("/effect"))
    tab.goto(f"/features/{feature}")
    button.focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_test_id("effect-ablated")).to_be_visible(timeout=60_000)
    expect(tab).to_have_url(re.compile("effect=1"))
    tab.go_back()
    expect(button).to_have_text("Measure")
    tab.go_forward()
    expect(tab.get_by_test_id("effect-control")).to_be_visible(timeout=60_000)
    tab.reload()
    expect(tab.get_by_test_id("effect-figures")).to_contain_text("nats", timeout=60_000)
    tab.context.close()
