"""`GET /controls` and what the pages say of it."""

import json
import shutil
from pathlib import Path

from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.controls.run import controls
from precompute.options.controls import ControlsOptions
from precompute.store.companion_files import CONTROLS, companion_path


def test_controls_appear_once_they_are_measured(store_path: Path, tmp_path: Path) -> None:
    store = shutil.copytree(store_path, tmp_path / "my store")
    with TestClient(create_app(Settings(stores=[store], live=False))) as client:
        reply = client.get("/api/v1/controls").json()
        assert reply == {"controls": None, "command": "saevx controls 'my store'", "note": None}
        assert "not measured yet" in client.get("/").text and "not measured yet" in client.get("/features").text

        written = json.loads(controls(ControlsOptions(store=store, derangements=2)).read_text())
        report = client.get("/api/v1/controls").json()["controls"]
        assert [one["name"] for one in report["controls"]] == ["derangements", "random-directions", "text-alone"]
        for one, other in zip(report["controls"], written["controls"], strict=True):
            assert {name: other[name] for name in one} == one
        front = client.get("/").text
        assert "controls-table" in front and "captions exchanged" in client.get("/features").text
        assert "not measured (random directions)" in front, "the made-up store has no model"

        companion_path(store, CONTROLS).write_text(json.dumps({**written, "content_id": "another"}))
        reply = client.get("/api/v1/controls").json()
        assert reply["controls"] is None and "belongs to another store" in reply["note"]
        assert "belongs to another store" in client.get("/").text
        companion_path(store, CONTROLS).write_text(json.dumps({**written, "controls": [{"name": "<b>"}]}))
        assert "cannot be read" in client.get("/api/v1/controls").json()["note"]
