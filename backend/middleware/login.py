"""Who may use the server: whoever has its token, or whom the proxy in front of it has let in.

A visitor gives the token once, in the address that is printed at the start (`/?token=…`) or on the page that asks for
it. The browser then holds a cookie made from the token, so that it ends when the token changes. Programs send the
token in `Authorization: Bearer …`.
"""

import base64
import hashlib
import hmac
from urllib.parse import parse_qsl, urlencode

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from markupsafe import Markup
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.problems import problem, wants_page
from backend.templating import templates

COOKIE = "saevx_login"
YEAR_S = 365 * 24 * 3600
LOGIN, OPEN = "/login", "/healthz"
INSIDE = "saevx.inside"
"""In the scope of a request that this process itself makes; what comes over a network cannot set it."""
MAX_FORM = 4096
"""Bytes of the form that gives the token."""
ASKS = (
    "This server needs its token: open the address that `saevx serve` printed, or send the token as "
    "`Authorization: Bearer TOKEN`."
)
WRONG = "This is not the token of this server. It is in the address that `saevx serve` printed when it started."


class Login:
    """Answers 401 to whoever has neither the token nor its cookie nor the proxy's header; `/healthz` tells everyone
    that the process answers, and no more.

    Args:
        token: of the server; None where it needs none.
        proxy_header: a request in which this header is not empty was let in by the proxy.
    """

    def __init__(self, app: ASGIApp, token: str | None, proxy_header: str | None) -> None:
        self.app = app
        self.token = token.encode() if token else None
        self.proxy_header = proxy_header
        key = hashlib.sha256(self.token or b"").digest()
        self.cookie = hmac.new(key, b"saevx login", "sha256").hexdigest().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or INSIDE in scope or (self.token is None and self.proxy_header is None):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        path = request.url.path.removeprefix(scope.get("root_path", ""))
        if path == LOGIN and request.method == "POST":
            await (await self._login(request))(scope, receive, send)
        elif token := self._query_token(request):
            await self._enter(request, token)(scope, receive, send)
        elif self._is_known(request):
            await self.app(scope, receive, send)
        else:
            await (await self._ask(request, path))(scope, receive, send)

    def _is_token(self, token: str) -> bool:
        return self.token is not None and hmac.compare_digest(token.encode(), self.token)

    def _query_token(self, request: Request) -> str | None:
        """The token in the address, which no page of the application knows as a parameter."""
        return request.query_params.get("token") if request.method == "GET" else None

    def _is_known(self, request: Request) -> bool:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        cookie = request.cookies.get(COOKIE, "").encode()
        return (
            (scheme.lower() == "bearer" and self._is_token(bearer.strip()))
            or (self.token is not None and hmac.compare_digest(cookie, self.cookie))
            or (self.proxy_header is not None and bool(request.headers.get(self.proxy_header, "").strip()))
        )

    def _enter(self, request: Request, token: str) -> Response:
        """Leads to the same address without the token, with the cookie where it was right."""
        query = [(name, value) for name, value in parse_qsl(request.url.query, True) if name != "token"]
        address = request.url.path + (f"?{urlencode(query)}" if query else "")
        reply = RedirectResponse(_local(address), 303, {"Cache-Control": "no-store"})
        if self._is_token(token):
            self._set_cookie(request, reply)
        return reply

    def _set_cookie(self, request: Request, reply: Response) -> None:
        path, secure = request.scope.get("root_path", "") or "/", request.url.scheme == "https"
        reply.set_cookie(
            COOKIE, self.cookie.decode(), max_age=YEAR_S, path=path, secure=secure, httponly=True, samesite="strict"
        )

    async def _login(self, request: Request) -> Response:
        """The reply to the page that asks for the token."""
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM:
                return problem(request, 413, "The form is too large: send the token alone.")
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        if not self._is_token(form.get("token", "").strip()):
            return login_page(request, form.get("next", "/"), WRONG)
        reply = RedirectResponse(_local(form.get("next", "/")), 303, {"Cache-Control": "no-store"})
        self._set_cookie(request, reply)
        return reply

    async def _ask(self, request: Request, path: str) -> Response:
        if path == OPEN:
            return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})
        if not wants_page(request) or request.method not in ("GET", "HEAD"):
            return problem(request, 401, ASKS, headers={"WWW-Authenticate": "Bearer"})
        address = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return login_page(request, address)


def login_page(request: Request, address: str, problem: str = "") -> HTMLResponse:
    """The page that asks for the token, and leads to `address`. Its style is in the page, allowed by its hash: whoever
    has no token gets no other file. A link from another site brings no cookie (SameSite), so that this page asks for
    its address once more by itself."""
    style = templates.get_template("login.css").render()
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    values = {
        "style": Markup(style),
        "base": request.scope.get("root_path", ""),
        "next": _local(address),
        "problem": problem,
        "again": request.headers.get("sec-fetch-site") == "cross-site" and not problem,
    }
    policy = f"default-src 'none'; style-src 'sha256-{style_hash}'; form-action 'self'; base-uri 'none'"
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "WWW-Authenticate": "Bearer"}
    return HTMLResponse(templates.get_template("login.html").render(values), 401, headers)


def _local(address: str) -> str:
    """An address of this server, whatever was asked: `//other.site` would lead to another."""
    return "/" + address.lstrip("/\\") if address.startswith("/") else "/"
