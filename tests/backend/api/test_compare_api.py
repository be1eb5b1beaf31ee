"""Two features beside each other, and the features of two stores with their counterparts, against naive loops."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store.reader import Store
from tests.helpers import synthetic
from tests.helpers.shared import made_once


@pytest.fixture(scope="module")
def other_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of other data, of a model of the same size."""

    def make(root: Path) -> None:
        synthetic.write_store(root / "store", n=160, seed=5)

    return made_once(tmp_path_factory, "compared", make) / "store"


@pytest.fixture(scope="module")
def both(store_path: Path, other_path: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(stores=[store_path, other_path], live=False))) as client:
        yield client


@pytest.fixture(scope="module")
def names(both: TestClient) -> list[str]:
    return [one["name"] for one in both.get("/api/v1/stores").json()["items"]]


def cosine(x_d: np.ndarray, y_d: np.ndarray) -> float:
    return float(x_d @ y_d / np.linalg.norm(x_d) / np.linalg.norm(y_d))


def test_two_features_have_the_cosines_of_their_directions(both: TestClient, store_path: Path) -> None:
    store = Store.open(store_path)
    for a, b in ((3, 4), (3, 3), (0, 60)):
        reply = both.get("/api/v1/compare", params={"a": a, "b": b}).json()
        one, two = store.directions.get(a), store.directions.get(b)
        assert reply["cosine"] == pytest.approx(cosine(one.centred_d, two.centred_d), abs=1e-5)
        assert reply["cosine_raw"] == pytest.approx(cosine(one.raw_d, two.raw_d), abs=1e-5)
        assert (reply["a"]["id"], reply["b"]["id"]) == (a, b)


def test_the_pairs_of_two_features_are_those_of_the_list(both: TestClient) -> None:
    listed = both.get("/api/v1/cooccurrence?limit=20&alike=true").json()["items"]
    assert listed
    for pair in listed:
        a, b = pair["a"]["id"], pair["b"]["id"]
        for query in ({"a": a, "b": b}, {"a": b, "b": a}):
            together = both.get("/api/v1/compare", params=query).json()["together"]
            same = [one for one in together if (one["kind"], one["a"], one["b"]) == ("text-image", a, b)]
            assert [one["support"] for one in same] == [pair["support"]]
            assert [one["lift"] for one in same] == [pytest.approx(pair["lift"])]


def test_counterparts_are_the_nearest_directions(
    both: TestClient, names: list[str], store_path: Path, other_path: Path
) -> None:
    here, there = Store.open(store_path), Store.open(other_path)
    x_fd, y_fd = (np.stack([one.directions.get(i).centred_d for i in range(one.n_features)]) for one in (here, there))
    reply = both.get("/api/v1/compare/stores", params={"with": names[1], "limit": 60, "sort": "id"}).json()
    assert reply["total"] == here.n_features and len(reply["items"]) == 60
    for item in reply["items"]:
        id = item["feature"]["id"]
        if not x_fd[id].any():
            assert item["other"] is None and item["cosine"] is None
            continue
        cosines = y_fd @ x_fd[id]
        assert item["cosine"] == pytest.approx(cosines.max(), abs=2e-3)
        to = item["other"]["id"]
        assert cosines[to] == pytest.approx(cosines.max(), abs=2e-3)
        assert item["mutual"] == (int((x_fd @ y_fd[to]).argmax()) == id)


def test_a_page_follows_the_filters_of_the_list(both: TestClient, names: list[str]) -> None:
    query = {"with": names[1], "min_n_samples": 2, "sort": "n_samples", "order": "desc", "limit": 3}
    reply = both.get("/api/v1/compare/stores", params=query).json()
    listed = both.get("/api/v1/features", params={k: v for k, v in query.items() if k != "with"}).json()
    assert [one["feature"]["id"] for one in reply["items"]] == [one["id"] for one in listed["items"]]
    rest = both.get("/api/v1/compare/stores", params={**query, "cursor": reply["next"]}).json()
    assert rest["items"] and rest["items"][0] not in reply["items"]


@pytest.mark.parametrize(
    "query, status, part",
    [
        ("compare?a=1", 422, "b: Field required"),
        ("compare?a=1&b=100000", 404, "There is no feature 100000"),
        ("compare/stores?with=nobody", 404, "There is no store 'nobody'"),
    ],
)
def test_what_is_wrong_is_one_sentence(both: TestClient, query: str, status: int, part: str) -> None:
    reply = both.get(f"/api/v1/{query}")
    assert reply.status_code == status and part in reply.json()["detail"]


def test_the_page_shows_two_features_and_two_stores(both: TestClient, names: list[str]) -> None:
    html = {"Accept": "text/html"}
    page = both.get("/compare?a=3&b=6", headers=html).text
    assert 'data-testid="side-2"' in page and "How alike they are" in page
    page = both.get("/compare?a=3", headers=html).text
    assert page.count('data-testid="candidate"') >= 1 and f"<option>{names[1]}</option>" in page
    page = both.get("/compare", params={"with": names[1]}, headers=html).text
    assert page.count('data-testid="match"') == 30 and re.search(rf"/features/\d+\?store={names[1]}", page)
    for name in names:  # on a narrow window each half of a row says of which store it is
        assert page.count(f'<td class="whole" data-name="{name}"><a class="thumbs"') == 30
    reply = both.get("/compare", params={"with": names[0]}, headers=html)
    assert reply.status_code == 422 and "compared with itself" in reply.text


def test_words_mean_their_best_match_and_the_list_leads_to_two(both: TestClient) -> None:
    html = {"Accept": "text/html"}
    ids = [one["id"] for one in both.get("/api/v1/search?q=dog").json()["features"]]
    page = both.get("/compare?a=dog&b=%236", headers=html).text
    assert f"<title>Features {ids[0]} and 6" in page and f'href="/compare?b=%236&amp;a={ids[1]}"' in page
    page = both.get("/compare?a=zzqq&b=6", headers=html).text
    assert "No feature matches" in page and "zzqq" in page and 'data-testid="side-1"' not in page
    number = both.get("/compare?a=999999&b=6", headers=html)
    assert number.status_code == 200 and 'data-testid="no-a"' in number.text
    chosen = both.get("/compare?feature=3:add:1&feature=6:add:1", headers=html, follow_redirects=False)
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/compare?a=3&b=6")
    three = both.get("/compare?feature=3&feature=4&feature=5", headers=html)
    assert three.status_code == 422 and "3 features are selected: select two" in three.text


def test_a_lens_that_says_nothing_is_told_as_on_the_page_of_the_feature(both: TestClient) -> None:
    html = {"Accept": "text/html"}
    is_silent = {id: 'data-testid="lens-empty"' in both.get(f"/features/{id}", headers=html).text for id in range(12)}
    for id, empty in is_silent.items():
        assert ('data-testid="lens-empty"' in both.get(f"/compare?a={id}&b={id}", headers=html).text) == empty
