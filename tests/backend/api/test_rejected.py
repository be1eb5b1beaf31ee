"""Rejected rows in the API and on the pages: paged, counted by kind, in every store."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from tests.helpers import synthetic

N_SAMPLES, N_REPEATED, N_OTHERS = 20, 130, 3
REASONS = ["it has no field 'text'", "there is no image <b>x</b>\u202e.png", "it is not valid JSON"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A store with many rejected rows, and one with none."""
    root = tmp_path_factory.mktemp("rejected")
    ids = [f"id {i} é/?" for i in range(N_REPEATED)]
    pairs = [*((one, f"its id {one!r} stands in an earlier row") for one in ids), *((None, one) for one in REASONS)]
    many = [(N_SAMPLES + i, *pair) for i, pair in enumerate(pairs)]
    for name, rows in (("many", many), ("none", [])):
        part = root / f"{name}.part"
        manifest, options = synthetic.write_part(part, N_SAMPLES)
        lines = [json.dumps(dict(zip(("index", "sample_id", "reason"), row, strict=True))) + "\n" for row in rows]
        (part / "collect" / "quarantine.jsonl").write_text("".join(lines))
        manifest["name"] = name
        manifest["data"] |= {"n_rows": N_SAMPLES + len(rows), "n_quarantined": len(rows)}
        synthetic.finish(part, synthetic.run_steps(part, manifest, options))
        part.rename(root / name)
    app = create_app(Settings(stores=[root / "many", root / "none"], live=False))
    with TestClient(app, raise_server_exceptions=False) as running:
        yield running


def test_every_row_is_listed_once_in_the_order_of_the_data(client: TestClient) -> None:
    items, cursor, n_pages = [], None, 0
    while n_pages == 0 or cursor:
        page = client.get("/api/v1/rejected", params={"limit": 50, **({"cursor": cursor} if cursor else {})}).json()
        assert page["total"] == N_REPEATED + N_OTHERS
        items += page["items"]
        cursor, n_pages = page["next"], n_pages + 1
    assert n_pages == 3 and [one["row"] for one in items] == list(range(N_SAMPLES, N_SAMPLES + N_REPEATED + N_OTHERS))
    reason = "its id 'id 0 é/?' stands in an earlier row"
    assert items[0] == {"row": N_SAMPLES, "id": "id 0 é/?", "reason": reason, "kind": "repeated-id"}
    assert [(one["id"], one["reason"]) for one in items[-N_OTHERS:]] == [(None, reason) for reason in REASONS]
    assert page["total"] == client.get("/api/v1/store").json()["n_quarantined"]


def test_kinds_are_counted_and_filter(client: TestClient) -> None:
    page = client.get("/api/v1/rejected", params={"limit": 1}).json()
    assert [(one["kind"], one["count"]) for one in page["kinds"]] == [
        ("repeated-id", N_REPEATED),
        ("missing-image", 1),
        ("no-text", 1),
        ("not-json", 1),
    ]
    first = page["kinds"][0]
    assert first["sentence"] == "130 repeat the id of an earlier row" and "--id-column row" in first["advice"]
    one = client.get("/api/v1/rejected", params={"kind": "no-text"}).json()
    assert one["total"] == 1 and one["next"] is None and one["kinds"] == page["kinds"]
    assert [item["reason"] for item in one["items"]] == ["it has no field 'text'"]
    none = client.get("/api/v1/rejected", params={"kind": "processor"}).json()
    assert none["total"] == 0 and none["items"] == []


def test_the_page_says_each_kind_once_with_its_number_and_what_to_do(client: TestClient) -> None:
    page = client.get("/rejected?kind=no-text", headers={"Accept": "text/html"}).text
    (listed,) = re.findall(r'<ul[^>]*data-testid="reason-kinds">(.*?)</ul>', page, re.S)
    for one in client.get("/api/v1/rejected").json()["kinds"]:
        assert page.count(one["sentence"]) == 1 and one["kind"] not in re.sub("<[^>]+>", "", listed)
        assert one["advice"] in listed
    assert re.findall(r'aria-current="true" data-testid="kind-([a-z-]+)"', listed) == ["no-text"]


