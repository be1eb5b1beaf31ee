"""Requests to the application in its own process, without a network: for `saevx export` and `saevx mcp`."""

import asyncio
import json
from typing import Any, NamedTuple
from urllib.parse import unquote, urlencode

from fastapi import FastAPI
from starlette.types import Message, Scope

from backend.middleware.login import INSIDE
from precompute.errors import SaevxError

LONGEST = 600
"""Characters of a sentence; what it repeats of a request may be longer."""


class RefusedError(SaevxError):
    """The application answers with a problem: its sentence."""


class Reply(NamedTuple):
    """What the application answers."""

    status: int
    body: bytes

    def checked(self) -> bytes:
        """The body. Raises RefusedError, with the sentence of the problem details, where the status is an error."""
        if self.status < 400:
            return self.body
        try:
            detail = json.loads(self.body)["detail"]
        except (ValueError, KeyError):
            detail = f"The application answers with status {self.status}."
        raise RefusedError(detail if len(detail) <= LONGEST else f"{detail[: LONGEST // 2]}…{detail[-100:]}")


async def request(
    app: FastAPI, method: str, address: str, body: bytes = b"", content_type: str = "application/json"
) -> Reply:
    """The answer to a request for `address`, a path with its query. It needs no token and no proxy's header."""
    path, _, query = address.partition("?")
    headers = {"host": "localhost", "content-type": content_type, "content-length": str(len(body))}
    scope: Scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 0), "server": ("localhost", 80), INSIDE: True,
    }  # fmt: skip
    status, parts, was_sent = 0, list[bytes](), False

    async def receive() -> Message:
        nonlocal was_sent
        if was_sent:
            await asyncio.Event().wait()  # the client does not leave
        was_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    await app(scope, receive, send)
    return Reply(status, b"".join(parts))


async def get_json(app: FastAPI, path: str, **params: Any) -> Any:
    """The reply of the API to GET `/api/v1` and `path`. Parameters that are None are left out.

    Raises:
        RefusedError: with the sentence of the problem details.
    """
    parameters = {name: value for name, value in params.items() if value is not None}
    query = f"?{urlencode(parameters, doseq=True)}" if parameters else ""
    return json.loads((await request(app, "GET", f"/api/v1{path}{query}")).checked())
