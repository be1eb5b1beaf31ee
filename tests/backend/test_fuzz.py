"""The OpenAPI of a server with everything on, fuzzed by Schemathesis: a few requests of each operation, the same ones
each time. `saevx bench reliability --only fuzz` makes thousands."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient

from tests.helpers.fuzzing import fuzz
from tests.helpers.servers import Server, over_http


@pytest.fixture(scope="module")
def server(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the live model, uploads and annotations, which it writes beside the store: that of a copy."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("model", "sae", "data"):
        (folder / name).symlink_to(made / name)
    shutil.copytree(made / "store", folder / "store")
    with Server(folder / "store", "--device", "cpu", log=folder / "log.txt") as running:
        running.wait("/readyz", 60)
        yield running


def test_every_reply_is_as_the_openapi_says(server: Server, tmp_path: Path) -> None:
    result = fuzz(server.url, tmp_path, examples=2, phases="fuzzing")
    assert not result.failures, "\n".join(result.failures)
    assert result.requests > 100 and "Traceback" not in server.log.read_text()


LYING = FastAPI()


@LYING.get("/api/v1/stores")
def stores() -> dict[str, Any]:
    return {"items": [{"name": "a"}]}


@LYING.get("/api/v1/samples")
def samples() -> dict[str, Any]:
    return {"items": [{"sample_id": "b"}]}


@LYING.get("/api/v1/store")
def store() -> dict[str, Any]:
    return {"n_features": 8}


@LYING.get("/number/{feature}", responses={200: {"model": int}}, status_code=200)
def number(feature: int) -> JSONResponse:
    return JSONResponse("no number")


@LYING.get("/broken")
def broken() -> None:
    raise RuntimeError("on purpose")


def test_a_server_that_breaks_its_own_schema_is_seen(tmp_path: Path) -> None:
    with over_http(LYING) as url:
        result = fuzz(url, tmp_path, examples=2, phases="fuzzing")
    kinds = {tuple(one.split(": ")[:2]) for one in result.failures}
    assert ("GET /number/{feature}", "response_schema_conformance") in kinds
    assert ("GET /broken", "not_a_server_error") in kinds and result.wrong >= 2


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/v1/images/abc", "GET, DELETE"),
        ("/api/v1/search", "GET, POST"),
        ("/search", "GET, POST"),
        ("/features", "GET"),
        ("/api/v1/annotations/filters/x", "PUT, DELETE"),
    ],
)
def test_405_names_every_method_of_the_address(client: TestClient, path: str, methods: str) -> None:
    for method in ("PATCH", "MADEUP"):
        reply = client.request(method, path)
        assert reply.status_code == 405 and reply.headers["allow"] == methods
