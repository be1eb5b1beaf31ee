"""The distributions of `GET /sae` and its page, against plain loops over the store."""

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store.events import patches
from precompute.store.making.sealing import seal
from precompute.store.opening import read_manifest
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, PLACE_SIDE, TEXT


@pytest.fixture(scope="module")
def report(client: TestClient) -> dict[str, Any]:
    return dict(client.get("/api/v1/sae").raise_for_status().json())


def test_features_by_density(client: TestClient, report: dict[str, Any]) -> None:
    features = client.get("/api/v1/features", params={"limit": 500}).json()["items"]
    edges, counts = report["density"]["edges"], report["density"]["counts"]
    expected = [[0] * len(edges) for _ in edges]

    def cell(density: float) -> int:
        return 0 if density == 0 else max(1, min(len(edges) - 1, sum(edge <= density for edge in edges)))

    for f in features:
        expected[cell(f["density_text"])][cell(f["density_image"])] += 1
    assert counts == expected and counts[0][0] == report["dead"]["both"]
    assert report["verdicts"] == client.get("/api/v1/store").json()["verdicts"]


def test_active_features_of_tokens_and_places(report: dict[str, Any], store_path: Path) -> None:
    store = Store.open(store_path)
    numbers: dict[int, list[int]] = {TEXT: [], IMAGE: []}
    by_place: dict[tuple[int, int], list[int]] = {}
    rows = range(store.n_samples)
    for row in rows:
        sample = store.events.of(row)
        n_active = np.diff(sample.offset_t)
        for n, modality in zip(n_active, sample.modality_t, strict=True):
            if modality in numbers:
                numbers[int(modality)].append(int(n))
        views = [list(one.values())[:2] for one in store.samples.get(store.samples.sample_id(row))["views"]]
        at = patches(sample, views)
        for position, view, i, j in zip(*at, strict=True):
            height, width = views[view]
            place = ((2 * i + 1) * PLACE_SIDE // (2 * height), (2 * j + 1) * PLACE_SIDE // (2 * width))
            by_place.setdefault(place, []).append(int(n_active[position]))
    spread = report["l0_tokens"]
    assert spread["n"] == report["fvu_samples"]["n"] == report["l0_places"]["n"] == store.n_samples
    for name, modality in (("text", TEXT), ("image", IMAGE)):
        edges, counts = spread[name]["edges"], spread[name]["counts"]
        assert edges == spread["text"]["edges"]
        assert counts == [sum(low <= n < high for n in numbers[modality]) for low, high in pairwise(edges)]
        assert sum(counts) == len(numbers[modality]) > 0
    for i, line in enumerate(report["l0_places"]["mean"]):
        for j, mean in enumerate(line):
            values = by_place.get((i, j))
            assert (mean is None) == (values is None)
            assert values is None or mean == pytest.approx(np.mean(values))


def test_fvu_by_place_is_the_fvu_of_images_divided(report: dict[str, Any], store_path: Path) -> None:
    store = Store.open(store_path)
    n_tokens = np.zeros((PLACE_SIDE, PLACE_SIDE))
    for row in range(store.n_samples):
        views = [list(one.values())[:2] for one in store.samples.get(store.samples.sample_id(row))["views"]]
        sample = store.events.of(row)
        for position, view, i, j in zip(*patches(sample, views), strict=True):
            if sample.modality_t[position] != IMAGE:  # a sink
                continue
            height, width = views[view]
            n_tokens[(2 * i + 1) * PLACE_SIDE // (2 * height), (2 * j + 1) * PLACE_SIDE // (2 * width)] += 1
    fvu = np.array(report["fvu_places"]["mean"], float)
    assert (np.isnan(fvu) == (n_tokens == 0)).all() and report["fvu_places"]["n"] == store.n_samples
    assert np.nansum(fvu * n_tokens) / n_tokens.sum() == pytest.approx(report["fvu"]["image"])
    assert np.nanmax(fvu) > np.nanmin(fvu)


def test_a_store_without_it_says_so(store_path: Path, tmp_path: Path) -> None:
    """An older store, whose manifest lacks the figure."""
    older = tmp_path / "store"
    shutil.copytree(store_path, older)
    manifest = read_manifest(older)
    del manifest["quality"]["fvu_places"]
    seal(older, manifest)
    with TestClient(create_app(Settings(stores=[older], live=False))) as client:
        page = client.get("/sae", headers={"Accept": "text/html"}).text
    assert "FVU by place is not held" in page and 'data-testid="l0-places"' in page


def test_fvu_of_samples(client: TestClient, report: dict[str, Any]) -> None:
    items = client.get("/api/v1/samples", params={"limit": 500}).json()["items"]
    for name in ("text", "image"):
        details = [client.get(f"/api/v1/samples/{one['sample_id']}").json()[f"fvu_{name}"] for one in items]
        values = [one for one in details if one is not None]
        edges, counts = report["fvu_samples"][name]["edges"], report["fvu_samples"][name]["counts"]
        assert sum(counts) == len(values) > 0
        assert counts[0] == sum(one < edges[1] for one in values)
        assert counts[-1] == sum(one >= edges[-2] for one in values)  # and what lies beyond


def test_the_page_draws_them(client: TestClient, report: dict[str, Any]) -> None:
    page = client.get("/sae", headers={"Accept": "text/html"}).text
    n_cells = sum(n > 0 for row in report["density"]["counts"] for n in row)
    drawn = re.search(r'class="density".*?</svg>', page, re.S)
    assert drawn and drawn[0].count("<rect") == n_cells
    assert (
        sum(int(n.replace(",", "")) for n in re.findall(r"<title>([\d,]+) features?; text", drawn[0]))
        == (report["n_features"])
    )
    for testid in ("verdict-shares", "spreads", "l0-places", "fvu-places"):
        assert f'data-testid="{testid}"' in page
    for verdict, n in report["verdicts"].items():
        assert (f'href="/features?verdict={verdict}"' in page) == (n > 0)
