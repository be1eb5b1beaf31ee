"""Run the server, for `saevx serve` and `saevx demo`."""

from __future__ import annotations

import asyncio
import errno
import gc
import secrets
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from pydantic import SecretStr

from backend.settings import Settings, is_loopback
from precompute.errors import SaevxError, first_line
from precompute.utils.processes.interrupts import until_terminated
from precompute.utils.progress import harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import uvicorn
    from fastapi import FastAPI

    from backend.stores import State


GRACE_S = 3.0
"""Seconds that running generations have when the server is stopped."""


def serve(
    settings: Settings, host: str, port: int, attach: Callable[[FastAPI], None] | None = None, workers: int = 1
) -> None:
    """Serve until interrupted. Raises SaevxError if no store can be opened or the port is taken.

    Args:
        attach: adds further addresses to the application; with one worker only.
        workers: number of processes.
    """
    from backend.middleware.hosts import own_names

    token = settings.secret_token()
    if token is None and settings.trust_proxy_auth is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    settings = settings.model_copy(update={"token": token and SecretStr(token), "token_file": None})
    if workers > 1:
        from backend.workers.supervisor import supervise

        sockets = bind_for(workers, host, port)
        with until_terminated():
            supervise(settings, own_names(host), sockets, partial(announce, settings, host, sockets[0]))
        return
    if settings.log_json:
        from backend.middleware.observe import log_json

        log_json()
    from backend.app import create_app

    app = create_app(settings, own_names(host))
    if attach is not None:
        attach(app)
    state: State = app.state.saevx
    server_socket = bind(host, port)
    announce(settings, host, server_socket, list(state.stores), list(state.unavailable.values()))
    freeze_garbage_collector()
    with until_terminated():
        server_of(app).run(sockets=[server_socket])  # on uvloop, if it is installed


def server_of(app: FastAPI) -> uvicorn.Server:
    """What answers the requests to `app`."""
    import uvicorn

    state: State = app.state.saevx
    # Longer than the timeout of proxies: whoever closes first may cut off a request that is already on its way.
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=75,
        log_config=None if state.settings.log_json else uvicorn.config.LOGGING_CONFIG,
    )

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            """Waits for running answers; generations that would take too long are ended with an event that says so."""
            asyncio.get_running_loop().call_later(GRACE_S, state.live.stop)
            await super().shutdown(sockets)

    return Server(config)


def announce(
    settings: Settings, host: str, server_socket: socket.socket, stores: Sequence[str], problems: Sequence[str]
) -> None:
    """Print which stores are served, why others are not (`problems`), and the address to open."""
    for reason in problems:
        print(harmless(f"saevx: {reason} The other stores are served."), file=sys.stderr)
    shown_host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    address = f"[{shown_host}]" if ":" in shown_host else shown_host
    path = "/" + settings.root_path.strip("/") if settings.root_path.strip("/") else ""
    print(harmless(f"Store{'s' if len(stores) > 1 else ''} {', '.join(stores)}"), file=sys.stderr)
    query = f"?token={quote(settings.token.get_secret_value())}" if settings.token else ""
    print(f"Open http://{address}:{server_socket.getsockname()[1]}{path}/{query}", flush=True)


def freeze_garbage_collector() -> None:
    """Exclude the objects of start-up from garbage collection, and collect less often. Otherwise the collector walks
    half a million objects of libraries again and again, which takes a third of the time of the longer pages."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def bind_for(workers: int, host: str, port: int) -> list[socket.socket]:
    """A listening socket for each of several processes. On Linux each has its own, and the system shares out the
    visitors; elsewhere all accept from one.

    Raises:
        SaevxError: as `bind`, or the system is Windows.
    """
    if sys.platform == "win32":
        raise SaevxError("--workers needs Linux or macOS: leave it out.")
    if sys.platform != "linux":
        return [bind(host, port)] * workers
    bind(host, port).close()  # several of one user may share a port, so that nothing else would tell that it is taken
    first = bind(host, port, shared=True)
    port = first.getsockname()[1]
    return [first, *(bind(host, port, shared=True) for _ in range(workers - 1))]


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """The listening socket, opened before the address is printed; port 0 takes any free port.

    Args:
        shared: other sockets of this server have the port too.

    Raises:
        SaevxError: the host does not exist or is not this machine, or the port is taken or not allowed.
    """
    name = host.removeprefix("[").removesuffix("]")
    try:
        addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SaevxError(
            f"There is no host {host!r} ({first_line(error)}): choose another --host, such as 127.0.0.1 or 0.0.0.0."
        ) from error
    for last, (family, kind, protocol, _, address) in enumerate(addresses, 1 - len(addresses)):
        server_socket = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":  # on Windows this would share a port that is in use
                server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                server_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server_socket.bind(address)
            server_socket.listen(2048)  # from now on a browser waits instead of being refused
            return server_socket
        except OSError as error:
            server_socket.close()
            if last == 0:
                raise cannot_listen(host, port, error) from error
    raise SaevxError(f"There is no host {host!r}: choose another --host, such as 127.0.0.1 or 0.0.0.0.")


def cannot_listen(host: str, port: int, error: OSError) -> SaevxError:
    """The error with advice that fits its cause."""
    if error.errno == errno.EADDRNOTAVAIL:
        return SaevxError(f"{host} is no address of this machine: choose another --host, such as 127.0.0.1 or 0.0.0.0.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return SaevxError(f"This user may not listen on port {port}: choose another --port, 1024 or higher.")
    why = "another program uses it" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return SaevxError(f"Cannot listen on {host}:{port} ({why}): choose another --port, or 0 for a free one.")
