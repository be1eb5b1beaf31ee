"""Whole lists of features over the API: files, ranges, distributions, a random one."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from pyarrow import parquet as pq

from backend.app import create_app
from backend.settings import Settings
from precompute.store.lists.filters import RANGED
from precompute.store.lists.ranges import BINS
from precompute.store.schema import VERDICTS
from tests.helpers.json_api import walk
from tests.helpers.stores import seal


def get(client: TestClient, path: str, **params: Any) -> Any:
    reply = client.get(f"/api/v1{path}", params=params)
    assert reply.status_code == 200, reply.text
    return reply


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"sort": "pair_lift", "order": "desc"},
        {"fold": "names", "sort": "label_score", "order": "asc"},
        {"q": "red", "min_n_samples": 5},
        {"min_density_image": 0.001, "max_density_text": 0.5, "sort": "lift"},
        {"min_agreement": 2},
    ],
    ids=str,
)
def test_files_hold_what_the_list_shows(client: TestClient, query: dict[str, Any]) -> None:
    items = [{**one, "tags": ", ".join(one["tags"])} for one in walk(client, "/features", limit=7, **query)]
    reply = get(client, "/features.csv", **query)
    assert reply.headers["content-disposition"].endswith('features.csv"')
    lines = list(csv.DictReader(io.StringIO(reply.text)))
    table = pq.read_table(io.BytesIO(get(client, "/features.parquet", **query).content)).to_pylist()
    assert table == items
    assert [{k: "" if v is None else str(v) for k, v in one.items()} for one in items] == lines


def test_ranges_hold_their_ends(client: TestClient) -> None:
    everything = walk(client, "/features", limit=7)
    for name in RANGED:
        values = sorted(one[name] for one in everything if one[name] is not None)
        assert values, name
        low, high = values[len(values) // 4], values[3 * len(values) // 4]
        inside = walk(client, "/features", limit=7, **{f"min_{name}": low, f"max_{name}": high})
        assert sorted(one["id"] for one in inside) == [
            one["id"] for one in everything if one[name] is not None and low <= one[name] <= high
        ]


def test_distributions_count_every_feature(client: TestClient) -> None:
    everything = walk(client, "/features", limit=7)
    items = get(client, "/features/distributions").json()["items"]
    assert [one["name"] for one in items] == list(RANGED)
    for one in items:
        assert sum(one["counts"]) + one["n_missing"] == len(everything)
        values = np.array([v for f in everything if (v := f[one["name"]]) is not None and (v > 0 or not one["log"])])
        assert len(one["counts"]) == BINS and len(one["edges"]) == BINS + 1
        counted = [
            int(((values >= low) & (values < high)).sum())
            for low, high in zip(one["edges"], one["edges"][1:], strict=False)
        ]
        assert counted[1:-1] == one["counts"][1:-1]
        if one["log"]:
            steps = np.diff(np.log(one["edges"]))
            np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


@pytest.mark.parametrize("fold", [None, "families", "names"])
@pytest.mark.parametrize("filters", [{}, {"q": "red"}, {"min_n_samples": 12, "has_label": True}, {"min_agreement": 2}])
def test_counts_by_verdict_are_totals_of_lists(client: TestClient, filters: dict[str, Any], fold: str | None) -> None:
    query = {**filters, **({"fold": fold} if fold else {})}
    counts = get(client, "/features/verdicts", verdict="dead", **query).json()["verdicts"]
    assert counts == {v: get(client, "/features", verdict=v, limit=1, **query).json()["total"] for v in VERDICTS}
    assert sum(counts.values()) > 0 or "min_agreement" in filters


def test_a_random_feature_passes_the_filters(client: TestClient) -> None:
    allowed = {one["id"] for one in walk(client, "/features", limit=7, q="red", fold="names")}
    drawn = {get(client, "/features/random", q="red", fold="names").json()["id"] for _ in range(40)}
    assert drawn <= allowed and len(drawn) > 1
    reply = client.get("/api/v1/features/random?min_agreement=2")
    assert reply.status_code == 404 and "relax one" in reply.json()["detail"]


def test_files_of_a_store_whose_name_is_in_another_script(store_path: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(store_path, store)
    manifest = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**manifest, "name": '\u732b "1"'}))
    seal(store)
    names = {"features.csv": "features.csv", "annotations/export": "annotations.json", "export": "80-samples.jsonl"}
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        for path, name in names.items():
            assert get(client, f"/{path}").headers["Content-Disposition"] == f'attachment; filename="1-{name}"'
