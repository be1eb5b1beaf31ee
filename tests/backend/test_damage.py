"""Files of a store whose content was changed: whatever reads them ends in a sentence that says so."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.store.events import ARRAYS
from tests.helpers import synthetic

ADDRESSES = (
    "/", "/features", "/features/3", "/features/3?modality=text&band=0", "/features/3?band=counter", "/samples",
    "/samples/s00003", "/samples/s00003?f=1,3", "/search?q=red", "/map", "/map?of=samples", "/cooccurrence",
    "/cooccurrence?feature=3", "/quality", "/sae", "/api/v1/features/3/examples", "/api/v1/features/3/neighbors",
    "/api/v1/samples/s00003/activations?feature=1", "/api/v1/samples/s00003/features?position=2", "/api/v1/map",
    "/api/v1/map/samples", "/api/v1/cooccurrence", "/api/v1/search?q=red",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # numpy's, of a value that cannot be
HEADER = 128
"""Bytes before the values of a .npy file."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "store"
    synthetic.write_store(store, 60, 1)
    return store


@pytest.mark.parametrize("fill", ["random", "ones"])
@pytest.mark.parametrize("name", ARRAYS)
def test_values_that_are_not_as_written_end_in_a_sentence(name: str, fill: str, whole: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(whole, tmp_path / "store"))
    path = store / "events" / f"{name}.npy"
    content = bytearray(path.read_bytes())
    n = len(content) - HEADER
    content[HEADER:] = np.random.default_rng(0).bytes(n) if fill == "random" else b"\xff" * n
    path.write_bytes(content)
    app = create_app(Settings(stores=[store], live=False))
    sentences = []
    with TestClient(app, raise_server_exceptions=False) as client:
        for address in ADDRESSES:
            reply = client.get(address, headers={"Accept": "text/html"})
            assert reply.status_code != 500, address
            assert reply.status_code != 503 or "is damaged (" in reply.text, address
            assert "Traceback" not in reply.text
            sentences.append(reply.text)
    if name.endswith("_value"):
        sentence = f"events/{name}.npy has values that are negative, infinite or no numbers"
        assert any(sentence in text for text in sentences)


def test_no_file_makes_the_server_fail(whole: Path, tmp_path: Path) -> None:
    """Of each file but the images the last third is other bytes, as of a bad copy."""
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    for name in [one for one in names if one.parts[0] != "images" and one.name != "run.json"]:
        store = Path(shutil.copytree(whole, tmp_path / "-".join(name.parts) / "store"))
        content = (store / name).read_bytes()
        n = len(content) // 3
        (store / name).write_bytes(content[: len(content) - n] + np.random.default_rng(0).bytes(n))
        app = create_app(Settings(stores=[whole, store], live=False))
        with TestClient(app, raise_server_exceptions=False) as client:
            for address in ADDRESSES:
                joint = "&" if "?" in address else "?"
                reply = client.get(f"{address}{joint}store=synthetic-2", headers={"Accept": "text/html"})
                assert reply.status_code != 500, (name, address)
            assert client.get("/features/3").status_code == 200, "the other store goes on"


def test_a_fault_of_the_program_stays_one(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.pages import visit

    def fails(*_: object, **__: object) -> None:
        raise IndexError("of the program")

    monkeypatch.setattr(visit, "render_for", fails)
    with TestClient(create_app(Settings(stores=[whole], live=False)), raise_server_exceptions=False) as client:
        for _ in range(2):
            reply = client.get("/quality", headers={"Accept": "text/html"})
            assert reply.status_code == 500 and "internal error" in reply.text
