"""The map of samples in the API: the store's own bytes, its colours against the tables, areas and filters."""

import json
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store import mapfile
from precompute.store.reader import Store
from precompute.store.schema import SCORES

API = "/api/v1"
STAR = [(1000, 2000), (60000, 30000), (5000, 62000), (30000, 30000)]
"""Corners of an area that is not convex."""
AREA = "_".join(f"{x}-{y}" for x, y in STAR)


def is_inside(x: int, y: int) -> bool:
    """Whether a ray from the place to the right crosses the star's sides an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(STAR, [*STAR[1:], STAR[0]], strict=True):
        if min(y0, y1) <= y < max(y0, y1) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) > x:
            crossings += 1
    return crossings % 2 == 1


def rows_inside(store_path: Path) -> list[int]:
    stored = mapfile.read_sample_map(store_path / mapfile.SAMPLES_NAME)
    places = zip(stored.x.tolist(), stored.y.tolist(), strict=True)
    return [row for row, (x, y) in enumerate(places) if x != mapfile.NOWHERE and is_inside(x, y)]


def test_it_is_the_stores_file_and_clients_keep_it(client: TestClient, store_path: Path) -> None:
    reply = client.get(f"{API}/map/samples")
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/octet-stream"
    assert reply.content == (store_path / mapfile.SAMPLES_NAME).read_bytes()
    assert reply.headers["etag"] != client.get(f"{API}/map").headers["etag"]
    again = client.get(f"{API}/map/samples", headers={"If-None-Match": reply.headers["etag"]})
    assert again.status_code == 304 and not again.content
    version = client.get(f"{API}/store").json()["content_id"][:12]
    for path in ("/map/samples", "/map/samples/colours"):
        assert "immutable" in client.get(API + path, params={"v": version}).headers["cache-control"]


def test_colours_tell_what_the_tables_say(client: TestClient, store_path: Path) -> None:
    store = Store.open(store_path)
    n = store.n_samples

    def colours(name: str) -> list[int]:
        reply = client.get(f"{API}/map/samples/colours", params={"colour": name})
        assert reply.status_code == 200 and len(reply.content) == n
        return [*reply.content]

    items = client.get(f"{API}/samples", params={"limit": 500}).json()["items"]
    assert colours("flags") == [len(one["flags"]) for one in items]
    assert [*client.get(f"{API}/map/samples/colours").content] == colours("flags") and any(colours("flags"))
    for flag in client.get(f"{API}/flags").json()["items"]:
        name = flag["name"]
        has_it = colours(name)
        assert [value == 2 for value in has_it] == [name in one["flags"] for one in items], name
    for name in SCORES:
        values = [one["scores"][name] for one in items]
        known, expected = sorted(v for v in values if v is not None), [0] * n
        headers = client.get(f"{API}/map/samples/colours", params={"colour": name}).headers
        if known:
            low, high = (float(headers[f"x-value-{end}"]) for end in ("low", "high"))
            for end, share in ((low, 0.01), (high, 0.99)):
                assert sum(v < end for v in known) <= share * len(known) <= sum(v <= end for v in known)
            shares = [None if v is None else min(max((v - low) / max(high - low, 1e-30), 0), 1) for v in values]
            expected = [0 if one is None else 1 + round(254 * one) for one in shares]
        drawn = colours(name)
        assert all(abs(a - b) <= 1 and (a == 0) == (b == 0) for a, b in zip(drawn, expected, strict=True)), name
    store.close()
    assert client.get(f"{API}/map/samples/colours?colour=nothing").status_code == 422


@pytest.mark.parametrize(
    "filters", [{}, {"q": "red"}, {"flags": "mismatch"}, {"q": "red", "max_length": 4}, {"feature": 3, "side": "text"}]
)
def test_an_area_holds_the_samples_inside_that_pass(
    client: TestClient, store_path: Path, filters: dict[str, str | int]
) -> None:
    passing = {one["row"] for one in client.get(f"{API}/samples", params={**filters, "limit": 500}).json()["items"]}
    expected = [row for row in rows_inside(store_path) if row in passing]
    page = client.get(f"{API}/samples", params={**filters, "area": AREA, "limit": 500}).json()
    assert [one["row"] for one in page["items"]] == expected and page["total"] == len(expected)
    lines = client.get(f"{API}/export", params={**filters, "area": AREA, "format": "ids"}).text.split()
    assert lines == [one["sample_id"] for one in page["items"]]
    selected = [*client.get(f"{API}/map/samples/selected", params=filters).content]
    assert [row for row, value in enumerate(selected) if value] == sorted(passing)


def test_an_area_pages_and_sorts(client: TestClient, store_path: Path) -> None:
    inside = rows_inside(store_path)
    assert len(inside) > 4
    rows, cursor = [], None
    while True:
        query = {"area": AREA, "sort": "l0", "order": "desc", "limit": 3, **({"cursor": cursor} if cursor else {})}
        page = client.get(f"{API}/samples", params=query).json()
        rows += [(one["scores"]["l0"], one["row"]) for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(row for _, row in rows) == inside and rows == sorted(rows, key=lambda one: -one[0])


@pytest.mark.parametrize("area", ["1-2_3-4", "a-b_1-1_2-2", "1-2-3_1-1_2-2", "1-1_2-2_-3", "profile_"])
@pytest.mark.parametrize("path", ["/samples", "/export", "/map/samples/selected"])
def test_no_area_is_a_sentence(client: TestClient, path: str, area: str) -> None:
    reply = client.get(API + path, params={"area": area})
    assert reply.status_code == 422 and "3 to 200 corners" in reply.json()["detail"]


def test_rows_come_as_asked(client: TestClient) -> None:
    page = client.get(f"{API}/samples", params={"rows": "7,3,7,99999999"}).json()
    assert [one["row"] for one in page["items"]] == [7, 3] and page["total"] == 2 and page["next"] is None
    reply = client.get(f"{API}/samples", params={"rows": "7,x"})
    assert reply.status_code == 422 and "rows" in reply.json()["detail"]


def test_an_older_store_says_what_to_do(store_path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(store_path, old)
    (old / mapfile.SAMPLES_NAME).unlink()
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["files"][mapfile.SAMPLES_NAME], manifest["sizes"], manifest["sample_map"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    with TestClient(create_app(Settings(stores=[old], live=False))) as client:
        for path in ("/map/samples", f"/samples?area={AREA}", f"/export?area={AREA}"):
            reply = client.get(API + path)
            assert reply.status_code == 404 and reply.headers["content-type"] == "application/problem+json"
            assert "`saevx migrate STORE --out NEW`" in reply.json()["detail"]
        for address in ("/map?of=samples", f"/map?of=samples&area={AREA}&row=3&q=red"):
            page = client.get(address, headers={"Accept": "text/html"})
            assert page.status_code == 200 and "saevx migrate" in page.text and "<canvas" not in page.text
        sample = client.get(f"{API}/samples?limit=1").json()["items"][0]["sample_id"]
        assert "on-map" not in client.get(f"/samples/{sample}", headers={"Accept": "text/html"}).text
        assert client.get(f"{API}/map/samples/selected?q=red").status_code == 200, "it is a list, no map"


def test_the_page_is_whole_without_a_script(client: TestClient, store_path: Path) -> None:
    inside, headers = rows_inside(store_path), {"Accept": "text/html"}
    page = client.get("/map", params={"of": "samples", "area": AREA, "row": inside[0]}, headers=headers).text
    assert f'data-row="{inside[0]}"' in page and f"{len(inside)} samples in this area" in page
    assert f"area={AREA}" in page and "Of each sample&#39;s 10 nearest" in page.replace("'", "&#39;")
    assert 'data-of="samples"' not in client.get("/map", headers=headers).text
    assert client.get("/map?of=other", headers=headers).status_code in (200, 422)
    gone = client.get("/map?of=samples&row=99999", headers=headers)
    assert gone.status_code == 200 and "There is no sample in row 99999" in gone.text
    assert client.get("/map?of=samples&colour=nothing", headers=headers).status_code == 422
