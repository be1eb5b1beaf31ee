"""The document of the API: complete, described, and true of whatever a client sends."""

import contextlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import httpx

from backend.app import create_app
from backend.pages.docs import operations as entries_of

DOCS = Path(__file__).resolve().parents[3] / "docs" / "api.md"
ODD = [
    "",
    "-1",
    "0",
    "99999999999999999999999",
    "nan",
    "inf",
    "1e400",
    "é",
    "日本",
    "%00",
    "'",
    '"; DROP TABLE',
    "a,b",
    "null",
    "²",
]


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, one) for path, methods in document["paths"].items() for method, one in methods.items()]


def test_every_endpoint_stands_in_the_docs_and_the_other_way_round(app: FastAPI) -> None:
    headings = set(re.findall(r"^### `([A-Z]+ \S+)`$", DOCS.read_text(), re.MULTILINE))
    served = {f"{method.upper()} {path.replace('{feature}', '{id}')}" for method, path, _ in operations(app.openapi())}
    assert headings == served


def test_every_endpoint_says_what_it_is_and_what_it_answers(app: FastAPI) -> None:
    document = app.openapi()
    for method, path, one in operations(document):
        assert one["summary"] and one["summary"] != one["operationId"], path
        content = one["responses"]["200"]["content"]
        for media, body in content.items():
            assert media != "application/json" or body["schema"], (method, path)


def test_many_may_ask_for_the_document_at_once(app: FastAPI) -> None:
    """The first visitors of a server that was just started, each in a thread."""
    for _ in range(2):
        fresh = create_app(app.state.saevx.settings)
        with ThreadPoolExecutor(8) as threads:
            documents = [one.result() for one in [threads.submit(fresh.openapi) for _ in range(8)]]
        assert all(one is documents[0] for one in documents)


def test_every_field_and_parameter_is_described(app: FastAPI) -> None:
    document = app.openapi()
    models = document["components"]["schemas"].items()
    wrong = [f"{model}.{name}" for model, one in models for name, field in one.get("properties", {}).items()
             if not field.get("description")]  # fmt: skip
    wrong += [f"{method} {path}: {one['name']}" for method, path, operation in operations(document)
              for one in operation.get("parameters", []) if not one.get("description")]  # fmt: skip
    assert not wrong


def test_every_field_parameter_and_reply_has_an_example(app: FastAPI) -> None:
    """A field whose values are other models has them in those models."""
    document = app.openapi()
    models = document["components"]["schemas"].items()
    wrong = [f"{model}.{name}" for model, one in models for name, field in one.get("properties", {}).items()
             if "$ref" not in json.dumps(field) and "examples" not in field]  # fmt: skip
    for method, path, operation in operations(document):
        wrong += [f"{method} {path}: {one['name']}" for one in operation.get("parameters", []) if "example" not in one]
        replies = operation["responses"]["200"]["content"]
        if path.startswith("/api/") and "application/json" in replies and "example" not in replies["application/json"]:
            wrong.append(f"{method} {path}")
    assert not wrong, "run python -m tests.helpers.api_examples"


JSON_TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}


def test_every_example_is_of_the_type_that_its_field_names(app: FastAPI) -> None:
    for model, one in app.openapi()["components"]["schemas"].items():
        for name, field in one.get("properties", {}).items():
            kinds = {kind["type"] for kind in (field, *field.get("anyOf", [])) if "type" in kind} - {"null"}
            for example in field.get("examples", []):
                assert not kinds or any(isinstance(example, JSON_TYPES[kind]) for kind in kinds), (model, name, example)


def test_a_recorded_reply_has_the_fields_of_its_model(app: FastAPI) -> None:
    """A reply that lacks a field, or has one that is gone, was recorded before a change."""
    document = app.openapi()
    for method, path, operation in operations(document):
        content = operation["responses"]["200"]["content"].get("application/json", {})
        model = document["components"]["schemas"].get(content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1])
        if model is not None and "example" in content and isinstance(content["example"], dict):
            fields = set(content["example"])
            extra = model.get("additionalProperties") is not None
            assert set(model.get("required", [])) <= fields, (method, path)
            assert extra or fields <= set(model["properties"]), (method, path)


def test_the_examples_of_the_docs_page_work(client: TestClient, app: FastAPI) -> None:
    """Each GET is sent as it stands there; each body is one that the endpoint takes."""
    sample = client.get("/api/v1/samples?limit=1").json()["items"][0]["sample_id"]
    document = app.openapi()
    for one in entries_of(document, "http://testserver/", sample):
        curl = one["snippets"]["curl"]
        address = curl.split("'")[1]
        compile(one["snippets"]["python"], one["path"], "exec")
        if one["method"] == "GET" and not re.search("HASH|OTHER|effect|/families/|/dogs", curl):
            assert client.get(address).status_code == 200, curl
        if "application/json" in one["body"] and one["path"] != "/api/v1/annotations/import":
            body = json.loads(curl.split("-d '")[1].removesuffix("'"))
            schema = document["components"]["schemas"][one["body"]["application/json"]]
            assert body.keys() <= schema["properties"].keys() and set(schema.get("required", [])) <= body.keys()


