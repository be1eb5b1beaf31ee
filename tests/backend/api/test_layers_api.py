"""Two layers of one model and data: matches by shared samples, what only one has, and the same place in the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from tests.helpers import synthetic, synthetic_layers
from tests.helpers.synthetic import word_feature

OTHER = "synthetic-7"
NUMBER = {int(old): new for new, old in enumerate(synthetic_layers.layer_order(7))}
"""Of each feature of layer 3 its number in layer 7."""
BY = {"with": OTHER, "by": "samples"}
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    stores = [synthetic.small_store(tmp_path_factory), synthetic_layers.layer_store(tmp_path_factory)]
    with TestClient(create_app(Settings(stores=stores, live=False)), follow_redirects=False) as client:
        yield client


def first_sample(layers: TestClient) -> str:
    return str(layers.get("/api/v1/samples?limit=1").json()["items"][0]["sample_id"])


def test_the_list_matches_by_shared_samples(layers: TestClient) -> None:
    reply = layers.get("/api/v1/compare/stores", params={**BY, "ids": "0,3", "sort": "id"}).json()
    assert (reply["by"], reply["n_shared"], reply["n_compared"]) == ("samples", 80, 80)
    assert [one["other"]["id"] for one in reply["items"]] == [NUMBER[0], NUMBER[3]]
    assert [one["cosine"] for one in reply["items"]] == [pytest.approx(1, abs=1e-5)] * 2
    by_direction = layers.get("/api/v1/compare/stores", params={"with": OTHER, "ids": "0,3"}).json()
    assert max(one["cosine"] for one in by_direction["items"]) < 0.9  # the directions were turned


def test_what_only_one_layer_has(layers: TestClient) -> None:
    """Each page goes on where the one before ends; together they are the features below the cosine, and no other."""
    every, cursor = [], None
    while True:
        query = {**BY, "limit": 2, **({"cursor": cursor} if cursor else {})}
        page = layers.get("/api/v1/compare/stores/only", params=query).json()
        every += page["items"]
        if (cursor := page["next"]) is None:
            break
    ids = [one["feature"]["id"] for one in every]
    assert len(ids) == len(set(ids)) == page["total"]
    assert word_feature("dog") in ids and word_feature("red") not in ids
    assert all(one["cosine"] is None or one["cosine"] < 0.5 for one in every)
    order = layers.get("/api/v1/features?sort=evidence&order=desc&limit=128").json()["items"]
    alive = [one["id"] for one in order if one["verdict"] != "dead"]
    assert ids == [id for id in alive if id in set(ids)]
    query = {**BY, "ids": ",".join(map(str, alive)), "limit": 128}
    listed = layers.get("/api/v1/compare/stores", params=query).json()["items"]
    assert set(ids) == {one["feature"]["id"] for one in listed if one["cosine"] is None or one["cosine"] < 0.5}
    wrong = layers.get("/api/v1/compare/stores/only", params={**BY, "least": 0.6, "cursor": "WyJhIixudWxsLDFd"})
    assert wrong.status_code == 400 and "another list" in wrong.json()["detail"]
    there = layers.get("/api/v1/compare/stores/only", params={"store": OTHER, "with": "synthetic", "by": "samples"})
    assert there.json()["total"] <= page["total"] - 3  # the silenced word's three features are here alone


def test_points_have_the_figures_of_both(layers: TestClient) -> None:
    reply = layers.get("/api/v1/compare/stores/points", params=BY).json()
    assert len(reply["points"]) == reply["n_matched"] and 0 < reply["n_mutual"] <= reply["n_matched"]
    for point in reply["points"][:5]:
        here = layers.get(f"/api/v1/features/{point['feature']}").json()
        there = layers.get(f"/api/v1/features/{point['other']}", params={"store": OTHER}).json()
        for name in ("agreement", "density_text", "density_image"):
            assert point[name] == [here[name], there[name]]
        assert point["cosine"] >= 0.5


def test_stores_without_a_sample_in_common_say_so(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    synthetic.write_store(tmp_path / "store", n=20, seed=5)
    stores = [synthetic.small_store(tmp_path_factory), tmp_path / "store"]
    with TestClient(create_app(Settings(stores=stores, live=False))) as client:
        name = client.get("/api/v1/stores").json()["items"][1]["name"]
        reply = client.get("/api/v1/compare/stores", params={"with": name, "by": "samples"})
        assert reply.status_code == 400 and "no sample in common" in reply.json()["detail"]
        page = client.get("/compare", params={"with": name, "by": "samples"}, headers=HTML)
        assert page.status_code == 200 and 'data-testid="no-matching"' in page.text
        assert client.get("/api/v1/layers").json()["items"] == []  # of one layer
        assert 'data-testid="layers"' not in client.get("/features/0", headers=HTML).text


def test_layers_are_listed_with_the_place(layers: TestClient) -> None:
    items = layers.get("/api/v1/layers", params={"feature": 0, "sample": first_sample(layers)}).json()["items"]
    assert [(one["store"], one["layer"], one["current"]) for one in items] == [
        ("synthetic", 3, True),
        (OTHER, 7, False),
    ]
    assert items[1]["feature"] == NUMBER[0] and items[1]["by"] == "samples"
    assert items[1]["sample_id"] == first_sample(layers)
    assert f"Feature #{NUMBER[0]} of layer 7 is the best match of #0 of layer 3" in items[1]["sentence"]
    assert layers.get("/api/v1/layers?feature=4000").status_code == 404
    assert layers.get("/api/v1/layers?sample=nobody").status_code == 404


def test_a_feature_leads_to_its_match_and_says_so(layers: TestClient) -> None:
    page = layers.get("/features/0", headers=HTML).text
    assert 'href="/layer?feature=0&amp;to=synthetic-7"' in page
    reply = layers.get(f"/layer?feature=0&to={OTHER}", headers=HTML)
    assert reply.status_code == 303
    assert reply.headers["location"] == f"/features/{NUMBER[0]}?from=synthetic%3A0&store={OTHER}"
    assert "is the best match of #0 of layer 3 by shared samples" in layers.get(reply.headers["location"]).text


def test_a_feature_without_a_match_stays_and_says_so(layers: TestClient) -> None:
    dog = word_feature("dog")
    reply = layers.get(f"/layer?feature={dog}&to={OTHER}", headers=HTML)
    assert reply.headers["location"] == f"/features/{dog}?missing={OTHER}"
    assert f"Feature #{dog} of layer 3 has no match in layer 7" in layers.get(reply.headers["location"]).text


def test_a_sample_stays_with_the_features_chosen_on_it(layers: TestClient) -> None:
    sample = first_sample(layers)
    query = {"sample": sample, "f": f"0,{word_feature('dog')}", "to": OTHER}
    reply = layers.get("/layer", params=query, headers=HTML)
    assert reply.headers["location"].startswith(f"/samples/{sample}?f={NUMBER[0]}&from=synthetic%3A0,")
    page = layers.get(reply.headers["location"]).text
    assert page.count('data-testid="layer-note"') == 2 and "has no match in layer 7" in page


def test_a_comparison_of_two_features_is_followed_too(layers: TestClient) -> None:
    reply = layers.get(f"/layer?a=0&b=3&to={OTHER}", headers=HTML)
    assert reply.headers["location"].startswith(f"/compare?a={NUMBER[0]}&b={NUMBER[3]}&from=")
    reply = layers.get(f"/layer?a=0&b={word_feature('dog')}&to={OTHER}", headers=HTML)
    assert reply.headers["location"].endswith(f"missing={OTHER}")
    assert "has no match in layer 7" in layers.get(reply.headers["location"], headers=HTML).text


@pytest.mark.parametrize("query", ["feature=0&to=nobody", "feature=0&to=synthetic"])
def test_a_store_that_is_no_other_layer_is_refused(layers: TestClient, query: str) -> None:
    reply = layers.get(f"/layer?{query}")
    assert reply.status_code == 404 and "is no other layer of synthetic" in reply.json()["detail"]


def test_an_address_that_names_anything_as_its_origin_says_nothing(layers: TestClient) -> None:
    for query in ("from=nobody:0", "from=%3Cb%3E", "missing=%3Cscript%3E", f"from={OTHER}:99999"):
        reply = layers.get(f"/features/0?{query}", headers=HTML)
        assert reply.status_code == 200 and 'data-testid="layer-note"' not in reply.text


def test_the_page_of_two_stores_has_charts_and_three_lists(layers: TestClient) -> None:
    page = layers.get("/compare", params=BY, headers=HTML).text
    assert page.count('data-testid="chart"') == 3 and 'data-testid="point"' in page
    only = layers.get("/compare", params={**BY, "show": "here"}, headers=HTML).text
    total = layers.get("/api/v1/compare/stores/only", params=BY).json()["total"]
    assert only.count('data-testid="match"') == min(total, 30)
    there = layers.get("/compare", params={**BY, "show": "there"}, headers=HTML).text
    assert f"Features of {OTHER} whose nearest feature in synthetic" in there