def test_a_store_without_rejected_rows(client: TestClient) -> None:
    reply = client.get("/api/v1/rejected", params={"store": "none"}).json()
    assert reply == {"items": [], "total": 0, "next": None, "kinds": []}
    page = client.get("/rejected?store=none", headers={"Accept": "text/html"}).text
    assert 'data-testid="empty"' in page and page.count(f"all {N_SAMPLES} rows of the data are in this store") == 1
    assert 'href="/quality?store=none"' in page
    quality = [client.get(f"/quality?store={name}", headers={"Accept": "text/html"}).text for name in ("none", "many")]
    assert ['data-testid="rejected-link"' in one for one in quality] == [False, True]
    front = client.get("/?store=none", headers={"Accept": "text/html"}).text
    assert 'data-testid="rejected"' not in front and "/rejected" not in front


@pytest.mark.parametrize("params", [{"kind": "odd"}, {"limit": 0}, {"limit": 501}, {"cursor": "?"}])
def test_wrong_parameters_are_refused(client: TestClient, params: dict[str, str]) -> None:
    reply = client.get("/api/v1/rejected", params=params)
    assert reply.status_code == 422 and reply.headers["content-type"] == "application/problem+json"
    assert client.get("/api/v1/rejected", params={"cursor": "e30"}).status_code == 400


def test_the_reply_may_be_kept_while_the_store_is_the_same(client: TestClient) -> None:
    etag = client.get("/api/v1/rejected").headers["etag"]
    assert client.get("/api/v1/rejected", headers={"If-None-Match": etag}).status_code == 304


def test_the_front_page_sums_up_and_leads_to_the_list(client: TestClient) -> None:
    page = client.get("/?store=many", headers={"Accept": "text/html"}).text
    (note,) = re.findall(r'<p[^>]*data-testid="rejected">(.*?)</p>', page, re.S)
    assert "133 rows of the data are not in this store" in note
    assert "130 repeat the id of an earlier row (use --id-column row to number them)" in note
    assert 'href="/rejected"' in note


def test_the_list_is_paged_and_keeps_its_filter(client: TestClient) -> None:
    def rows(page: str) -> list[str]:
        return re.findall(r'data-testid="rejected-row"><td>([\d,]+)<', page)

    page = client.get("/rejected?kind=repeated-id", headers={"Accept": "text/html"}).text
    assert len(rows(page)) == 100 and 'data-testid="next-page"' in page
    (following,) = re.findall(r'rel="next" href="([^"]+)"', page)
    assert "kind=repeated-id" in following
    second = client.get(following.replace("&amp;", "&"), headers={"Accept": "text/html"}).text
    assert len(rows(second)) == 30 and not set(rows(page)) & set(rows(second))
    assert re.search(r'href="/api/v1/rejected\?[^"]*kind=repeated-id[^"]*" data-testid="json-link"', page)
    other = client.get("/rejected?kind=missing-image", headers={"Accept": "text/html"}).text
    assert "&lt;b&gt;x&lt;/b&gt;⟨U+202E⟩.png" in other and "<b>x</b>" not in other
    assert client.get("/rejected?kind=odd", headers={"Accept": "text/html"}).status_code == 422
    assert client.get("/rejected?kind=", headers={"Accept": "text/html"}).status_code == 200


def test_links_of_another_store_keep_it(client: TestClient, tmp_path: Path) -> None:
    page = client.get("/rejected?store=none", headers={"Accept": "text/html"}).text
    links = re.findall(r'href="((?:/api/v1)?/(?:rejected|samples|features)[^"]*)"', page)
    assert links and all("store=none" in link for link in links)
