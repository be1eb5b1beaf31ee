"""`GET /map`: the store's own bytes, kept by clients, and a plain word where a store has none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store import mapfile


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


def test_the_page_says_how_many_neighbours_the_map_preserves(client: TestClient) -> None:
    summary = client.get("/api/v1/store").json()["manifest"]["map"]
    assert summary["k"] == 10 and 0 < summary["preserved_neighbours"] <= 1
    page = client.get("/map").text
    assert f"Of each feature's {summary['k']} nearest directions" in page.replace("&#39;", "'")
    assert f"directions, {100 * summary['preserved_neighbours']:.1f} % on average" in page
