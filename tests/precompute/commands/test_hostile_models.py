"""A hostile model's folder is refused by every command in one sentence, and nothing in it is run, whoever says yes."""

import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.errors import SaevxError
from precompute.model.mllm import Mllm
from tests.helpers import tiny
from tests.helpers.hostile.models import CASES, EVERYWHERE, ModelCase
from tests.helpers.in_process import saevx
from tests.helpers.tinies import Tiny

COMMANDS: dict[str, Callable[[Tiny, Path, Path], tuple[object, ...]]] = {
    "precompute": lambda files, store, out: (files.data, "--sae", files.sae, "--out", out),
    "train": lambda files, store, out: (files.data, "--layer", 2, "--out", out, "--steps", 2),
    "evaluate": lambda files, store, out: (files.sae, files.data),
    "score": lambda files, store, out: (files.data, "--store", store, "--out", out.with_suffix(".jsonl")),
    "patches": lambda files, store, out: (
        files.data, "--store", store, "--answer-column", "kind", "--out", out.with_suffix(".json")
    ),
    "controls": lambda files, store, out: (store, "--out", out.with_suffix(".json")),
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "store"
    done = saevx(
        "precompute", tiny_files.data, "--model", tiny_files.model, "--sae", tiny_files.sae, "--out", out,
        "--device", "cpu", "--ds", 10,
    )  # fmt: skip
    assert done.status == 0, done.err
    return out


@pytest.fixture
def says_yes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def folder_of(case: ModelCase, model: Path, root: Path) -> Path:
    folder = shutil.copytree(model, root / "hostile-model")
    case.change(folder, root / "marker")
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused(case: ModelCase, tiny_files: Tiny, tmp_path: Path, says_yes: None) -> None:
    folder = folder_of(case, tiny_files.model, tmp_path)
    with pytest.raises(SaevxError, match=case.must) as caught:
        Mllm.load(folder, layer=tiny.LAYER, device="cpu", full=True)
    assert "\n" not in str(caught.value) and not (tmp_path / "marker").exists()


@pytest.mark.parametrize("case", EVERYWHERE, ids=lambda case: case.name)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it(
    command: str, case: ModelCase, tiny_files: Tiny, store: Path, tmp_path: Path, says_yes: None
) -> None:
    folder = folder_of(case, tiny_files.model, tmp_path)
    args = COMMANDS[command](tiny_files, store, tmp_path / "out")
    done = saevx(command, *args, "--model", folder, "--device", "cpu")
    if command == "controls":  # it leaves out the one part that needs the model
        assert done.status == 0 and any(case.must in line for line in done.err.splitlines() if "left out" in line)
    else:
        assert done.status == 1 and case.must in done.err.splitlines()[-1], done.err
    assert "Traceback" not in done.err and not (tmp_path / "marker").exists()


@pytest.mark.parametrize("case", EVERYWHERE, ids=lambda case: case.name)
def test_a_server_says_it_and_goes_on(
    case: ModelCase, tiny_files: Tiny, store: Path, tmp_path: Path, says_yes: None
) -> None:
    folder = folder_of(case, tiny_files.model, tmp_path)
    with TestClient(create_app(Settings(stores=[store], model=str(folder), device="cpu"))) as client:
        while (live := client.get("/api/v1/store").json()["live"])["state"] == "loading":
            pass
        assert live["state"] == "failed" and case.must in live["reason"]
        assert client.get("/features", headers={"Accept": "text/html"}).status_code == 200
    assert not (tmp_path / "marker").exists()
