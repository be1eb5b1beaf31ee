"""What frames every request and reply: the path prefix of a proxy, security headers, limits of size."""

from fastapi import HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.problems import problem

# Everything comes from this server. `data:` is for the preview of an image that the visitor chose.
POLICY = "; ".join(
    [
        "default-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
SECURITY = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


MAX_HEADERS, MAX_HEADER_BYTES = 200, 64 * 1024
MAX_PARAMETERS, MAX_QUERY_BYTES = 1000, 64 * 1024


class SecurityHeaders:
    """Adds SECURITY to every reply that does not set these headers itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with)


class RootPath:
    """Sets the path prefix; works behind a proxy that removes the prefix and behind one that does not."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = "/" + root_path.strip("/") if root_path.strip("/") else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.root_path and scope["type"] in ("http", "websocket"):
            path = scope["path"]
            is_inside = path == self.root_path or path.startswith(self.root_path + "/")
            scope = {**scope, "root_path": self.root_path, "path": path if is_inside else self.root_path + path}
        await self.app(scope, receive, send)


class HeadLimit:
    """Refuses an address or headers that are longer than any page or program of ours makes them: the server's parser
    limits neither, and pages repeat the parameters of their address in every link."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refused_head(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await problem(Request({**scope, "headers": []}), *refusal)(scope, receive, send)


def _refused_head(scope: Scope) -> tuple[int, str] | None:
    headers, query = scope["headers"], scope["query_string"]
    if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        limits = f"{MAX_HEADERS} headers and {MAX_HEADER_BYTES // 1024} KiB"
        return 431, f"The request has more than {limits}: send fewer or shorter ones."
    if query.count(b"&") >= MAX_PARAMETERS or len(query) > MAX_QUERY_BYTES:
        limits = f"{MAX_PARAMETERS} parameters or {MAX_QUERY_BYTES // 1024} KiB of them"
        return 414, f"The address has more than {limits}: ask for less at once."
    return None


class BodyLimit:
    """Refuses a body over `max_bytes` bytes: by its announced length, or while it is received."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes
        self.refusal = f"The request is larger than {max_bytes / 1e6:g} MB: send a smaller image."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.max_bytes:
            await problem(request, 413, self.refusal)(scope, receive, send)
            return
        n_bytes = 0

        async def receive_limited() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self.max_bytes:
                raise HTTPException(413, self.refusal)
            return message

        await self.app(scope, receive_limited, send)
