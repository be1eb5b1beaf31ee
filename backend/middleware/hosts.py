"""Which requests are this server's own, whoever sends them: its names in `Host`, and the pages of other sites.

The page of another site can make its visitor's browser reach this server: under a name of its own that points to this
machine (DNS rebinding), or by sending a form here. An IP address in `Host` cannot be such a name, and neither can the
machine's own names.
"""

import socket
import threading
from collections.abc import Iterable

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.problems import problem
from backend.settings import EVERY, is_address, is_loopback, split_host

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
TEST_CLIENT = "testserver"
"""Name of every server in Starlette's TestClient. It has no dot, so nobody can register it."""
DEFAULT_PORTS = {"http": 80, "https": 443}
LOOKUP_S = 2.0
"""Seconds to wait for the name server."""


def own_names(host: str) -> set[str]:
    """Names of a server that listens on `host`: that name and, unless only this machine can reach the server, the
    machine's full name and its name in local networks."""
    names = {host, socket.gethostname()}
    if not is_loopback(host):
        names |= {_full_name(), f"{socket.gethostname().partition('.')[0]}.local"}
    return {name.lower() for name in names if name}


def _full_name() -> str:
    """The machine's name with its domain, or without it if the name server does not answer within LOOKUP_S."""
    names: list[str] = []
    lookup = threading.Thread(target=lambda: names.append(socket.getfqdn()), daemon=True)
    lookup.start()
    lookup.join(LOOKUP_S)
    return names[0] if names else socket.gethostname()


class HostCheck:
    """Refuses a `Host` that does not name this server (421), and an unsafe method from another site's page (403).

    Args:
        names: of this server; IP addresses and `localhost` are always accepted.
        allowed_names: further names, as `AllowedHost`, such as a proxy's: pages at these addresses are this server's
            own.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], allowed_names: Iterable[str]) -> None:
        self.app = app
        self.every = EVERY in allowed_names
        single_names = [entry for entry in allowed_names if entry != EVERY]
        self.origins = {host for entry in single_names if (host := split_host(entry)) and not entry.startswith("*.")}
        domains = [split_host(entry.removeprefix("*.")) for entry in single_names if entry.startswith("*.")]
        self.domains = tuple(f".{host[0]}" for host in domains if host)
        self.names = {"localhost", TEST_CLIENT, *names, *(name for name, _ in self.origins)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            await problem(Request(scope), *refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts = headers.get(b"host", [])
        if not hosts and scope.get("http_version") == "1.0":
            hosts = ["localhost"]  # a health check of a load balancer; a browser always names its host
        host = split_host(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return 400, "The request must name this server in one Host header."
        if not self._is_ours(host[0]):
            return 421, (
                f"{host[0]!r} is not a name of this server: use its IP address or its own name, or start it with "
                f"--allowed-host {host[0]}."
            )
        if scope["method"] in SAFE_METHODS:
            return None
        return self._foreign(host, headers.get(b"sec-fetch-site", []), headers.get(b"origin", []))

    def _is_ours(self, name: str) -> bool:
        return self.every or name in self.names or is_address(name) or name.endswith(self.domains or ("\0",))

    def _foreign(self, host: tuple[str, int | None], site: list[str], origin: list[str]) -> tuple[int, str] | None:
        """A browser states which site a request comes from. Other programs state nothing, and are answered."""
        is_ours = set(site) <= {"same-origin", "none"} if site else all(self._is_own(a, host) for a in origin)
        if is_ours:
            return None
        return 403, (
            f"A page of another site ({(origin or site)[0]}) may not send this request: use this server's own pages. "
            "If this is the address of its proxy, start the server with --allowed-host and that name."
        )

    def _is_own(self, origin: str, host: tuple[str, int | None]) -> bool:
        scheme, _, host_and_port = origin.lower().partition("://")
        parts = split_host(host_and_port)
        if parts is None or scheme not in DEFAULT_PORTS:
            return False
        default = DEFAULT_PORTS[scheme]
        return any((name, port or default) == (parts[0], parts[1] or default) for name, port in (host, *self.origins))
