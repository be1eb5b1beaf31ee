"""Requests to the application in this process, without a network."""

from __future__ import annotations

import asyncio
from typing import NamedTuple
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope

from precompute.errors import SaevxError


class Reply(NamedTuple):
    """What the application answers."""

    status: int
    body: bytes

    def checked(self, address: str) -> bytes:
        """The body. Raises SaevxError where the status is not 200."""
        if self.status != 200:
            raise SaevxError(f"{address} cannot be shown (status {self.status}): check the store with `saevx verify`.")
        return self.body


async def get(app: ASGIApp, address: str) -> Reply:
    """The answer to GET `address`, a path with its query, as a browser would ask."""
    path, _, query = address.partition("?")
    status, body, begun = 0, bytearray(), False
    scope: Scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"localhost"), (b"accept", b"text/html")],
        "client": ("127.0.0.1", 0), "server": ("localhost", 80),
    }  # fmt: skip

    async def receive() -> Message:
        nonlocal begun
        if begun:
            await asyncio.Event().wait()  # the client does not leave
        begun = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return Reply(status, bytes(body))
