"""Features that share samples: the matrix, the graph of one feature, and the samples of a pair."""

import re

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import BrowserContext, expect


@pytest.mark.parametrize("kind", ["text-image", "text-text", "image-image"])
def test_each_cell_opens_its_pair(client: TestClient, kind: str) -> None:
    page = client.get(f"/cooccurrence?kind={kind}&min_support=2").text
    cells = client.get(f"/api/v1/cooccurrence/matrix?kind={kind}&min_support=2").json()["cells"]
    drawing = page.split('class="cells"')[1].split("</g>")[0]
    drawn = re.findall(rf'href="/cooccurrence/pair\?kind={kind}&amp;a=(\d+)&amp;b=(\d+)"', drawing)
    assert len(drawn) == len(cells) * (1 if kind == "text-image" else 2)
    assert {(int(a), int(b)) for a, b in drawn} == {(one["a"], one["b"]) for one in cells}


def test_a_feature_by_words_by_number_and_in_vain(client: TestClient) -> None:
    html = client.get("/cooccurrence?q=dog").text
    assert 'data-testid="graph"' in html and 'data-testid="matrix"' not in html
    number = re.search(r"Around .*?data-feature=\"(\d+)\"", html)
    assert number and f"#{number[1]}</span>" in client.get(f"/cooccurrence?q=%23{number[1]}").text
    same = client.get(f"/cooccurrence?feature={number[1]}").text
    assert same.count('data-testid="edge"') == html.count('data-testid="edge"') > 0
    assert "No feature matches" in client.get("/cooccurrence?q=nosuchword").text
    assert client.get("/cooccurrence?feature=99999").status_code == 404
    empty = client.get("/cooccurrence?min_support=100000").text
    assert 'data-testid="empty"' in empty and 'data-testid="matrix"' not in empty


@pytest.mark.parametrize("kind", ["text-image", "text-text"])
def test_pairs_that_are_alike_are_listed_at_their_link(client: TestClient, kind: str) -> None:
    query = f"kind={kind}&min_support=2&min_lift=0&limit=500"
    items = client.get(f"/api/v1/cooccurrence?{query}").json()["items"]
    page = client.get(f"/cooccurrence?{query}").text
    folded = [one for one in items if one["n_alike"]]
    links = re.findall(r'href="([^"]+)"[^>]*data-testid="alike-pairs">\+(\d+) alike', page)
    assert [int(n) for _, n in links] == [one["n_alike"] for one in folded] != []
    for (link, n), one in [*zip(links, folded, strict=True)][:3]:
        listed = client.get(link.replace("&amp;", "&")).text
        assert listed.count('data-testid="pair-row"') == int(n) + 1 and 'data-testid="matrix"' not in listed
        assert f"a={one['a']['id']}&amp;b={one['b']['id']}" in listed
    assert client.get("/cooccurrence?like=0,99999").status_code == 404


def test_from_the_matrix_to_samples_by_keys(context: BrowserContext) -> None:
    page = context.new_page()
    page.goto("/cooccurrence?min_support=2")
    cells = page.locator(".cells a")
    assert page.locator('.cells a[tabindex="-1"]').count() == cells.count() - 1
    cells.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    here = page.evaluate("document.activeElement.getAttribute('href')")
    assert here != cells.first.get_attribute("href")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(re.escape(here) + "$"))
    expect(page.get_by_test_id("strip-both").get_by_test_id("sample-card").first).to_be_visible()
    expect(page.get_by_test_id("counts")).to_contain_text("have both")
    page.get_by_role("link", name="Partners of 1").click()
    expect(page.get_by_test_id("graph")).to_be_visible()
    page.get_by_test_id("node").first.click()
    expect(page).to_have_url(re.compile(r"feature=\d+"))
    page.get_by_test_id("edge").first.focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/cooccurrence/pair"))


def test_a_pair_marks_each_feature_on_its_side(client: TestClient) -> None:
    best = client.get("/api/v1/cooccurrence?min_support=2").json()["items"][0]
    a, b = best["a"]["id"], best["b"]["id"]
    page = client.get(f"/cooccurrence/pair?a={a}&b={b}").text
    card = page.split('data-testid="strip-both"')[1].split("</li>")[0]
    picture, caption = card.split('class="caption"')
    assert re.search('path class="q2 ', picture) and "q1 " not in picture
    assert 'class="no q1"' in caption and 'class="no q2"' not in caption
    reply = client.get(f"/api/v1/cooccurrence/pair?a={a}&b={b}").json()
    assert f"{reply['n_both']}, the clearest first" in page
    assert "as shares of their p99.9: from 10 % on a feature fires" in page
    for name in ("both", "only_a", "only_b"):
        strip = page.split(f'data-testid="strip-{name}"')[1].split("</section>")[0]
        sample_ids = re.findall('data-sample="([^"]+)"', strip)
        assert sample_ids == [one["sample_id"] for one in reply[name]][:6]
    assert client.get("/cooccurrence/pair?a=0&b=99999").status_code == 404


@pytest.mark.parametrize("width", [320, 768])
def test_nothing_is_wider_than_the_window(context: BrowserContext, width: int) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("/cooccurrence?min_support=2", "/cooccurrence?q=dog", "/cooccurrence/pair?a=0&b=1"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
