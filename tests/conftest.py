"""What the tests share: one small real store, built once a run by the command a user would type, a real
server in front of it and a real Chromium. Nothing here is a stand-in."""

from __future__ import annotations

import gc
import inspect
import os
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import settings

from tests.helpers.chromium import FLAGS, chromium
from tests.helpers.commands import run_saevx
from tests.helpers.demo import DEMO_SAMPLES, Demo
from tests.helpers.forked import ForkServer
from tests.helpers.postgres import postgres
from tests.helpers.servers import Server, page_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

gc.set_threshold(20_000)  # as in the command: libraries leave a million objects, which are no garbage
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores: more threads only take turns

# A server may wait for its turn on two busy cores, longer than the five seconds that httpx waits by default.
WAITS = inspect.signature(httpx.get).parameters["timeout"].default
WAITS.connect = WAITS.read = WAITS.write = WAITS.pool = 60.0  # seconds

TLS = ssl.create_default_context()
# Else each `httpx.get` reads the certificates of all authorities, which takes 50 ms of a processor.
for call in (httpx.get, httpx.post, httpx.put, httpx.delete, httpx.request, httpx.Client.__init__):
    call.__kwdefaults__["verify"] = TLS

WAIT_MS = 60_000
"""Of a browser, for a page or an answer of the model, which may wait for their turn in the same way."""

# No test asserts a time, on however busy a machine.
settings.register_profile("saevx", deadline=None)
settings.load_profile("saevx")


HERE = Path(__file__).parent
ENVIRONMENT: dict[str, str] = {}
"""Of the tests, once all of their files are imported."""


def listed(name: str) -> list[Path]:
    """The files that a list in this folder names."""
    return [HERE.parent / file for file in (HERE / name).read_text().split()]


LATE = {path: i for i, path in enumerate(listed("late.txt"))}
"""Long tests, in the order of how many users meet what they test; experiments and benchmarks are the last."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first (tests/slow.txt), so that no worker is left alone with one at the end.
    The first makes the demo's store; files that read it come later and do not wait for it. Where CI has a limit, those
    of tests/late.txt come after all others; else they are the very first but for the one with the demo."""
    slow = listed("slow.txt")
    order = [*slow[:1], *LATE, *slow[1:]]
    place = {path: i for i, path in enumerate(order)}
    limited = "SAEVX_TESTS_UNTIL" in os.environ
    late = len(place) + 1 if limited else 0
    items.sort(key=lambda item: place.get(item.path, len(place)) + (late if item.path in LATE else 0))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """CI ends after half an hour, on however slow a machine: at SAEVX_TESTS_UNTIL (seconds since 1970) it leaves out
    what is left of tests/late.txt, and says so."""
    until = os.environ.get("SAEVX_TESTS_UNTIL")
    if until and item.path in LATE and time.time() > float(until):
        pytest.skip("no time is left for it on this machine: `make test` runs it")


def pytest_collection_finish() -> None:
    gc.freeze()  # nor are they looked through each time that something collects what is
    ENVIRONMENT.update(os.environ)
    if sys.platform == "linux":  # which has the call that makes a copy a child of the tests
        ForkServer.begun_with = ENVIRONMENT


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """What a library has set in the environment ends with the file of tests: each command that starts in another
    environment than the first would import everything again."""
    yield
    if nextitem is None or nextitem.path != item.path:
        for name in os.environ.keys() - ENVIRONMENT.keys() - {"PYTEST_CURRENT_TEST"}:
            del os.environ[name]
        os.environ.update(ENVIRONMENT)


@pytest.fixture(scope="module")
def interruptible() -> Iterator[None]:
    """What the tests start can be interrupted, also where they cannot, as a job in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`saevx demo --samples N --no-serve`; SAEVX_TEST_DEMO names a folder to keep it between runs."""

    def make(root: Path) -> None:
        run_saevx("demo", "--dir", root, "--samples", DEMO_SAMPLES, "--no-serve", fresh=True)

    if own := os.environ.get("SAEVX_TEST_DEMO"):
        root = Path(own)
        make(root)
    else:
        from tests.helpers.shared import made_once

        root = made_once(tmp_path_factory, "demo", make)
    return Demo(root, root / "model", root / "sae", root / "data", root / "store")


@pytest.fixture(scope="session")
def odd_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of samples with odd ids and captions."""
    from tests.helpers import odd
    from tests.helpers.shared import made_once

    return made_once(tmp_path_factory, "odd", odd.make_store) / "store"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL server."""
    with postgres() as url:
        yield url


@pytest.fixture(scope="session")
def server(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo store with its live model loaded."""
    with Server(demo.store, log=tmp_path_factory.mktemp("server") / "log.txt") as running:
        running.wait("/readyz", 180)
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT_MS)
    path = chromium()
    if path is None:
        message = "no Chromium on this machine: `apt-get install chromium`, or name one in CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        launched.on("context", lambda context: context.set_default_timeout(WAIT_MS))
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """A fresh page; whatever it logs as an error or a broken policy fails the test."""
    with page_of(browser, server.url) as fresh:
        yield fresh
