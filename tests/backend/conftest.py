"""The real application over ASGI, in front of a small made-up store that the real steps wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from tests import synthetic


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("backend") / "store"
    synthetic.write_store(out, 80, 0)
    return out


@pytest.fixture(scope="session")
def app(store_path: Path) -> FastAPI:
    return create_app(Settings(stores=[store_path], live=False))


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    """An exception inside the server is seen as a client sees it: 500."""
    with TestClient(app, raise_server_exceptions=False) as running:
        yield running
