"""`/samples/{id}/why` and `/samples/{id}/nearest` at both addresses, and their panels."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.drawing.figures import format_number
from precompute.scoring.why import EXPLAINED
from tests.helpers.live_api import API

PAGE = {"accept": "text/html"}


@pytest.fixture(scope="module")
def flagged(client: TestClient) -> dict[str, Any]:
    """The sample whose caption fits its image least."""
    worst = f"{API}/samples?flag=mismatch&sort=mismatch&order=desc&limit=1"
    return client.get(worst).json()["items"][0]


@pytest.mark.parametrize("score", EXPLAINED)
def test_why_at_both_addresses_and_on_the_page(client: TestClient, flagged: dict[str, Any], score: str) -> None:
    id = flagged["sample_id"]
    reply = client.get(f"{API}/samples/{id}/why?score={score}&limit=3").json()
    assert client.get(f"{API}/sample/why", params={"id": id, "score": score, "limit": 3}).json() == reply
    assert reply["value"] == flagged["scores"][score]
    assert len(reply["raising"]) == min(3, reply["n_raising"])
    page = client.get(f"/samples/{id}?why={score}", headers=PAGE).text
    assert f"Why {score} is {format_number(reply['value'])}" in page
    for one in reply["raising"]:
        assert f'data-feature="{one["id"]}"' in page


def test_a_score_without_features_is_refused(client: TestClient, flagged: dict[str, Any]) -> None:
    reply = client.get(f"{API}/samples/{flagged['sample_id']}/why?score=random")
    assert reply.status_code == 422 and "is not made of features: choose one of" in reply.json()["detail"]
    assert client.get(f"{API}/samples/nobody/why").status_code == 404


def test_nearest_and_the_caption_that_fits(client: TestClient, flagged: dict[str, Any]) -> None:
    id = flagged["sample_id"]
    reply = client.get(f"{API}/samples/{id}/nearest?limit=12").json()
    cosines = [one["cosine"] for one in reply["items"]]
    assert len(cosines) == 12 and cosines == sorted(cosines, reverse=True)
    assert client.get(f"{API}/sample/nearest", params={"id": id, "limit": 12}).json() == reply
    page = client.get(f"/samples/{id}", headers=PAGE).text
    fits = [one for one in reply["items"] if not {"mismatch", "unsupported"} & set(one["flags"])]
    best = max(fits, key=lambda one: one["caption_fit"] or 0)
    assert best["caption_fit"] > reply["own_fit"]
    assert f'near image that fits this one better: “<a href="/samples/{best["sample_id"]}">' in page
    assert 'class="tok failing"' in page  # the words that its flag names
    by_text = client.get(f"/samples/{id}?near=text", headers=PAGE).text
    near = client.get(f"{API}/samples/{id}/nearest?modality=text&limit=12").json()["items"]
    for one in near:
        assert f'data-sample="{one["sample_id"]}"' in by_text
    assert 'data-testid="fitting"' not in by_text
