"""`saevx serve` in a process of its own, and an application of this one over HTTP."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.forked import start

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


def figures(text: str) -> dict[tuple[str, ...], float]:
    """What /metrics tells: (name, values of its labels in order of their names) → value."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`saevx serve` in a process of its own, stopped with the block.

    Args:
        command: that is `saevx`, such as SAEVX, the entry point in a fresh process; by default a copy, which starts at
            once (forked.py). port: of a server that this one takes the place of; by default a free one.
    """

    def __init__(
        self,
        *args: str | Path,
        log: Path,
        command: Sequence[str] | None = None,
        cwd: Path | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        arguments = ["serve", *map(str, args), "--port", str(port)]
        options: dict[str, Any] = {"stdout": log.open("w"), "stderr": subprocess.STDOUT, "cwd": cwd}
        if command is None:
            self.process = start(*arguments, **options)
        else:
            self.process = subprocess.Popen([*command, *arguments], **options)

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
        self.process.wait(timeout=120)


@contextmanager
def over_http(app: FastAPI, **config: str) -> Iterator[str]:
    """The address of an application of this process on a free port."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", **config))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=60)


@contextmanager
def page_of(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A fresh page, by default of a large window; whatever it logs as an error or a broken policy fails the test."""
    context = browser.new_context(base_url=url, **{"viewport": {"width": 1440, "height": 900}, **options})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not wrong, wrong
