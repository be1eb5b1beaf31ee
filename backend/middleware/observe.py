"""What the log and /metrics tell of a request: its id, route, status, time and bytes.

Neither tells its address, parameters, headers or body: they hold captions and the token.
"""

import ipaddress
import json
import logging
import re
import time
import traceback
import uuid
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.live.model_worker import CLIENT
from backend.middleware.metrics import Metrics
from backend.problems import METHODS

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
PLAIN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""An id that a proxy or client may give: anything else could forge lines of a log."""
access = logging.getLogger("saevx.access")


class Observe:
    """Gives each request its id, names its client to the live model's queue, and measures the reply.

    Args:
        proxy_header: by which a proxy names the visitors that it has logged in.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, proxy_header: str | None) -> None:
        self.app, self.metrics, self.proxy_header = app, metrics, proxy_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers, begin = Headers(scope=scope), time.perf_counter()
        header = headers.get("x-request-id", "")
        request_id = header if PLAIN_ID.fullmatch(header) else uuid.uuid4().hex
        user = headers.get(self.proxy_header, "").strip() if self.proxy_header else ""
        visitor = f"@{user}" if user else visitor_at((scope.get("client") or ("",))[0])
        variables = REQUEST_ID.set(request_id), CLIENT.set(visitor)
        status, n_bytes = 500, 0

        async def send_with(message: Message) -> None:
            nonlocal status, n_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            n_bytes += len(message.get("body", b""))
            await send(message)

        if scope.get("of_worker"):  # counted and logged by the worker that the visitor asked
            await self.app(scope, receive, send_with)
            REQUEST_ID.reset(variables[0])
            CLIENT.reset(variables[1])
            return
        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, send_with)
        finally:
            self.metrics.in_flight.dec()
            facts = {"route": route_of(scope), "method": method_of(scope), "status": status}
            seconds = time.perf_counter() - begin
            self.metrics.seconds.labels(*facts.values()).observe(seconds)
            if access.isEnabledFor(logging.INFO):
                access.info("request", extra={"facts": {**facts, "seconds": round(seconds, 6), "bytes": n_bytes}})
            REQUEST_ID.reset(variables[0])
            CLIENT.reset(variables[1])


def visitor_at(address: str) -> str:
    """One name for all addresses that one visitor has: an IPv6 line has 2⁶⁴ of them."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address) or ip.is_loopback:
        return address
    return str(ip.ipv4_mapped or ipaddress.ip_network((ip.packed[:8] + bytes(8), 64)))


def route_of(scope: Scope) -> str:
    """The address's template, such as /features/{feature_id}; "none" where the application has no such route or was
    not asked."""
    template = getattr(scope.get("route"), "path", None)
    if template is None:
        return "/static" if "endpoint" in scope else "none"
    prefix = "/api/v1" if scope["path"].removeprefix(scope.get("root_path", "")).startswith("/api/v1/") else ""
    return prefix + str(template).removeprefix(prefix)


def method_of(scope: Scope) -> str:
    """The method, or "other": a client can make up any word."""
    return scope["method"] if scope["method"] in METHODS else "other"


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the request's id. Of an exception the type and the
    places in the code, without its message, which may quote what a visitor sent."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and (error := record.exc_info[1]):
            line["error"] = type(error).__name__
            line["stack"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
        return json.dumps({name: value for name, value in line.items() if value is not None}, ensure_ascii=False)


def log_json() -> None:
    """Write every log of the process to standard error as `JsonLines`, with a line for each request."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in ("saevx.access", "backend"):
        logging.getLogger(name).setLevel(logging.INFO)
