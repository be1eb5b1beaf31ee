"""Requests from one worker to another, over the other's own socket: those that need the model, and those for its
figures."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncGenerator
from typing import Any

import h11
from fastapi import HTTPException, Request, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.middleware.observe import REQUEST_ID
from backend.workers.place import FIRST, Worker

log = logging.getLogger(__name__)

HEADER = b"x-saevx-worker"
"""Of a request from another worker: the secret, then the scheme and the client of the visitor's request."""
OF_CONNECTION = {b"connection", b"keep-alive", b"transfer-encoding", b"date", b"server"}
"""Headers of a reply that each server sets itself."""
NOT_SENT = {b"content-length", b"transfer-encoding", b"connection", b"expect", b"x-request-id", HEADER}
CHUNK = 1 << 16
DOWN = "The process with the model is starting again: try again in a few seconds."
Unreachable = (OSError, h11.RemoteProtocolError)


class InFirstWorker(Exception):  # noqa: N818 - no error
    """Only the first worker can answer this request."""


class FromWorker:
    """Takes a request from another worker as what it is: the request of that worker's visitor. `scope["of_worker"]`
    tells that it was counted and logged there."""

    def __init__(self, app: ASGIApp, worker: Worker) -> None:
        self.app, self.secret = app, worker.secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            header = next((value for name, value in scope["headers"] if name == HEADER), b"")
            secret, _, visitor = header.partition(b" ")
            if header and hmac.compare_digest(secret, self.secret):
                scheme, _, client = visitor.decode("latin-1").partition(" ")
                scope = {**scope, "scheme": scheme, "client": (client, 0), "of_worker": True}
        await self.app(scope, receive, send)


class Forward:
    """Lets the first worker answer what raises `InFirstWorker`. The body of a request is held until it is answered."""

    def __init__(self, app: ASGIApp, worker: Worker) -> None:
        self.app, self.worker = app, worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = RecordedBody(receive)
        try:
            await self.app(scope, body, send)
        except InFirstWorker:
            await self._forward(scope, body, send)

    async def _forward(self, scope: Scope, body: RecordedBody, send: Send) -> None:
        try:
            content = await body.read_all()
        except HTTPException as refusal:
            await refuse(refusal, scope, body, send)
            return
        answer = asyncio.ensure_future(self._relay(scope, content, send))
        until_gone = asyncio.ensure_future(body.until_gone())
        try:
            await asyncio.wait((answer, until_gone), return_when=asyncio.FIRST_COMPLETED)
        finally:  # a visitor who leaves ends the request in the first worker too
            until_gone.cancel()
            if not answer.done():
                answer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answer

    async def _relay(self, scope: Scope, body: bytes, send: Send) -> None:
        has_started = False
        try:
            async with contextlib.aclosing(exchange(self.worker, FIRST, scope, body)) as messages:
                async for message in messages:
                    has_started = True
                    await send(message)
        except Unreachable as error:
            log.warning("The first worker did not answer: %s", type(error).__name__)
            if has_started:
                raise
            await refuse(HTTPException(503, DOWN, {"Retry-After": "3"}), scope, _disconnect_message, send)


async def refuse(refusal: HTTPException, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as the application does where an endpoint raises this."""
    answer: Any = scope["app"].exception_handlers[StarletteHTTPException]
    reply: Response = await answer(Request(scope), refusal)
    await reply(scope, receive, send)


class RecordedBody:
    """`receive` of a request that holds what came of the body, so that another can read it from its beginning."""

    def __init__(self, receive: Receive) -> None:
        self.receive = receive
        self.parts: list[bytes] = []
        self.complete = False

    async def __call__(self) -> Message:
        message = await self.receive()
        if message["type"] == "http.request":
            self.parts.append(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        return message

    async def read_all(self) -> bytes:
        while not self.complete and (await self())["type"] != "http.disconnect":
            pass
        return b"".join(self.parts)

    async def until_gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass


async def exchange(worker: Worker, number: int, scope: Scope, body: bytes = b"") -> AsyncGenerator[dict[str, Any]]:
    """The reply of worker `number` to the request of `scope`, as the messages of ASGI.

    Raises:
        OSError, h11.RemoteProtocolError: it does not answer, or not to the end.
    """
    client = (scope.get("client") or ("",))[0]
    visitor = f"{worker.secret} {scope.get('scheme', 'http')} {client}".encode("latin-1", "replace")
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in NOT_SENT]
    headers += [(HEADER, visitor), (b"connection", b"close"), (b"content-length", str(len(body)).encode())]
    headers += [(b"x-request-id", request_id.encode())] if (request_id := REQUEST_ID.get()) else []
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    conn = h11.Connection(h11.CLIENT)
    head = conn.send(h11.Request(method=scope["method"], target=target, headers=headers))
    reader, writer = await asyncio.open_unix_connection(worker.socket(number))
    try:
        writer.write((head or b"") + (conn.send(h11.Data(data=body)) or b"") + (conn.send(h11.EndOfMessage()) or b""))
        await writer.drain()
        while True:
            event = conn.next_event()
            if event is h11.NEED_DATA:
                conn.receive_data(await reader.read(CHUNK))
            elif isinstance(event, h11.Response):
                reply = [(name, value) for name, value in event.headers if name not in OF_CONNECTION]
                yield {"type": "http.response.start", "status": event.status_code, "headers": reply}
            elif isinstance(event, h11.Data):
                yield {"type": "http.response.body", "body": bytes(event.data), "more_body": True}
            elif isinstance(event, h11.EndOfMessage):
                yield {"type": "http.response.body", "body": b"", "more_body": False}
                return
            elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                raise ConnectionError("closed")
    finally:
        writer.close()


async def body_of(worker: Worker, number: int, scope: Scope) -> bytes | None:
    """The body of another worker's reply; None where it does not answer with 200."""
    body, status = b"", 0
    try:
        async with asyncio.timeout(5), contextlib.aclosing(exchange(worker, number, scope)) as messages:
            async for message in messages:
                status = message.get("status", status)
                body += message.get("body", b"")
    except (*Unreachable, TimeoutError):
        return None
    return body if status == 200 else None


async def look_at_stores(worker: Worker) -> None:
    """Let the first worker look whether other stores have taken the place of those that it has open."""
    scope = {"method": "GET", "raw_path": b"/readyz", "query_string": b"", "headers": [(b"host", b"localhost")]}
    await body_of(worker, FIRST, scope)


async def _disconnect_message() -> Message:
    return {"type": "http.disconnect"}
