"""`GET /map`: the store's own bytes, kept by clients, and a plain word where a store has none."""

import json
import shutil
from pathlib import Path

from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store import mapfile
from precompute.store.reader import Store


def test_it_is_the_stores_file(client: TestClient, store_path: Path) -> None:
    reply = client.get("/api/v1/map")
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/octet-stream"
    assert reply.content == (store_path / mapfile.NAME).read_bytes()


def test_clients_keep_it(client: TestClient) -> None:
    content_id = client.get("/api/v1/store").json()["content_id"]
    fresh = client.get("/api/v1/map")
    assert fresh.headers["cache-control"] == "no-cache"
    remaining = client.get("/api/v1/map", headers={"If-None-Match": fresh.headers["etag"]})
    assert remaining.status_code == 304 and not remaining.content and remaining.headers["etag"] == fresh.headers["etag"]
    assert "immutable" in client.get("/api/v1/map", params={"v": content_id[:12]}).headers["cache-control"]
    assert client.get("/api/v1/map", params={"v": "another"}).headers["cache-control"] == "no-cache"


def test_an_older_store_says_so(store_path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(store_path, old)
    (old / mapfile.NAME).unlink()
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["files"][mapfile.NAME], manifest["sizes"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    with TestClient(create_app(Settings(stores=[old], live=False))) as client:
        reply = client.get("/api/v1/map")
        assert reply.status_code == 404 and reply.headers["content-type"] == "application/problem+json"
        assert "older version" in reply.json()["detail"]
        page = client.get("/map", headers={"Accept": "text/html"})
        assert page.status_code == 200 and "older version" in page.text and "<canvas" not in page.text


def test_the_second_layout_is_a_map_of_its_own(client: TestClient, store_path: Path) -> None:
    first, second = (client.get("/api/v1/map", params={"layout": name}) for name in mapfile.LAYOUTS)
    assert first.content == client.get("/api/v1/map").content != second.content
    assert second.content == (store_path / mapfile.PROFILE_NAME).read_bytes()
    assert first.headers["etag"] != second.headers["etag"]
    columns = mapfile.read_map(store_path / mapfile.PROFILE_NAME)
    half = "0-0_32767-0_32767-65534_0-65534"
    inside = client.get("/api/v1/features", params={"area": f"profile_{half}", "limit": 500}).json()["items"]
    x = columns.x.astype(int)
    assert [one["id"] for one in inside] == [i for i in range(len(x)) if x[i] < 32767] != []
    page = client.get("/map", params={"area": f"profile_{half}", "feature": inside[0]["id"]}).text
    assert 'data-layout="profile"' in page and 'data-testid="layout-decoder"' in page
    near = client.get(f"/api/v1/features/{inside[0]['id']}").json()["neighbours"]["profile"]
    assert f'data-neighbours="{",".join(str(one["id"]) for one in near)}"' in page


def test_a_store_with_one_layout_has_no_switch(store_path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(store_path, old)
    (old / mapfile.PROFILE_NAME).unlink()
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["files"][mapfile.PROFILE_NAME], manifest["sizes"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    with TestClient(create_app(Settings(stores=[old], live=False))) as client:
        assert client.get("/api/v1/map?layout=profile").status_code == 404
        assert client.get("/api/v1/features?area=profile_0-0_9-0_9-9").status_code == 404
        page = client.get("/map?layout=profile&area=profile_0-0_9-0_9-9", headers={"Accept": "text/html"})
        assert page.status_code == 200 and "layout-profile" not in page.text and "<canvas" in page.text


def test_the_page_says_how_many_neighbours_the_map_preserves(client: TestClient) -> None:
    summary = client.get("/api/v1/store").json()["manifest"]["map"]
    assert summary["k"] == 10 and 0 < summary["preserved_neighbours"] <= 1
    page = client.get("/map").text
    assert f"Of each feature's {summary['k']} nearest directions" in page.replace("&#39;", "'")
    assert f"directions, {100 * summary['preserved_neighbours']:.1f} % on average" in page


def is_inside(x: int, y: int, corners: list[tuple[int, int]]) -> bool:
    """Whether a ray from the place to the right crosses the polygon's sides an odd number of times."""
    crossings = 0
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        if min(y0, y1) <= y < max(y0, y1) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) > x:
            crossings += 1
    return crossings % 2 == 1


def test_an_area_lists_the_features_inside(client: TestClient, store_path: Path) -> None:
    columns = mapfile.read_map(store_path / mapfile.NAME)
    star = [(1000, 2000), (60000, 30000), (5000, 62000), (30000, 30000)]  # it is not convex
    area = "_".join(f"{x}-{y}" for x, y in star)
    places = zip(columns.x.tolist(), columns.y.tolist(), strict=True)
    expected = [i for i, (x, y) in enumerate(places) if x != mapfile.NOWHERE and is_inside(x, y, star)]
    page = client.get("/api/v1/features", params={"area": area, "limit": 500}).json()
    assert expected and [one["id"] for one in page["items"]] == expected and page["total"] == len(expected)
    two = client.get("/api/v1/features", params={"area": area, "ids": f"{expected[0]},{expected[-1]},99999"}).json()
    assert [one["id"] for one in two["items"]] == [expected[0], expected[-1]]
    for wrong in ("1-2_3-4", "a-b_1-1_2-2", "1-2-3_1-1_2-2", "1-1_2-2_-3", "1-1_2-2_999999-1"):
        reply = client.get("/api/v1/features", params={"area": wrong})
        assert reply.status_code == 422 and "3 to 200 corners" in reply.json()["detail"]


def test_colours_tell_what_the_store_knows(client: TestClient, store_path: Path) -> None:
    store = Store.open(store_path)

    def colours(by: str, **more: str) -> bytes:
        reply = client.get("/api/v1/map/colours", params={"by": by, **more})
        assert reply.status_code == 200 and len(reply.content) == store.n_features
        return reply.content

    items = store.features.list(limit=1000).items
    assert len(items) == store.n_features
    for by in ("agreement", "label_score"):
        expected = [0 if (v := one[by]) is None else 1 + round(254 * min(max(v, 0), 1)) for one in items]
        assert [*colours(by)] == expected and any(expected)
    kinds = {"patch": 1, "row": 2, "column": 3}
    assert [*colours("place")] == [kinds[one["place"].split()[0]] if one["place"] else 0 for one in items]
    families = colours("family")
    by_family: dict[int | None, set[int]] = {}
    for one in items:
        by_family.setdefault(one["family"], set()).add(families[one["id"]])
    assert by_family.pop(None, {0}) == {0} and all(len(c) == 1 and 1 <= max(c) <= 8 for c in by_family.values())
    sample = store.samples.sample_id(3)
    share = [0.0] * store.n_features
    for modality in (0, 1):
        for feature, z in zip(*(one.tolist() for one in store.events.maxima(3, modality)), strict=True):
            share[feature] = max(share[feature], min(1.0, z / items[feature]["p999"]))
    assert [*colours("sample", sample=sample)] == [1 + round(254 * one) if one else 0 for one in share]
    store.close()
    assert "sample" in client.get("/api/v1/map/colours?by=sample").json()["detail"]
    assert client.get("/api/v1/map/colours?by=sample&sample=nothing").status_code == 404
