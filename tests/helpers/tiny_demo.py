"""A folder as `saevx demo` leaves one, of the tiny model: model, SAE, data and store."""

import json
from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.helpers.odd import ODD_ID
from tests.helpers.shared import made_once
from tests.helpers.tinies import make_tiny_store


def tiny_demo(factory: pytest.TempPathFactory) -> Path:
    """The run's folder; tests must not change what is in it. One of its samples has an odd id."""
    return made_once(factory, "tiny-demo", make)


def make(root: Path) -> None:
    data = tiny.make_data(root / "data", 40)
    rows = (data / "metadata.jsonl").read_text()
    (data / "metadata.jsonl").write_text(rows.replace('"pair-7"', json.dumps(ODD_ID)))
    make_tiny_store(root, nll=True, sinks="keep")