def test_the_docs_page_is_searched(client: TestClient) -> None:
    page = client.get("/docs?q=get%20steer/start", headers={"Accept": "text/html"}).text
    assert page.count('data-testid="operation"') == 1 and "curl" in page
    assert "No endpoint has these words" in client.get("/docs?q=xyzzy", headers={"Accept": "text/html"}).text


def test_the_docs_page_lists_every_endpoint(client: TestClient, app: FastAPI) -> None:
    reply = client.get("/docs", headers={"Accept": "text/html"})
    assert reply.status_code == 200
    for method, path, _ in operations(app.openapi()):
        assert f"{method.upper()} {path}" in reply.text
    assert "http://" not in reply.text.replace("http://testserver", "") and "https://" not in reply.text


def check(reply: Any) -> None:
    assert reply.status_code < 500 or reply.status_code == 503, (reply.url, reply.text)
    if reply.status_code >= 400:
        assert reply.headers["content-type"] == "application/problem+json", reply.url
        body = reply.json()
        assert body["status"] == reply.status_code and body["title"] and body["detail"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]


values = st.one_of(
    st.sampled_from([*ODD, "text", "image", "lift", "desc", "3", "dead", "mismatch", "0,1,1", "0,0,9,9"]),
    st.integers(-5, 10**20).map(str),
    st.floats().map(str),
    st.text(max_size=30),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_odd_parameters_give_problem_details_never_a_500(client: TestClient, app: FastAPI, data: Any) -> None:
    query = [(path, one) for method, path, one in operations(app.openapi()) if method == "get"]
    path, one = data.draw(st.sampled_from(query))
    params: list[tuple[str, str]] = []
    for parameter in one.get("parameters", []):
        if parameter["in"] == "path":
            value = data.draw(st.one_of(values, st.integers(0, 20).map(str)))
            path = path.replace("{" + parameter["name"] + "}", value.replace("/", "").strip(".") or "0")
        elif parameter["required"] or data.draw(st.booleans()):
            params.append((parameter["name"], data.draw(values)))
    with contextlib.suppress(httpx.InvalidURL):  # the client itself cannot send it
        check(client.get(path, params=params))


@pytest.mark.parametrize("odd", ODD)
def test_odd_ids_and_cursors(client: TestClient, odd: str) -> None:
    for path in ("/features", "/samples", "/cooccurrence"):
        check(client.get(f"/api/v1{path}", params={"cursor": odd}))
    check(client.get("/api/v1/samples/" + (odd or "x")))
    check(client.get("/api/v1/features", params={"ids": odd}))


def test_a_cursor_of_another_list_is_refused(client: TestClient) -> None:
    cursor = client.get("/api/v1/features", params={"sort": "label", "limit": 5}).json()["next"]
    check(client.get("/api/v1/cooccurrence", params={"cursor": cursor}))
    check(client.get("/api/v1/samples", params={"cursor": cursor, "sort": "cosine"}))


@pytest.mark.parametrize(
    "body",
    [
        {"features": [{"id": 3, "strength": 1e9}]},
        {"features": [{"id": -3}]},
        {"features": [{"id": 3, "mode": "explode"}]},
        {"scope": []},
        {"max_tokens": 0},
        {"temperature": -1},
        {"seed": 2**64},
        {"sample": "typo"},
        {"mask": [[0, 1]]},
        [],
        "text",
    ],
)
def test_wrong_steering_requests_are_told(client: TestClient, body: Any) -> None:
    reply = client.post("/api/v1/steer", json=body)
    check(reply)
    assert reply.status_code == 422 and reply.json()["errors"]


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    reply = client.post("/api/v1/search", files={"image": ("a.png", b"0" * 17_000_000, "image/png")})
    check(reply)
    assert reply.status_code == 413 and "16 MB" in reply.json()["detail"]
    unannounced = client.post("/api/v1/steer", content=(b"0" * 1_000_000 for _ in range(17)))
    check(unannounced)
    assert unannounced.status_code == 413


def test_broken_bodies_are_told(client: TestClient) -> None:
    check(client.post("/api/v1/steer", content=b"{", headers={"Content-Type": "application/json"}))
    check(client.post("/api/v1/search", content=b"nonsense", headers={"Content-Type": "multipart/form-data"}))
    check(client.delete("/api/v1/features"))
    check(client.get("/api/v1/nothing"))


def test_a_program_error_is_a_problem_without_inner_words(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    store = app.state.saevx.default.reader
    monkeypatch.setattr(type(store.cooccurrence), "list", lambda *a, **k: 1 / 0)
    with TestClient(app, raise_server_exceptions=False) as client:
        reply = client.get("/api/v1/cooccurrence")
    assert reply.status_code == 500 and reply.headers["content-type"] == "application/problem+json"
    assert "division" not in reply.text


def test_replies_are_compressed(client: TestClient) -> None:
    reply = client.get("/api/v1/features", headers={"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
