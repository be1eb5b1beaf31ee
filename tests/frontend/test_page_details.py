"""What pages hold beside their main content: links of images, JSON, saved filters, what an old store cannot say."""

import html
import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, BrowserContext

from backend.app import create_app
from backend.settings import Settings
from tests.helpers import synthetic
from tests.helpers.servers import over_http
from tests.helpers.synthetic import word_feature

RED = word_feature("red")


def links(page: str, testid: str) -> list[str]:
    """The addresses in the element with this test id, up to the end of the element."""
    part = re.search(rf'<(\w+)[^>]*data-testid="{testid}".*?</\1>', page, re.S)
    return [html.unescape(one) for one in re.findall(r'href="([^"]+)"', part[0])] if part else []


def test_images_of_found_features_lead_to_them(client: TestClient, sample_id: str) -> None:
    for path, row in (("/search?q=red", "feature-card"), (f"/search?sample={sample_id}", "result-feature")):
        page = client.get(path).text
        features = re.findall(rf'data-testid="{row}" data-feature="(\d+)"', page)
        assert features and all(f'class="thumbs" href="/features/{one}"' in page for one in features), path


def test_one_line_of_a_list_is_one(client: TestClient) -> None:
    for fold, noun in (("names", "name"), ("families", "family"), ("none", "feature")):
        page = client.get(f"/features?ids={RED}&fold={fold}").text
        assert re.search(rf'data-testid="total">1</strong> {noun}<', page) and f"1 of 1 {noun}<" in page


def test_verdicts_that_no_feature_has_are_no_chips(client: TestClient) -> None:
    for path in ("/", "/features?q=red", "/features?verdict=cross-modal", "/map", "/sae"):
        chips = re.findall(
            r'class="chip"[^>]*>\s*<span class="(?:verdict|dot) [^>]*>.*?</(?:a|button)>', client.get(path).text, re.S
        )
        counts = [re.sub(r"<[^>]*>", " ", one).split()[-1] for one in chips if "%" not in one]
        assert len(chips) > 1 and "0" not in counts, path
    assert 'data-testid="verdict-dead" aria' not in client.get("/features?q=red").text
    assert 'data-testid="verdict-dead"' in client.get("/features?q=red&verdict=dead").text  # what is chosen stays


def test_all_of_a_fact_sheet_is_in_the_api(client: TestClient) -> None:
    feature, images, texts, store = links(client.get(f"/features/{RED}/factsheet").text, "factsheet-json")
    assert client.get(feature).json()["id"] == RED and client.get(store).json()["model"]
    for path in (images, texts):
        assert len(client.get(path).json()["items"]) == 6


def test_quality_saves_its_filters_as_the_lists_do(pages_app: FastAPI, tmp_path: Path) -> None:
    settings = Settings(
        stores=[pages_app.state.saevx.default.path], live=False, annotations=f"sqlite:///{tmp_path / 'notes.sqlite'}"
    )
    with TestClient(create_app(settings), headers={"Accept": "text/html"}) as client:
        query = "flag=blank&threshold=0.1&cursor=abc"
        form = {"page": "/quality", "query": query, "title": "Blank ones", "author": "Ada"}
        reply = client.post("/filters", data=form, follow_redirects=False)
        assert reply.status_code == 303 and reply.headers["location"] == "/quality?flag=blank&threshold=0.1"
        page = client.get("/quality").text
        assert '<a class="chip" href="/quality?flag=blank&amp;threshold=0.1"><bdi>Blank ones</bdi>' in page
        assert "Blank ones" not in client.get("/samples").text


def test_a_store_without_words_does_not_say_that_there_is_none(pages_app: FastAPI, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(pages_app.state.saevx.default.path, old)
    with sqlite3.connect(old / "store.sqlite") as db:
        db.execute("DROP TABLE top_words")
    db.close()
    for path, has_words in ((pages_app.state.saevx.default.path, True), (old, False)):
        with TestClient(create_app(Settings(stores=[path], live=False)), headers={"Accept": "text/html"}) as client:
            for place in ("", "/factsheet", "/factsheet.svg"):
                page = client.get(f"/features/{RED}{place}").text
                assert ("text: red" in page) == has_words and "no common word" not in page


def test_a_store_of_texts_alone_shows_them(browser: Browser, tmp_path: Path) -> None:
    store = tmp_path / "store"
    synthetic.write_store(store, 40, 0, pictures=False)
    with over_http(create_app(Settings(stores=[store], live=False))) as url:
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.goto(url)
        assert "image patches" not in page.locator(".hero").inner_text()
        page.goto(f"{url}/features/{RED}")
        widths = page.locator(".kwic .line").evaluate_all("all => all.map((one) => one.offsetWidth)")
        assert widths and min(widths) > 300
        page.goto(f"{url}/samples")
        box_end = page.locator("#list .card input").first.evaluate("one => one.getBoundingClientRect().right")
        begin = "one => one.getBoundingClientRect().left + parseFloat(getComputedStyle(one).paddingLeft)"
        assert box_end < page.locator("#list .card .caption").first.evaluate(begin)
        assert "no image" not in page.locator("#list").inner_text()
        page.close()


PAGES = ["/features", f"/features/{RED}", "/quality", "/sae", "/samples/s00000", "/compare?a=0&b=3"]


@pytest.mark.parametrize("path", PAGES)
def test_numbers_for_people_have_true_minus_signs(client: TestClient, path: str) -> None:
    page = re.sub(r"<(script|style|pre|dialog).*?</\1>", "", client.get(path).text, flags=re.S)
    words = [re.sub(r"<[^>]+>", " ", page), *re.findall(r'(?:title|aria-label)="([^"]*)"', page)]
    assert [one for text in words for one in re.findall(r"(?<![\w–-])-\d[\d.]*|\de-\d+", text)] == []


@pytest.mark.parametrize(
    "path",
    [
        "/try?text=a+red+dog",
        f"/features/{RED}?text=a+red+dog",
        f"/basket?features={RED}&own=%3Aa+red+dog",
        "/search?q=dog&model=1",
        "/explain?text=a+dog&ask=1",
    ],
)
def test_what_a_page_cannot_do_without_the_model_is_said_once(client: TestClient, path: str) -> None:
    reason = client.get("/api/v1/live").json()["reason"]
    words = html.unescape(re.sub(r"<[^>]*>", "", client.get(path).text))
    assert words.count(reason) == (2 if path.startswith("/features") else 1), "there also by the measured effect"
    assert "drop or paste one" not in words, "where an image would be refused"


@pytest.mark.parametrize("width", [390, 768, 1024, 1280, 1440])
def test_clear_stays_beside_apply(context: BrowserContext, width: int) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.goto("/features")
    buttons = page.locator("#filters .together")
    apply, clear = (buttons.get_by_text(name, exact=True).bounding_box() for name in ("Apply", "Clear"))
    assert apply and clear and abs(apply["y"] - clear["y"]) < apply["height"] / 2
    if width >= 1280:
        tops = page.locator("#filters > :is(label, span)").evaluate_all(
            "all => all.map((one) => one.getBoundingClientRect().bottom)"
        )
        assert len({round(top) for top in tops}) == 1, "one row"
