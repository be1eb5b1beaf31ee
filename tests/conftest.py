"""What the tests share: one small real store, built once a run by the command a user would type, a real
server in front of it and a real Chromium. Nothing here is a stand-in."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# No test asserts a time, on however busy a machine.
settings.register_profile("saevx", deadline=None)
settings.load_profile("saevx")

SAEVX = [sys.executable, "-m", "backend.cli"]
DEMO_SAMPLES = 480  # enough for planted pairs of every kind and K = 16 samples of the commoner words


class Demo(NamedTuple):
    """The folders `saevx demo` leaves."""

    root: Path
    model: Path
    sae: Path
    data: Path
    store: Path


def run_saevx(*args: str | Path, check: bool = True, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """The console command in a process of its own; on a failure the test shows what it printed."""
    done = subprocess.run([*SAEVX, *map(str, args)], capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        pytest.fail(f"saevx {' '.join(map(str, args))} → {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`saevx demo --samples N --no-serve`; SAEVX_TEST_DEMO names a folder to keep it between runs."""
    kept = os.environ.get("SAEVX_TEST_DEMO")
    root = Path(kept) if kept else tmp_path_factory.mktemp("demo")
    run_saevx("demo", "--dir", root, "--samples", DEMO_SAMPLES, "--no-serve")
    return Demo(root, root / "model", root / "sae", root / "data", root / "store")


@pytest.fixture(scope="session")
def odd_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of samples with odd ids and captions."""
    from tests.helpers import odd

    return odd.make_store(tmp_path_factory.mktemp("odd"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`saevx serve` in a process of its own, stopped with the block."""

    def __init__(
        self, *args: str | Path, log: Path, command: Sequence[str] = SAEVX, cwd: Path | None = None
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        whole = [*command, "serve", *map(str, args), "--port", str(port)]
        self.process = subprocess.Popen(whole, stdout=log.open("w"), stderr=subprocess.STDOUT, cwd=cwd)

    def wait(self, path: str, seconds: float) -> None:
        """Until PATH answers 200; fails with the server's own words."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + path, timeout=2) as reply:
                    if reply.status == 200:
                        return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"no 200 from {path} within {seconds} s\n{self.log.read_text()[-4000:]}")

    def __enter__(self) -> Server:
        self.wait("/healthz", 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)


@pytest.fixture(scope="session")
def server(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo store with its live model loaded."""
    with Server(demo.store, log=tmp_path_factory.mktemp("server") / "log.txt") as running:
        running.wait("/readyz", 180)
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium on this machine: `apt-get install chromium`, or name one in CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A fresh page; whatever it logs as an error or a broken policy fails the test."""
    context = browser.new_context(base_url=server.url, viewport={"width": 1440, "height": 900})
    fresh = context.new_page()
    wrong: list[str] = []
    fresh.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    fresh.on("pageerror", lambda error: wrong.append(str(error)))
    yield fresh
    context.close()
    assert not wrong, wrong
