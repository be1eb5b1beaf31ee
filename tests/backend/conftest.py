"""The real application over ASGI, in front of a small made-up store that the real steps wrote."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from tests.helpers import synthetic
from tests.helpers.tiny_demo import tiny_demo


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.small_store(tmp_path_factory)


@pytest.fixture(scope="session")
def app(store_path: Path) -> FastAPI:
    return create_app(Settings(stores=[store_path], live=False))


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    """An exception inside the server is seen as a client sees it: 500."""
    with TestClient(app, raise_server_exceptions=False) as running:
        yield running


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model, SAE, data and the store of them."""
    return tiny_demo(tmp_path_factory)
