"""The real application over ASGI, in front of a small made-up store that the real steps wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from tests.helpers import synthetic, tiny
from tests.helpers.odd import ODD_ID
from tests.helpers.shared import made_once


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
    return made_once(tmp_path_factory, "live", make_live)


def make_live(root: Path) -> None:
    torch.set_num_threads(1)
    data = tiny.make_data(root / "data", 40)
    rows = (data / "metadata.jsonl").read_text()
    (data / "metadata.jsonl").write_text(rows.replace('"pair-7"', json.dumps(ODD_ID)))
    options = PrecomputeOptions(
        data=str(data),
        model=str(tiny.make_llava(root / "model")),
        sae=str(tiny.make_sae(root / "sae")),
        out=root / "store",
        nll=True,
        sinks="keep",
        device="cpu",
    )
    precompute(options)
