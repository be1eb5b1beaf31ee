"""A store of another schema number, or without a usable one: every command that reads a store refuses it in the same
sentence, and a server shows that sentence while its other stores go on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store import schema as s
from tests.helpers import synthetic
from tests.helpers.in_process import saevx

OLDER, NEWER = "run `saevx precompute` again", "install a newer saevx"
DAMAGED = "does not say its schema"
MISSING = object()
NUMBERS: dict[str, tuple[Any, str]] = {
    **{f"schema {number}": (number, OLDER) for number in range(s.SCHEMA_VERSION)},
    "negative": (-1, OLDER), "next": (s.SCHEMA_VERSION + 1, NEWER), "far in the future": (10**30, NEWER),
    "missing": (MISSING, DAMAGED), "null": (None, DAMAGED), "text": (str(s.SCHEMA_VERSION), DAMAGED),
    "true": (True, DAMAGED), "no whole number": (s.SCHEMA_VERSION + 0.5, DAMAGED), "list": ([4], DAMAGED),
    "object": ({"schema": 4}, DAMAGED), "<script>": ("<script>alert(1)</script>", DAMAGED),
}  # fmt: skip
COMMANDS: dict[str, Callable[[Path], tuple[object, ...]]] = {
    "serve": lambda store: ("serve", store, "--no-live", "--port", 0),
    "verify": lambda store: ("verify", store),
    "migrate": lambda store: ("migrate", store, "--out", store.parent / "new"),
    "controls": lambda store: ("controls", store),
    "export": lambda store: ("export", store, "--out", store.parent / "site"),
    "filter": lambda store: ("filter", store, "--by", "l0", "--keep", 50, "--out", store.parent / "a.jsonl"),
    "score": lambda store: ("score", store.parent, "--store", store, "--out", store.parent / "scores.jsonl"),
    "patches": lambda store: ("patches", store.parent, "--store", store, "--out", store.parent / "patches.json"),
    "mcp": lambda store: ("mcp", store),
    "annotations": lambda store: ("annotations", "export", store, "--file", store.parent / "notes.json"),
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.small_store(tmp_path_factory)


def of_schema(original: Path, folder: Path, number: Any) -> Path:
    """A copy with another schema number in its manifest."""
    store = Path(shutil.copytree(original, folder / "store"))
    manifest = json.loads((store / "manifest.json").read_text())
    manifest.pop("schema")
    (store / "manifest.json").write_text(json.dumps(manifest if number is MISSING else {**manifest, "schema": number}))
    return store


@pytest.mark.parametrize("case", NUMBERS)
def test_each_command_refuses_it_in_one_sentence(original: Path, tmp_path: Path, case: str) -> None:
    number, words = NUMBERS[case]
    store = of_schema(original, tmp_path, number)
    for name, arguments in COMMANDS.items():
        done = saevx(*arguments(store))
        lines = done.err.splitlines()
        assert done.status == 1 and len(lines) == 1, (name, done)
        assert lines[0].startswith("saevx: ") and lines[0].endswith(".") and words in lines[0], (name, lines)
        assert "Traceback" not in done.err and not done.out
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("case", NUMBERS)
def test_a_server_shows_the_sentence_and_serves_the_others(original: Path, tmp_path: Path, case: str) -> None:
    number, words = NUMBERS[case]
    store = of_schema(original, tmp_path, number)
    with TestClient(create_app(Settings(stores=[original, store], live=False))) as client:
        reply = client.get("/api/v1/features", params={"store": "store"})
        assert reply.status_code == 503 and words in reply.json()["detail"] and "\n" not in reply.json()["detail"]
        page = client.get("/features", params={"store": "store"}, headers={"Accept": "text/html"})
        assert page.status_code == 503 and "<script>alert" not in page.text and "data-error" in page.text
        assert client.get("/features").status_code == client.get("/api/v1/features").status_code == 200
