"""Notes in a real Chromium: saved without leaving the page, told of conflicts, and nothing that is typed is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers import synthetic
from tests.helpers.servers import Server
from tests.helpers.synthetic import word_feature

DOG = word_feature("dog")
PATH = f"/features/{DOG}"
both_databases = pytest.mark.parametrize("notes_app", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def people(browser: Browser, notes_url: str) -> Iterator[list[Page]]:
    """Two people with a browser each."""
    contexts = [browser.new_context(base_url=notes_url) for _ in range(2)]
    yield [context.new_page() for context in contexts]
    for context in contexts:
        context.close()


def write(page: Page, **fields: str) -> None:
    for name, value in fields.items():
        page.get_by_test_id(name.replace("_", "-")).fill(value)
    page.get_by_test_id("save").click()


@both_databases
def test_a_label_is_saved_in_place_and_seen_by_others(people: list[Page]) -> None:
    ann, bob = people
    ann.goto(f"{PATH}?modality=text")
    ann.keyboard.press("e")
    expect(ann.get_by_test_id("own-label")).to_be_focused()
    ann.keyboard.type("my dog")
    ann.get_by_test_id("own-tags").fill("pet, good")
    ann.get_by_test_id("author").fill("Ann")
    ann.get_by_test_id("own-note").press("Control+Enter")
    expect(ann.get_by_test_id("draft")).to_have_text("Saved")
    expect(ann.get_by_test_id("feature-label")).to_contain_text("my dog")
    assert ann.url.endswith(f"{PATH}?modality=text")
    bob.goto("/features")
    bob.get_by_test_id("tag").select_option("pet")
    expect(bob.get_by_test_id("feature-row")).to_have_count(1)
    expect(bob.get_by_test_id("feature-row")).to_contain_text("my dog")
    bob.goto("/search?q=my+dog")
    expect(bob.locator("main")).to_contain_text("my dog")


@both_databases
def test_two_people_edit_one_label(people: list[Page]) -> None:
    ann, bob = people
    for page in people:
        page.goto(PATH)
    write(ann, own_label="dog", author="Ann")
    expect(ann.get_by_test_id("draft")).to_have_text("Saved")
    write(bob, own_label="hound", author="Bob")
    expect(bob.get_by_test_id("conflict")).to_contain_text("Ann changed this after you opened it")
    expect(bob.get_by_test_id("theirs-label")).to_have_text("dog")
    expect(bob.get_by_test_id("own-label")).to_have_value("hound")
    bob.reload()  # in the middle of it
    expect(bob.get_by_test_id("own-label")).to_have_value("hound")
    bob.get_by_test_id("save").click()
    expect(bob.get_by_test_id("draft")).to_have_text("Saved")
    bob.get_by_test_id("history").locator("summary").click()
    expect(bob.get_by_test_id("history")).to_contain_text("label: hound")
    expect(bob.get_by_test_id("history")).to_contain_text("label: dog")
    bob.get_by_test_id("undo").click()
    expect(bob.get_by_test_id("own-label")).to_have_value("dog")


@both_databases
def test_the_second_one_may_take_what_is_there(people: list[Page]) -> None:
    ann, bob = people
    for page in people:
        page.goto(PATH)
    write(ann, own_label="dog")
    expect(ann.get_by_test_id("draft")).to_have_text("Saved")
    write(bob, own_label="hound")
    bob.get_by_test_id("take-theirs").click()
    bob.reload()
    expect(bob.get_by_test_id("own-label")).to_have_value("dog")
    expect(bob.get_by_test_id("discard")).to_have_count(0)


def test_what_is_typed_survives_a_reload_and_can_be_discarded(people: list[Page]) -> None:
    page = people[0]
    page.goto(PATH)
    page.get_by_test_id("own-note").fill("half a thou")
    page.goto(f"/features/{DOG + 1}")
    expect(page.get_by_test_id("own-note")).to_have_value("")
    page.goto(PATH)
    expect(page.get_by_test_id("own-note")).to_have_value("half a thou")
    page.get_by_test_id("discard").click()
    expect(page.get_by_test_id("own-note")).to_have_value("")
    page.reload()
    expect(page.get_by_test_id("own-note")).to_have_value("")


def test_nothing_is_lost_when_the_server_is_killed(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    store = synthetic.small_store(tmp_path_factory)
    options = (store, "--no-live", "--annotations", f"sqlite:///{tmp_path / 'notes.sqlite'}")
    server = Server(*options, log=tmp_path / "log")
    server.wait("/healthz", 60)
    page = browser.new_context().new_page()
    page.goto(server.url + PATH)
    write(page, own_label="first")
    expect(page.get_by_test_id("draft")).to_have_text("Saved")
    server.process.kill()
    server.process.wait()
    write(page, own_label="second")
    expect(page.get_by_test_id("save-error")).to_contain_text("What you typed is kept in this browser")
    expect(page.get_by_test_id("own-label")).to_have_value("second")
    with Server(*options, log=tmp_path / "log") as again:
        history = page.request.get(f"{again.url}/api/v1/annotations/features/{DOG}").json()
        assert history["label"] == "first"
    page.context.close()
