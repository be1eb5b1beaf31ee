"""The application before a real server on a real socket, in this process, so that a test can look into its queue."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpx
import uvicorn

from backend.app import create_app
from backend.serve import bind
from backend.settings import Settings
from backend.stores import State


class Running:
    """The application before a real server in a thread of its own."""

    def __init__(self, settings: Settings, ready: bool = True) -> None:
        self.gate = threading.Event()
        self.ready = ready
        """Whether to wait for the live model."""
        self.app = create_app(settings)
        self.state: State = self.app.state.saevx
        self.socket = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning", timeout_graceful_shutdown=5))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})

    def __enter__(self) -> Self:
        self.thread.start()
        path = "/readyz" if self.ready else "/healthz"
        self.until(lambda: self.get(path).status_code == 200, 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(30)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **body)

    def until(self, condition: Any, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.state.live.waiting
            time.sleep(0.01)

    def free(self) -> None:
        """Nobody is left in the queue."""
        self.until(lambda: self.state.live.waiting == 0)

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """The model is busy with something else until the block ends."""
        self.gate.clear()
        self.state.live.worker.submit(self.gate.wait)
        try:
            yield
        finally:
            self.let_go()

    def let_go(self) -> None:
        """The model is free, before the block of `held_up` ends."""
        self.gate.set()
