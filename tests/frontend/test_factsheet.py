"""The fact sheet of a feature: one page of paper, an SVG that stands alone, a PNG of it."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from backend.app import create_app
from backend.drawing.heat import COLOURS
from backend.pages.feature.factsheet import LINE_CHARACTERS, wrap
from backend.settings import Settings
from tests.helpers.colours import palette
from tests.helpers.synthetic import word_feature

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext

RED = word_feature("red")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def odd(odd_store: Path) -> Iterator[TestClient]:
    """Captions with markup, control characters, lone accents and many scripts."""
    with TestClient(create_app(Settings(stores=[odd_store], live=False)), headers={"Accept": "text/html"}) as client:
        yield client


def test_the_page_says_where_the_fact_sheet_comes_from(client: TestClient) -> None:
    page, store = client.get(f"/features/{RED}/factsheet").text, client.get("/api/v1/store").json()
    for part in (store["content_id"], store["model"], f"layer {store['layer']}", store["sae"], store["version"]):
        assert part in page
    cited = re.search(r'data-testid="citation">([^<]+)<', page)
    assert cited and f"Feature #{RED} of" in cited[1] and store["content_id"][:16] in cited[1]
    assert page.count('class="pic square"') == 6 and "img" in page
    assert f'href="/features/{RED}/factsheet"' in client.get(f"/features/{RED}").text
    assert {client.get(f"/features/99999/factsheet{end}").status_code for end in ("", ".svg")} == {404}
    assert {client.get(f"/features/{RED}/card{end}").status_code for end in ("", ".svg")} == {200}  # as it was called


def test_the_svg_stands_alone_and_holds_what_the_page_shows(client: TestClient) -> None:
    reply = client.get(f"/features/{RED}/factsheet.svg")
    assert reply.headers["content-type"] == "image/svg+xml" and reply.headers["etag"]
    root = ET.fromstring(reply.text)
    images = root.findall(f".//{SVG}image")
    examples = client.get(f"/api/v1/features/{RED}/examples?modality=image&limit=6").json()["items"]
    assert len(images) == len(examples) == 6
    for drawn in images:
        head, _, data = drawn.attrib["href"].partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert max(image.size) > 30
    text = " ".join(root.itertext())
    assert client.get("/api/v1/store").json()["content_id"] in text and f"#{RED}" in text
    assert all(f"{one['activation']:.2f}" in text for one in examples)
    cited = re.search(r'data-testid="citation">([^<]+)<', client.get(f"/features/{RED}/factsheet").text)
    assert cited and all(phrase in text for phrase in cited[1].split(", "))
    assert not re.search(r'(?:href|src)="(?!data:)', reply.text) and "style" not in reply.text
    fills = {one.attrib["fill"] for one in root.findall(f".//{SVG}svg/{SVG}path") if "fill-opacity" in one.attrib}
    assert fills and fills <= set(COLOURS)
    assert [palette(0)[f"p{k}"] for k in range(1, 9)] == [palette(1)[f"p{k}"] for k in range(1, 9)] == list(COLOURS)


def test_every_fact_sheet_of_an_odd_store_is_xml_and_text_stays_text(odd: TestClient) -> None:
    n = odd.get("/api/v1/store").json()["n_features"]
    for feature in range(min(n, 60)):
        root = ET.fromstring(odd.get(f"/features/{feature}/factsheet.svg").text)
        assert {one.tag.removeprefix(SVG) for one in root.iter()} <= {
            "svg", "title", "rect", "text", "tspan", "image", "path", "line"
        }  # fmt: skip
        assert odd.get(f"/features/{feature}/factsheet").status_code == 200


def test_parts_are_wrapped_between_them_and_cut_where_one_is_too_long() -> None:
    parts = ["a" * 60, "b" * 60, "c" * 10, "d" * 300]
    lines = list(wrap(parts, ", "))
    assert lines == [f"{parts[0]}, {parts[1]}", parts[2], "d" * (LINE_CHARACTERS - 1) + "…"]
    assert list(wrap([], ", ")) == []


def test_it_prints_on_one_page_and_is_saved_as_png(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"/features/{RED}/factsheet")
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))) == 1
    with page.expect_download() as saved:
        page.get_by_test_id("factsheet-png").click()
    assert saved.value.suggested_filename == f"feature-{RED}.png"
    with Image.open(saved.value.path()) as image:
        assert image.width == 2 * 960 and image.height > 600
        colours = image.convert("RGB").getcolors(1 << 24)
        assert colours and len(colours) > 50  # images and text were drawn, not only the frame


@pytest.mark.parametrize("feature", [RED, RED + 1, RED + 2])
def test_one_sided_features_have_a_fact_sheet_too(client: TestClient, feature: int) -> None:
    detail = client.get(f"/api/v1/features/{feature}").json()
    page = client.get(f"/features/{feature}/factsheet").text
    assert ('class="pic square"' in page) == (detail["samples_image"] > 0)
    assert ('class="kwic"' in page) == (detail["samples_text"] > 0)
