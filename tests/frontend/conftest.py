"""The real application in front of the made-up store, over ASGI and, for Chromium, over HTTP."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store import mapfile
from precompute.store.companion_files import HALLUCINATION, companion_path
from tests.helpers import synthetic
from tests.helpers.postgres import new_database
from tests.helpers.running import Running
from tests.helpers.servers import over_http
from tests.helpers.shared import made_once
from tests.helpers.tinies import make_tiny_store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext


MEASURED = Path(__file__).parents[2] / "precompute" / "demo" / "weights" / "sae" / "evaluation.json"
"""A real scorecard, whose SAE the test renames."""
RATE = {"value": 0.125, "low": 0.05, "high": 0.25}
WAY = {"accuracy": RATE, "hallucinated": RATE, "missed": RATE, "chair": RATE}
HALLUCINATED: dict[str, Any] = {
    "questions": {"present": 30, "random": 20}, "hallucinated_to_choose_on": 9, "hallucinated_reported": 7,
    "halves_agree": 0.1, "strength": 0.5, "features": [], "ways": {"not steered": WAY, "towards right": WAY},
    "against_random": {"accuracy": RATE, "hallucinated": RATE}, "separation": {"ids": [3], "values": [0.25]},
}  # fmt: skip


@pytest.fixture(scope="session")
def pages_app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    return create_app(Settings(stores=[synthetic.small_store(tmp_path_factory)], live=False))


@pytest.fixture(scope="session")
def client(pages_app: FastAPI) -> Iterator[TestClient]:
    with TestClient(pages_app, headers={"Accept": "text/html"}) as running:
        yield running


@pytest.fixture
def sample_map(pages_app: FastAPI) -> mapfile.SampleMap:
    return mapfile.read_sample_map(pages_app.state.saevx.default.path / mapfile.SAMPLES_NAME)


@pytest.fixture(scope="session")
def sample_id(client: TestClient) -> str:
    return str(client.get("/api/v1/samples?limit=1").json()["items"][0]["sample_id"])


@pytest.fixture(scope="session")
def base_url(pages_app: FastAPI) -> Iterator[str]:
    """The same application over HTTP on a free port."""
    with over_http(pages_app, lifespan="off") as url:
        yield url


@pytest.fixture
def notes_app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> FastAPI:
    """The application with a database of annotations that is the test's own: SQLite, or PostgreSQL with `indirect`."""
    store, notes = synthetic.small_store(tmp_path_factory), f"sqlite:///{tmp_path / 'notes.sqlite'}"
    if getattr(request, "param", "sqlite") == "postgresql":
        notes = new_database(request.getfixturevalue("postgres_url"))
    return create_app(Settings(stores=[store], live=False, annotations=notes))


@pytest.fixture
def notes_url(notes_app: FastAPI) -> Iterator[str]:
    """The same over HTTP."""
    with over_http(notes_app, lifespan="off") as url:
        yield url


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model`, `sae`, `data` and `store` of a tiny model, for pages that ask the live model."""
    return made_once(tmp_path_factory, "live-pages", lambda root: make_tiny_store(root, 24, sinks="keep"))


@pytest.fixture(scope="module")
def live_url(made: Path) -> Iterator[str]:
    """A server with its live model."""
    with Running(Settings(stores=[made / "store"], device="cpu")) as server:
        yield server.url


@pytest.fixture(scope="session")
def measured_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose page SAE has all its tables."""
    root = tmp_path_factory.mktemp("tables")
    store = shutil.copytree(synthetic.small_store(tmp_path_factory), root / "store")
    manifest = json.loads((store / "manifest.json").read_text())
    sides = {"text": 0.08, "image": 0.1, "both": 0.09}
    manifest["quality"] = {**manifest.get("quality", {}), "fvu": sides, "l0": dict.fromkeys(sides, 25.0)}
    (store / "manifest.json").write_text(json.dumps(manifest))
    evaluation = json.loads(MEASURED.read_text())
    evaluation["sae"]["sha256"] = manifest["sae"]["sha256"]
    (root / "sae").mkdir()
    (root / "sae" / "evaluation.json").write_text(json.dumps(evaluation))
    measured = {"content_id": manifest["content_id"], **HALLUCINATED}
    companion_path(store, HALLUCINATION).write_text(json.dumps(measured))
    with over_http(create_app(Settings(stores=[store], live=False, sae=str(root / "sae")))) as url:
        yield url


@pytest.fixture
def context(browser: Browser, base_url: str) -> Iterator[BrowserContext]:
    """A browser context; an error on the console, a script's exception or a broken policy fails the test."""
    fresh = browser.new_context(base_url=base_url, viewport={"width": 1440, "height": 900})
    wrong: list[str] = []
    fresh.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    fresh.on("weberror", lambda error: wrong.append(str(error.error)))
    yield fresh
    fresh.close()
    assert not wrong, wrong
