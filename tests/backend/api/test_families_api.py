"""Families of near-copies, and decoder directions, over the API."""

import io
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from precompute.store.reader import Store
from tests.helpers import synthetic
from tests.helpers.json_api import get, walk


def test_families(client: TestClient) -> None:
    families = walk(client, "/families", limit=3, sort="id", order="asc")
    assert len(families) == len(synthetic.COPIED) and [f["id"] for f in families] == sorted(f["id"] for f in families)
    for family in families:
        one = get(client, f"/families/{family['id']}")
        assert {name: one[name] for name in family} == family and len(one["members"]) == family["n_members"]
        assert one["members"][0]["id"] == family["id"] and one["members"][0]["label"] == family["name"]
        assert {member["family"] for member in one["members"]} == {family["id"]}
        assert walk(client, "/features", family=family["id"]) == sorted(one["members"], key=lambda m: m["id"])
    member = get(client, f"/features/{families[0]['id']}")
    copies = {m["id"] for m in get(client, f"/families/{member['family']}")["members"]}
    for neighbour in [*member["neighbours"]["decoder"], *member["neighbours"]["profile"]]:
        assert neighbour["near_copy"] == (neighbour["id"] in copies)
    reply = client.get("/api/v1/families/2")
    assert reply.status_code == 404 and "There is no family 2" in reply.json()["detail"]
    folded = walk(client, "/features", fold="families", limit=500)
    assert sum(f["n_members"] for f in folded) == len(walk(client, "/features", limit=500)) > len(folded)


def test_vector(client: TestClient, store_path: Path) -> None:
    feature = synthetic.word_feature("dog")
    one = get(client, f"/features/{feature}/vector")
    raw, centred = Store.open(store_path).directions.get(feature)
    np.testing.assert_allclose(one["raw"], raw, rtol=1e-6)
    np.testing.assert_allclose(one["centred"], centred, rtol=1e-6)
    assert one["length"] == pytest.approx(np.linalg.norm(raw))
    assert one["mean_cosine"] == get(client, f"/features/{feature}")["mean_cosine"]
    reply = client.get(f"/api/v1/features/{feature}/vector?format=npy")
    assert "ETag" in reply.headers and reply.headers["content-disposition"].endswith(f'feature-{feature}.npy"')
    np.testing.assert_array_equal(np.load(io.BytesIO(reply.content)), np.stack([raw, centred]))
    assert client.get("/api/v1/features/9999/vector").status_code == 404
