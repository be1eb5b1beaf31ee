"""`saevx serve` in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helpers.commands import SAEVX


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
