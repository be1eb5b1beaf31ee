"""The built wheel, in an environment of its own, outside the checkout and without Node."""

import os
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from pathlib import Path

import pytest

from tests.helpers.demo import Demo
from tests.helpers.servers import Server

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("/", "/features", "/features/0", "/samples", "/search", "/cooccurrence", "/quality", "/steer", "/docs")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel; what the wheel depends on is borrowed from this one, whose
    editable saevx a plain path line does not bring along."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("saevx-*.whl")
    assert wheel.stat().st_size < 40e6
    venv.create(folder / "env", symlinks=True)
    python = folder / "env/bin/python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True, timeout=300)
    site = next((folder / "env/lib").glob("python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture
def without_node(monkeypatch: pytest.MonkeyPatch, installed: Path) -> None:
    monkeypatch.setenv("PATH", str(installed.parent))
    monkeypatch.delenv("PYTHONPATH", raising=False)


def test_every_page_is_served_by_the_wheel(installed: Path, demo: Demo, tmp_path: Path, without_node: None) -> None:
    query = "import precompute, backend.app; print(precompute.__file__, backend.app.FRONTEND)"
    report = subprocess.run([installed, "-c", query], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(Path(part).is_relative_to(installed.parents[1]) for part in report.stdout.split())
    command = [str(installed.with_name("saevx"))]
    with Server(demo.store, "--no-live", log=tmp_path / "log.txt", command=command, cwd=tmp_path) as server:
        for path in (*PAGES, "/static/vendor/htm/preact/standalone.module.js", "/static/css/base.css"):
            with urllib.request.urlopen(server.url + path, timeout=60) as reply:
                assert reply.status == 200 and len(reply.read()) > 500, path


MAINTAINERS = (
    "precompute.demo.training.train_sae",
    "precompute.demo.evaluation.report",
    "precompute.experiments.report",
)
"""What is left out of the wheel."""


def test_what_only_maintainers_run_is_left_out_and_says_so(installed: Path, tmp_path: Path, without_node: None) -> None:
    site = next(installed.parents[1].glob("lib/python*/site-packages"))
    for folder in ("demo/training", "demo/evaluation", "experiments"):
        assert [path.name for path in (site / "precompute" / folder).glob("*.*")] == ["__init__.py"]
    saevx = str(installed.with_name("saevx"))
    commands = [[str(installed), "-m", module] for module in MAINTAINERS]
    commands += [[saevx, "experiment"], [saevx, "experiment", "filtering", "--seeds", "1"], [saevx, "bench", "collect"]]
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and not done.stdout, command
        (line,) = done.stderr.splitlines()
        assert line.endswith("is not part of the installed package: clone the repository and run `make setup` there.")


def test_the_wheel_makes_the_demo(installed: Path, tmp_path: Path, without_node: None) -> None:
    command = [installed.with_name("saevx"), "demo", "--dir", tmp_path / "demo", "--samples", "20", "--no-serve"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/store/manifest.json").is_file()
