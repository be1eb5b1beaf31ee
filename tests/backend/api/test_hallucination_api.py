"""`GET /hallucination`, the column and the order of the list of features, and what the pages say of it."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.pages.hallucination import effect_sentence
from backend.schemas.hallucination import HallucinationFigures
from backend.settings import Settings
from precompute.store.companion_files import HALLUCINATION, companion_path
from precompute.store.reader import Store

SEPARATION = {3: 0.25, 5: -0.5, 8: 0.25, 11: 0.0}


def rate(value: float, spread: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def figures(accuracy: float, hallucinated: float) -> dict[str, Any]:
    way = {"accuracy": rate(0.7), "hallucinated": rate(0.3), "missed": rate(0.2), "chair": None}
    return {
        "questions": {"present": 30, "random": 20},
        "hallucinated_to_choose_on": 9,
        "hallucinated_reported": 7,
        "halves_agree": 0.1,
        "strength": 0.5,
        "features": [{"id": 3, "label": "<b>", "separation": 0.25, "separation_reported": 0.1}],
        "ways": {"not steered": way, "towards right": way},
        "against_random": {"accuracy": rate(accuracy), "hallucinated": rate(hallucinated)},
        "separation": {"ids": list(SEPARATION), "values": list(SEPARATION.values())},
    }


@pytest.fixture
def measured(store_path: Path, tmp_path: Path) -> Path:
    store = shutil.copytree(store_path, tmp_path / "my store")
    content_id = json.loads((store / "manifest.json").read_text())["content_id"]
    companion_path(store, HALLUCINATION).write_text(json.dumps({"content_id": content_id, **figures(0.2, -0.2)}))
    return store


@pytest.fixture
def served(measured: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(stores=[measured], live=False))) as client:
        yield client


def test_the_list_is_sorted_by_what_was_measured_later(served: TestClient) -> None:
    n = served.get("/api/v1/store").json()["n_features"]
    others = [k for k in range(n) if k not in SEPARATION]
    for order, first in (("desc", [8, 3, 11, 5]), ("asc", [5, 11, 3, 8])):
        ids: list[int] = []
        cursor = None
        while True:
            query = {"sort": "hallucination", "order": order, "limit": 7, **({"cursor": cursor} if cursor else {})}
            page = served.get("/api/v1/features", params=query).json()
            assert page["total"] == n
            for one in page["items"]:
                assert one["hallucination"] == SEPARATION.get(one["id"])
            ids += [one["id"] for one in page["items"]]
            if (cursor := page["next"]) is None:
                break
        assert ids == first + others
    chosen = served.get("/api/v1/features", params={"sort": "hallucination", "ids": "5,2,3", "order": "desc"}).json()
    assert [one["id"] for one in chosen["items"]] == [3, 5, 2] and chosen["total"] == 3
    table = served.get("/api/v1/features.csv", params={"sort": "hallucination", "ids": "5,2,3"}).text
    assert [(r["id"], r["hallucination"]) for r in csv.DictReader(io.StringIO(table))] == [
        ("5", "-0.5"),
        ("3", "0.25"),
        ("2", ""),
    ]
    assert served.get("/api/v1/features/5").json()["hallucination"] == -0.5


def test_pages_show_it(served: TestClient) -> None:
    page = served.get("/features", params={"sort": "hallucination", "fold": "none", "cols": "hallucination"}).text
    rows = re.findall(r'data-testid="feature-row" data-feature="(\d+)"', page)
    assert rows[:4] == ["8", "3", "11", "5"] and 'value="hallucination" selected' in page
    assert 'data-testid="separation">-0.50' in served.get("/features/5").text.replace("−", "-")
    assert 'data-testid="separation"' not in served.get("/features/2").text
    sae = served.get("/sae").text
    assert "it beats random features" in sae and "hallucination-ways" in sae and "<b>" not in sae


def test_nothing_of_it_where_it_was_not_measured(client: TestClient) -> None:
    reply = client.get("/api/v1/hallucination").json()
    assert reply["hallucination"] is None and reply["command"].endswith("--attach")
    refused = client.get("/api/v1/features", params={"sort": "hallucination"})
    assert refused.status_code == 400 and "saevx experiment hallucination" in refused.json()["detail"]
    assert "hallucination" not in client.get("/features").text.replace("hallucinations", "")
    assert "hallucination-empty" in client.get("/sae").text
    rows = list(csv.DictReader(io.StringIO(client.get("/api/v1/features.csv").text)))
    assert {row["hallucination"] for row in rows} == {""}


def test_the_file_may_come_go_and_be_wrong(measured: Path, served: TestClient) -> None:
    path = companion_path(measured, HALLUCINATION)
    first = served.get("/api/v1/features/5")
    tag = {"If-None-Match": first.headers["etag"]}
    assert served.get("/api/v1/features/5", headers=tag).status_code == 304
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "separation": {"ids": [5], "values": [0.125]}}))
    assert served.get("/api/v1/features/5", headers=tag).json()["hallucination"] == 0.125, "not the one cached"
    path.write_text(json.dumps({**content, "content_id": "another"}))
    assert "belongs to another store" in served.get("/api/v1/hallucination").json()["note"]
    assert served.get("/api/v1/features/5").json()["hallucination"] is None
    path.write_text(json.dumps({**content, "ways": 3}))
    assert "cannot be read" in served.get("/api/v1/hallucination").json()["note"]
    path.write_text(json.dumps({**content, "separation": [1]}))
    assert "cannot be read" in served.get("/sae").text


def test_python_has_it_too(measured: Path) -> None:
    store = Store.open(measured)
    assert store.hallucination.separation == SEPARATION
    assert [one["id"] for one in store.features.list(sort="hallucination", order="desc", limit=2).items] == [8, 3]
    store.close()


@pytest.mark.parametrize(
    ("accuracy", "hallucinated", "verdict"),
    [
        (0.2, -0.2, "beats random features"),
        (-0.2, -0.2, "does worse"),
        (0.0, -0.2, "no more are right"),
        (0.0, 0.0, "no clear difference"),
    ],
)
def test_the_sentence_says_whether_it_beats_random(accuracy: float, hallucinated: float, verdict: str) -> None:
    sentence = effect_sentence(HallucinationFigures.model_validate(figures(accuracy, hallucinated)))
    assert verdict in sentence and f"{100 * hallucinated:+.1f}".replace("-", "−") in sentence
