"""One's own image and text as a sample: by forms alone, and in Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.drawing.figures import format_percent
from backend.settings import Settings
from tests.helpers.dropping import drop
from tests.helpers.running import Running
from tests.helpers.servers import page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def server(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    notes = f"sqlite:///{tmp_path_factory.mktemp('notes') / 'notes.sqlite'}"
    with Running(Settings(stores=[made / "store"], device="cpu", annotations=notes)) as running:
        yield running


@pytest.fixture(scope="module")
def live(server: Running) -> TestClient:
    """Requests to the application that serves Chromium."""
    return TestClient(server.app, headers={"Accept": "text/html"})


def image_of(made: Path, name: str = "005.png") -> bytes:
    return (made / "data" / name).read_bytes()


def held(live: TestClient, made: Path) -> str:
    """Hash of an uploaded image."""
    return str(live.post("/api/v1/images", files={"image": ("p.png", image_of(made))}).json()["hash"])


def test_a_posted_pair_gets_an_address_that_shows_what_the_api_says(live: TestClient, made: Path) -> None:
    page = live.post("/try", files={"image": ("p.png", image_of(made))}, data={"text": "a red dog\r\non"})
    assert page.status_code == 200 and re.search(r"/try\?image=[0-9a-f]{32}&text=a\+red\+dog%0Aon$", str(page.url))
    own = {"image": held(live, made), "text": "a red dog\non"}
    answer = live.get("/api/v1/try", params=own).json()
    for name, rows in answer["groups"].items():
        part = page.text.partition(f'data-testid="group-{name}"')[2].partition("</section>")[0]
        assert re.findall(r'data-testid="sample-feature" data-feature="(\d+)"', part) == [str(r["id"]) for r in rows]
    for flag in answer["flags"]:
        assert flag["title"] in page.text and flag["reason"]["text"].partition("“")[0] in page.text
    assert f"unexplained) <strong>{answer['reconstruction']['fvu']:.2f}" in page.text
    assert f">{answer['scores']['pooled-cosine']:.3f}</td>" in page.text

    chosen = answer["top_features"]["image"][0]["id"]
    html = live.get("/try", params={**own, "f": chosen, "view": 0, "row": 1, "col": 1, "why": "cosine"}).text
    assert 'data-testid="features-here"' in html and 'class="peak"' in html and 'data-testid="why"' in html
    assert re.search(r'data-testid="heat"><path', html) and 'name="image" value="' in html
    plain = live.get("/try", params={"text": "a red dog"}).text
    assert 'data-testid="text-alone"' in plain and 'data-testid="scores"' not in plain and "tok unread" in plain


def test_the_strongest_feature_is_shown_at_first(live: TestClient, made: Path) -> None:
    own = {"image": held(live, made)}
    strongest = live.get("/api/v1/try", params=own).json()["groups"]["image_only"][0]["id"]
    first = live.get("/try", params=own).text
    assert f'data-chosen="{strongest}"' in first and re.search(r'data-testid="heat"><path', first)
    left = re.search(r'class="drop-it" href="([^"]+)"', first)
    assert left
    none = live.get(left[1].replace("&amp;", "&")).text
    assert 'data-chosen=""' in none and not re.search(r'data-testid="heat"><path', none)
    assert 'name="f" value="none"' in none  # which the form of a patch keeps


def test_an_image_can_be_removed_and_what_is_wrong_is_said(live: TestClient, made: Path) -> None:
    hash = held(live, made)
    page = live.post("/try", data={"text": "a dog", "image_hash": hash, "do": "remove"})
    assert str(page.url).endswith("/try?text=a+dog") and page.status_code == 200
    gone = live.get(f"/try?image={hash}&text=dog")
    assert gone.status_code == 404 and "choose the image again" in gone.text and ">\ndog</textarea>" in gone.text
    assert 'name="image_hash"' not in gone.text
    again = live.post("/try", data={"text": "a dog", "image_hash": hash, "do": "remove"})
    assert again.status_code == 200
    broken = live.post("/try", files={"image": ("p.png", b"no image")}, data={"text": "a dog"})
    assert broken.status_code == 422 and "send another image" in broken.text and "a dog</textarea>" in broken.text
    assert live.get("/try?text=a&row=99&col=0").status_code == 200  # there is no grid without an image
    assert live.get("/try", params={"text": "dog " * 900}).status_code == 422
    assert live.get("/try?text=dog&position=9999").status_code == 404


def test_without_the_model_the_page_says_so(made: Path) -> None:
    with TestClient(create_app(Settings(stores=[made / "store"], live=False))) as off:
        empty = off.get("/try", headers={"Accept": "text/html"})
        assert empty.status_code == 200 and "The model is off" in empty.text
        page = off.get("/try?text=dog", headers={"Accept": "text/html"})
        assert page.status_code == 503 and "The model is off" in page.text
        assert off.get("/api/v1/try?text=dog").status_code == 503
        sent = off.post("/try", files={"image": ("p.png", image_of(made))}, headers={"Accept": "text/html"})
        assert sent.status_code == 503 and "The model is off" in sent.text


def test_a_pair_on_a_features_page_stands_in_its_histogram(live: TestClient, made: Path) -> None:
    side = "image"
    own = {"image": held(live, made), "text": "a red dog"}
    feature = live.get("/api/v1/try", params=own).json()["top_features"][side][0]["id"]
    values = live.get("/api/v1/try/activations", params={**own, "feature": feature}).json()
    z = max(one["values"][0] for one in values["tokens"] if one["modality"] == side)
    histogram = live.get(f"/api/v1/features/{feature}").json()["histogram"][side]
    edges, counts = histogram["edges"], histogram["counts"]
    below = sum(count for high, count in zip(edges[1:], counts, strict=True) if high <= z) / sum(counts)
    page = live.get(f"/features/{feature}", params=own).text
    line = page.partition(f'data-testid="own-{side}-value"')[2].partition("</li>")[0]
    share = format_percent(below, 0)
    assert f"<strong>{z:.2f}</strong>" in line and f"above {share} of its activations" in line
    assert page.count('<line class="own"') >= 1
    assert f"f={feature}" in page.partition('"own-all"')[0].rpartition("href")[2]
    assert re.search(rf'href="/features/{feature + 1}\?image=\w+&amp;text=a\+red\+dog"', page)
    sent = live.post("/try", data={"text": "a dog", "feature": feature}, follow_redirects=False)
    assert sent.headers["location"] == f"/features/{feature}?text=a+dog#try"
    gone = live.get(f"/features/{feature}?image={'0' * 32}")
    assert gone.status_code == 200 and "choose the image again" in gone.text
    assert 'data-testid="own-error"' not in live.get(f"/features/{feature}").text


def test_a_list_is_read_on_its_samples_and_on_own_pairs(live: TestClient, made: Path) -> None:
    samples = [one["sample_id"] for one in live.get("/api/v1/samples?limit=3").json()["items"]]
    body: dict[str, Any] = {"title": "x", "features": [3, 14, 5], "samples": samples[1:]}
    body["pair"] = {"sample_id": samples[0]}
    assert live.put("/api/v1/annotations/lists/mine", json=body, headers={"If-Match": "0"}).status_code == 200
    own = [":a red dog", f"{held(live, made)}:", f"{held(live, made)}:the cat"]
    page = live.get("/lists/mine", params={"own": own}).text
    heads = page.partition("<thead>")[2].partition("</thead>")[0]
    assert heads.count('data-testid="matrix-pair"') == 6 and heads.count('data-testid="leave-out"') == 3
    wanted: dict[str, Any] = {"feature": body["features"], "sample": samples, "own": own}
    matrix = live.get("/api/v1/try/matrix", params=wanted).json()
    for row, feature in zip(matrix["cells"], body["features"], strict=True):
        assert len(row) == 6 and row[3]["image"] is None and row[4]["text"] is None
        p999 = live.get(f"/api/v1/features/{feature}").json()["p999"]
        addresses: list[tuple[str, dict[str, Any]]] = [(f"samples/{id}", {}) for id in samples]
        addresses += [("try", {"text": "a red dog"}), ("try", {"image": own[1][:32]})]
        addresses += [("try", {"image": own[1][:32], "text": "the cat"})]
        for cell, (path, params) in zip(row, addresses, strict=True):
            reply = live.get(f"/api/v1/{path}/activations", params={**params, "feature": feature}).json()
            for side in ("text", "image"):
                z = [one["values"][0] for one in reply["tokens"] if one["modality"] == side]
                assert cell[side] == (pytest.approx(max(z) / p999) if z else None), (feature, path, side)
    sent = live.post("/try", data={"text": "dog", "name": "mine", "own": own[:1]}, follow_redirects=False)
    assert sent.headers["location"] == "/lists/mine?own=%3Aa+red+dog&own=%3Adog#matrix"
    sent = live.post("/try", data={"text": "dog", "features": "3,5", "sample": samples[:1]}, follow_redirects=False)
    assert sent.headers["location"] == f"/basket?features=3,5&sample={samples[0]}&own=%3Adog#matrix"
    assert live.get("/lists/mine", params={"own": ["0" * 32 + ":"]}).text.count("not read") == 1
    assert live.get("/lists/mine?own=nonsense").status_code == 422


@pytest.fixture(scope="module")
def page(browser: Browser, server: Running) -> Iterator[Page]:
    with page_of(browser, server.url) as fresh:
        yield fresh


def test_from_a_dropped_photo_to_a_tag_that_others_find(
    page: Page, browser: Browser, server: Running, made: Path
) -> None:
    """Photo → patch → feature → tag → the feature by its tag, in another browser."""
    from playwright.sync_api import expect

    page.goto("/try")
    drop(page, "notes.txt", "text/plain", b"words")
    expect(page.get_by_test_id("drop-note")).to_contain_text("notes.txt is not an image")
    drop(page, "own.png", "image/png", image_of(made))
    page.wait_for_url("**/try?image=*")
    image = page.url
    expect(page.get_by_test_id("group-image_only")).to_be_visible()
    expect(page.locator("#pic-h")).to_have_text("Image")  # there is no caption
    page.get_by_test_id("own-text").fill("a red dog")
    page.get_by_test_id("own-text").press("Control+Enter")
    page.wait_for_url("**text=a+red+dog*")
    expect(page.get_by_test_id("scores")).to_be_visible()

    page.get_by_test_id("patch-pad").click(position={"x": 150, "y": 120})
    here = page.get_by_test_id("features-here")
    expect(here).to_be_visible()
    row = here.get_by_test_id("sample-feature").first
    feature = row.get_attribute("data-feature")
    row.locator("a.cover").click()
    page.wait_for_url(f"**f={feature}*")
    expect(page.get_by_test_id("heat").locator("path").first).to_be_attached()
    page.reload()
    expect(page.get_by_test_id("chosen").locator("li")).to_have_count(1)
    expect(page.get_by_test_id("features-here")).to_be_visible()
    for _ in range(3):
        page.go_back()
    expect(page.get_by_test_id("own-text")).to_have_value("")
    assert page.url == image
    for _ in range(3):
        page.go_forward()

    page.locator(f'a.go[href*="/features/{feature}"]').first.click()
    page.wait_for_url(f"**/features/{feature}*")
    page.get_by_test_id("own-tags").fill("seen on my photo")
    page.get_by_test_id("save").click()
    expect(page.get_by_test_id("own-tags-shown").first).to_contain_text("seen on my photo")
    with page_of(browser, server.url) as other:
        other.goto("/features?tag=seen+on+my+photo")
        expect(other.locator(f'tr[data-feature="{feature}"]')).to_be_visible()


def test_an_image_goes_on_to_other_pages_and_can_be_removed(page: Page, made: Path) -> None:
    from playwright.sync_api import expect

    page.goto("/search")
    drop(page, "own.png", "image/png", image_of(made, "007.png"))
    page.get_by_test_id("try-image").click()
    page.wait_for_url("**/try?image=*")
    address = page.url
    page.get_by_test_id("own-explain").click()
    page.wait_for_url("**/explain?image=*")
    page.go_back()
    page.get_by_test_id("own-steer").click()
    page.wait_for_url("**/steer?image=*")
    expect(page.locator(".steer-pic img")).to_have_js_property("complete", True)
    page.go_back()
    page.get_by_test_id("own-remove").click()
    page.wait_for_url("**/try")
    assert page.request.get(address).status == 404
