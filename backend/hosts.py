"""Whose requests are answered: those that name this server in `Host` and, where they change or compute something, do
not come from another site's page.

The server has no login, so whoever can reach it may ask. A stranger's web page can make its visitor's browser reach it
too: by a name of its own that it lets point to this machine (DNS rebinding), or by sending a form here. An IP address
in `Host` cannot be such a name, and neither can the machine's own names.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterable

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.problems import problem
from backend.settings import EVERY, split_host

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
TEST_CLIENT = "testserver"
"""What Starlette's TestClient calls every server. It has no dot, so nobody can register it."""
_PORTS = {"http": 80, "https": 443}
LOOKUP_S = 2.0


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def own_names(host: str) -> set[str]:
    """What a server that listens on `host` is called: that name, and unless it can only be reached from this machine,
    the machine's full name and the one that local networks give it."""
    names = {host, socket.gethostname()}
    bare = host.strip("[]")
    local = host == "localhost" or (is_address(bare) and ipaddress.ip_address(bare).is_loopback)
    if not local:
        names |= {_full_name(), f"{socket.gethostname().partition('.')[0]}.local"}
    return {name.lower() for name in names if name}


def _full_name() -> str:
    """The machine's name with its domain; without, where the name server does not answer soon."""
    found: list[str] = []
    lookup = threading.Thread(target=lambda: found.append(socket.getfqdn()), daemon=True)
    lookup.start()
    lookup.join(LOOKUP_S)
    return found[0] if found else socket.gethostname()


class Visitors:
    """Refuses a `Host` that is not this server's (421), and an unsafe method from another site's page (403).

    Args:
        names: of this server; IP addresses and `localhost` need not be named.
        allowed: more names, as `AllowedHost`, of a proxy before it: pages at these addresses are this server's own.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], allowed: Iterable[str]) -> None:
        self.app = app
        self.every = EVERY in allowed
        listed = [one for one in allowed if one != EVERY]
        self.origins = {split for one in listed if (split := split_host(one)) and not one.startswith("*.")}
        below = [split_host(one.removeprefix("*.")) for one in listed if one.startswith("*.")]
        self.domains = tuple(f".{split[0]}" for split in below if split)
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
                f"This server is not known as {host[0]!r}: open it by its IP address or its own name, or start it with "
                f"--allowed-host {host[0]}."
            )
        if scope["method"] in SAFE:
            return None
        return self._foreign(host, headers.get(b"sec-fetch-site", []), headers.get(b"origin", []))

    def _is_ours(self, name: str) -> bool:
        return self.every or name in self.names or is_address(name) or name.endswith(self.domains or ("\0",))

    def _foreign(self, host: tuple[str, int | None], site: list[str], origin: list[str]) -> tuple[int, str] | None:
        """A browser says where a request comes from; what is no browser says nothing, and is answered."""
        ours = set(site) <= {"same-origin", "none"} if site else all(self._is_own(one, host) for one in origin)
        if ours:
            return None
        return 403, (
            f"A page of another site ({(origin or site)[0]}) must not send this request: use this server's "
            "own pages, or start it with --allowed-host and the name, if that is the address of its proxy."
        )

    def _is_own(self, origin: str, host: tuple[str, int | None]) -> bool:
        scheme, _, rest = origin.lower().partition("://")
        split = split_host(rest)
        if split is None or scheme not in _PORTS:
            return False
        usual = _PORTS[scheme]
        return any((name, port or usual) == (split[0], split[1] or usual) for name, port in (host, *self.origins))
