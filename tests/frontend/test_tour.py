"""The tour: five steps on what a store holds, each a page with an address of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import BrowserContext, expect

from backend.app import create_app
from backend.settings import Settings
from backend.stores import OpenStore
from backend.tour import N_STEPS, steps
from tests.helpers import synthetic
from tests.helpers.stores import seal, sql

NOTHING = """UPDATE features SET verdict = 'dead', evidence = NULL, label = NULL, label_score = NULL, n_samples = 0,
max_text = 0, max_image = 0"""


@pytest.fixture(scope="module")
def text_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("text") / "store"
    synthetic.write_store(out, 40, 0, pictures=False)
    return out


@pytest.fixture(scope="module")
def dead_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No feature has a name or fires anywhere."""
    out = tmp_path_factory.mktemp("dead") / "store"
    synthetic.write_store(out, 20, 0)
    sql(NOTHING)(out)
    sql("DELETE FROM examples")(out)
    seal(out)
    return out


@pytest.fixture(params=["pairs", "texts", "dead"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "pairs":
        return synthetic.small_store(tmp_path_factory)
    return request.getfixturevalue("text_store" if request.param == "texts" else "dead_store")


@pytest.fixture
def visitor(store: Path) -> Iterator[TestClient]:
    app = create_app(Settings(stores=[store], live=False))
    with TestClient(app, headers={"Accept": "text/html"}) as running:
        yield running


def test_every_step_is_a_page_with_its_part_marked(visitor: TestClient, store: Path) -> None:
    reply = visitor.get("/tour", follow_redirects=False)
    assert reply.status_code == 303
    address, seen = reply.headers["location"], []
    for number in range(1, N_STEPS + 1):
        path, _, panel = address.partition("#")
        page = visitor.get(path)
        assert page.status_code == 200 and f'aria-label="Tour, step {number} of 5"' in page.text
        assert f'data-tour="{panel}"' in page.text and page.text.count(f' id="{panel}"') == 1
        seen.append(path)
        links = re.findall(r'rel="next" href="([^"]+)" data-testid="tour-next"', page.text)
        assert len(links) == (number < N_STEPS)
        address = links[0].replace("&amp;", "&") if links else ""
    assert len(set(seen)) == N_STEPS
    opened = OpenStore.at(store)
    text = " ".join(step.text for step in steps(opened))
    assert ("image" in text) == ("patch" in text) == (opened.manifest["tokens"]["image"] > 0)


def test_no_page_starts_it_by_itself(visitor: TestClient) -> None:
    front = visitor.get("/").text
    assert 'data-testid="tour-start"' in front and 'class="tour"' not in front
    for wrong in ("0", "6", "x", "-1", "²", "999"):
        assert 'class="tour"' not in visitor.get("/", params={"tour": wrong}).text


def test_it_is_walked_and_left_by_keys(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/")
    page.get_by_test_id("tour-start").click()
    bar = page.get_by_test_id("tour")
    expect(bar).to_contain_text("1 of 5")
    expect(page.locator("#says")).to_be_in_viewport()
    for number in range(2, N_STEPS + 1):
        page.wait_for_load_state()
        page.keyboard.press("n")
        expect(bar).to_contain_text(f"{number} of 5")
        expect(page.locator(f"#{page.locator('html').get_attribute('data-tour')}")).to_be_in_viewport()
    page.wait_for_load_state()
    page.keyboard.press("p")
    expect(bar).to_contain_text("4 of 5")
    page.go_back()
    expect(bar).to_contain_text("5 of 5")
    page.wait_for_load_state()
    page.keyboard.press("Escape")
    expect(bar).to_have_count(0)
    assert "tour=" not in page.url


def test_choices_stay_within_the_step(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/tour")
    page.get_by_test_id("tour-next").click()
    expect(page).to_have_url(re.compile("tour=2"))
    page.get_by_test_id("band-counter").click()
    expect(page).to_have_url(re.compile("tour=2.*band=counter"))
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    box = page.get_by_test_id("tour").bounding_box()
    assert box and box["height"] < 320  # at most half of a small window
    page.get_by_test_id("tour-leave").click()
    expect(page).to_have_url(re.compile(r"/features/\d+\?.*band=counter"))
