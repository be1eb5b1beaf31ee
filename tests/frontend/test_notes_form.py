"""The panel of notes as a form, without JavaScript: it writes, tells conflicts, undoes, and leads nowhere else."""

import html
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from tests.helpers import synthetic
from tests.helpers.synthetic import word_feature

API = "/api/v1"
DOG = word_feature("dog")
HOSTILE = "</textarea><script>alert(1)</script>\"'"


@pytest.fixture
def client(notes_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(notes_app, headers={"Accept": "text/html"}) as running:
        yield running


def send(client: TestClient, **fields: Any) -> Any:
    form = {"kind": "feature", "key": str(DOG), "version": 0, **fields}
    return client.post("/annotate", data=form, follow_redirects=False)


def test_a_form_writes_and_leads_back(client: TestClient) -> None:
    reply = send(client, label="a dog", tags="pet, big", reviewed="true", author="Änn", back="modality=text&store=x")
    assert reply.status_code == 303 and reply.headers["location"] == f"/features/{DOG}?modality=text#notes"
    assert "saevx_author=%C3%84nn" in reply.headers["set-cookie"] and "HttpOnly" in reply.headers["set-cookie"]
    note = client.get(f"{API}/annotations/features/{DOG}").json()
    assert (note["label"], note["tags"], note["reviewed"], note["author"]) == ("a dog", ["pet", "big"], True, "Änn")
    page = client.get(f"/features/{DOG}").text
    assert "named by a person" in page and 'value="Änn"' in page and 'href="/features?tag=pet"' in page


def test_two_versions_are_both_shown(client: TestClient) -> None:
    send(client, label="dog", note="mine", author="Ann")
    reply = send(client, label="hound", note="mine", author="Bob")
    assert reply.status_code == 409
    assert "Ann changed this after you opened it" in reply.text and 'value="hound"' in reply.text
    assert 'data-testid="theirs-label">dog<' in reply.text and 'data-testid="theirs-note"' not in reply.text
    assert 'name="version" value="1"' in reply.text
    assert send(client, label="hound", note="mine", author="Bob", version=1).status_code == 303
    page = client.get(f"/features/{DOG}").text
    assert "<strong>Bob</strong>" in page and "<strong>Ann</strong>" in page


def test_undo_goes_back_and_forth(client: TestClient) -> None:
    for version, label in enumerate(["one", "two"]):
        send(client, label=label, version=version)
    send(client, do="undo", undo=1, version=2)
    assert client.get(f"{API}/annotations/features/{DOG}").json()["label"] == "one"
    send(client, do="undo", undo=2, version=3)
    assert client.get(f"{API}/annotations/features/{DOG}").json()["label"] == "two"
    send(client, do="undo", undo=0, version=4)
    assert client.get(f"{API}/annotations/features/{DOG}").json()["deleted"]
    assert 'data-version="5"' in client.get(f"/features/{DOG}").text


def test_a_label_stands_wherever_the_feature_does(client: TestClient) -> None:
    send(client, label="my dog", tags="animal")
    one = f"feature={DOG}"
    for path in (f"/cooccurrence?{one}", f"/steer?{one}", f"/features/{DOG}/factsheet", "/features?q=my dog"):
        assert "my dog" in html.unescape(client.get(path).text), path
    assert "<option selected>gone</option>" in client.get("/features?tag=gone").text, "what filters is in its field"


def test_what_is_written_is_only_text(client: TestClient) -> None:
    send(client, label=HOSTILE, note=HOSTILE, tags=HOSTILE.replace(",", ""), author=HOSTILE)
    for path in (f"/features/{DOG}", "/features", "/", "/features?tag=x"):
        page = client.get(path).text
        assert "<script>alert" not in page and "</textarea><" not in page.replace("</textarea></label>", "")
    assert client.get(f"{API}/annotations/features/{DOG}").json()["note"] == HOSTILE


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"key": "99999"}, 404, "There is no feature 99999"),
        ({"key": "//evil.example"}, 404, "There is no feature -1"),
        ({"kind": "sample", "key": "no such"}, 404, "No sample &#39;no such&#39;"),
        ({"label": "x" * 201}, 422, "label: String should have at most 200"),
        ({"kind": "else"}, 422, "kind: choose"),
    ],
)
def test_wrong_forms_are_one_sentence(client: TestClient, fields: dict[str, Any], status: int, sentence: str) -> None:
    reply = send(client, **fields)
    assert reply.status_code == status and sentence in reply.text


def test_a_sample_has_the_panel_too(client: TestClient) -> None:
    sample = client.get(f"{API}/samples?limit=1").json()["items"][0]["sample_id"]
    page = client.get(f"/samples/{sample}").text
    assert 'data-testid="notes"' in page
    send(client, kind="sample", key=sample, note="odd", tags="odd")
    assert "1 version" in client.get(f"/samples/{sample}").text
    assert sample in client.get("/samples?tag=odd").text


def test_a_server_that_may_not_write_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(
        stores=[synthetic.small_store(tmp_path_factory)], live=False, annotations="sqlite:////proc/nothing/x.sqlite"
    )
    with TestClient(create_app(settings), headers={"Accept": "text/html"}) as client:
        page = client.get(f"/features/{DOG}").text
        assert page.count("Annotations are read-only: /proc/nothing/x.sqlite cannot be written.") == 1
        reply = send(client, label="x")
        assert reply.status_code == 403 and "Annotations are read-only" in reply.text


def test_forms_of_other_sites_write_nothing(client: TestClient) -> None:
    form = {"kind": "feature", "key": str(DOG), "version": 0, "label": "x"}
    reply = client.post("/annotate", data=form, headers={"Sec-Fetch-Site": "cross-site"}, follow_redirects=False)
    assert reply.status_code == 403
    assert client.get(f"{API}/annotations/features/{DOG}").json()["version"] == 0
