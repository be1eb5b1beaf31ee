"""Every sample that a store has opens by its own links, whatever its id."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from backend.app import create_app
from backend.links import PARTS, sample_key, sample_of, sample_path
from backend.settings import Settings
from tests.helpers.odd import IDS

API = "/api/v1"
NAMES = [ascii(one)[1:-1][:16] for one in IDS]


@pytest.fixture(scope="module")
def client(odd_store: Path) -> Iterator[TestClient]:
    app = create_app(Settings(stores=[odd_store], live=False))
    with TestClient(app, raise_server_exceptions=False) as running:
        yield running


@pytest.fixture(scope="module")
def listed(client: TestClient) -> dict[str, Any]:
    return {one["sample_id"]: one for one in client.get(f"{API}/samples?limit=200").json()["items"]}


def test_no_id_is_lost(listed: dict[str, Any]) -> None:
    assert set(IDS) <= set(listed)


@pytest.mark.parametrize("sample_id", IDS, ids=NAMES)
def test_its_own_links_open_it(client: TestClient, listed: dict[str, Any], sample_id: str) -> None:
    url = listed[sample_id]["images"][0]["url"]
    picture = client.get(url)
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
    path = url.partition("/image?")[0]
    assert path == API + sample_path(sample_id)
    one = client.get(path).json()
    assert one["sample_id"] == sample_id
    assert client.get(f"{path}/activations?feature=1").json()["sample_id"] == sample_id
    assert client.get(f"{path}/features?position=1").json()["sample_id"] == sample_id
    page = client.get(path.removeprefix(API), headers={"accept": "text/html"})
    assert page.status_code == 200 and "Sample " in page.text
    for other in (one["previous"], one["next"]):
        assert other is None or f'href="{sample_path(other)}"' in page.text


@pytest.mark.parametrize("sample_id", IDS, ids=NAMES)
def test_an_id_as_a_query_parameter_opens_it(client: TestClient, listed: dict[str, Any], sample_id: str) -> None:
    request_args = {"id": sample_id}
    url = listed[sample_id]["images"][0]["url"]
    assert client.get(f"{API}/sample", params=request_args).json() == client.get(url.partition("/image?")[0]).json()
    assert client.get(f"{API}/sample/image", params=request_args).content == client.get(url).content
    lit = client.get(f"{API}/sample/activations", params={**request_args, "feature": [1, 2]}).json()
    assert lit["sample_id"] == sample_id and [one["id"] for one in lit["features"]] == [1, 2]
    assert client.get(f"{API}/sample/features", params={**request_args, "position": 1}).json()["sample_id"] == sample_id
    page = client.get("/sample", params={**request_args, "feature": 3}, headers={"accept": "text/html"})
    assert page.status_code == 200 and page.url.path + "?" + page.url.query.decode() == f"{page.url.path}?feature=3"
    assert sample_of(page.url.path.removeprefix("/samples/")) == sample_id


BARE = ["a", "100%", " lead", "q?x#y", "日本/猫.png", "~", "a//b", "trail ", "\u200b", "no-such"]


@pytest.mark.parametrize("sample_id", BARE, ids=ascii)
def test_addresses_with_the_bare_id_go_on_working(client: TestClient, listed: dict[str, Any], sample_id: str) -> None:
    path = f"{API}/samples/{quote(sample_id, safe='')}"
    expected = sample_id in listed
    for part in ("", "/image", "/activations?feature=1", "/features?position=1"):
        assert client.get(path + part).status_code == (200 if expected else 404)


def test_a_missing_sample_is_told_at_both_addresses(client: TestClient) -> None:
    for path in ("/samples/no-such", "/samples/~bm8tc3VjaA", "/sample?id=no-such"):
        reply = client.get(API + path)
        assert reply.status_code == 404 and "No sample" in reply.json()["detail"]
    assert client.get(f"{API}/sample").status_code == 422
    assert client.get(f"{API}/sample?id=").status_code == 422


def test_lists_link_what_they_show(client: TestClient) -> None:
    links: set[str] = set()
    address: str | None = "/samples"
    while address:
        page = client.get(address, headers={"accept": "text/html"}).text
        links |= set(re.findall(r'<a href="(/samples/[^"]+)" class="mono"[ >]', page))
        following = re.search(r'rel="next" href="([^"]+)"', page)
        address = following[1].replace("&amp;", "&") if following else None
    assert {sample_path(one) for one in IDS} <= links


def test_every_part_of_an_address_is_known_to_ids(app: FastAPI) -> None:
    """An id that ends in such a part must be encoded."""
    parts = {re.search(r"^/api/v1/samples/\{sample_id\}/(.+)$", path) for path in app.openapi()["paths"]}
    assert {part[1] for part in parts if part} == set(PARTS)


@given(st.one_of(st.text(min_size=1), st.sampled_from(IDS), st.from_regex(r"~[\w-]*", fullmatch=True)))
def test_a_key_names_one_id_and_is_a_plain_path(sample_id: str) -> None:
    key = sample_key(sample_id)
    assert sample_of(key) == sample_id
    assert sample_key(sample_of(sample_id)) == sample_id or sample_of(sample_id) == sample_id
    assert key.isprintable() and not {"", ".", ".."} & set(key.split("/"))
    assert "/" not in key or key.split("/")[-1] not in PARTS


def test_a_form_keeps_the_id(client: TestClient) -> None:
    """Browsers send line breaks of a form's field as CR LF; the page's field has none."""
    page = client.get("/search", params={"sample": "a\nb"}, headers={"accept": "text/html"}).text
    field = re.search(r'name="(sample_key)" value="([^"]+)"', page)
    assert field and field[2] == sample_key("a\nb")
    link = f'href="{sample_path(sample_of(field[2]))}"'
    for ask in (client.post("/search", data={field[1]: field[2]}), client.get("/search", params={field[1]: field[2]})):
        assert ask.status_code == 200 and link in ask.text, "a stored sample is searched with without the model"


@pytest.mark.parametrize("sample_id", IDS, ids=NAMES)
def test_a_sample_is_handed_to_other_pages_by_its_id(client: TestClient, sample_id: str) -> None:
    page = client.get(sample_path(sample_id), headers={"accept": "text/html"}).text
    links = [html.unescape(link) for link in re.findall(r'href="(/(?:steer|search)\?sample=[^"]+)"', page)]
    assert [parse_qs(urlsplit(link).query)["sample"] for link in links] == [[sample_id]] * 2
    steer = next(link for link in links if link.startswith("/steer"))
    state = re.search(r'data-state="([^"]+)"', client.get(steer, headers={"accept": "text/html"}).text)
    assert state and json.loads(html.unescape(state[1]))["sample"] == sample_id


def test_ids_with_line_breaks_are_not_written_one_a_line(client: TestClient, odd_store: Path) -> None:
    reply = client.get(f"{API}/filter?by=random&keep=100&format=ids")
    assert reply.status_code == 422 and "line break" in reply.json()["detail"] and "jsonl" in reply.json()["detail"]
    lines = client.get(f"{API}/filter?by=random&keep=100").text.split("\n")
    assert set(IDS) <= {json.loads(line)["id"] for line in lines if line}


def test_half_a_character_in_a_request_is_told(client: TestClient) -> None:
    for body in ({"sample_id": "\ud83d"}, {"prompt": "\ud83d"}):
        content = json.dumps({**body, "features": [{"id": 1}]})
        reply = client.post(f"{API}/steer", content=content, headers={"content-type": "application/json"})
        assert reply.status_code == 422
