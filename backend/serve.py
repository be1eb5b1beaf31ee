"""Runs the server: what `saevx serve` and the end of `saevx demo` do."""

from __future__ import annotations

import gc
import socket
import sys
from typing import TYPE_CHECKING

from backend.settings import Settings
from precompute.errors import SaevxError

if TYPE_CHECKING:
    from backend.deps import State


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until interrupted. Raises SaevxError where no store can be opened or the port is taken."""
    import uvicorn

    from backend.app import create_app
    from backend.hosts import own_names

    app = create_app(settings, own_names(host))
    state: State = app.state.saevx
    for reason in state.unavailable.values():
        print(f"saevx: {reason} The other stores are served.", file=sys.stderr)
    # Longer than proxies keep theirs: whoever closes first may do so on a request that is already on its way.
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, timeout_graceful_shutdown=5, timeout_keep_alive=75
    )
    server = uvicorn.Server(config)
    listening = bind(host, port)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    address = f"[{shown}]" if ":" in shown else shown
    path = "/" + settings.root_path.strip("/") if settings.root_path.strip("/") else ""
    print(f"Store{'s' if len(state.stores) > 1 else ''} {', '.join(state.stores)}", file=sys.stderr)
    print(f"Open http://{address}:{listening.getsockname()[1]}{path}/", flush=True)
    settle()
    server.run(sockets=[listening])  # on uvloop, where it is installed


def settle() -> None:
    """Takes what start-up made from the garbage collector, and lets it look less often: to go through half a million
    objects of libraries again and again is a third of the time of the longer pages."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def bind(host: str, port: int) -> socket.socket:
    """The listening socket, taken before anything is announced; port 0 takes any free one."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)  # from here on a browser waits for the page instead of being refused
    except OSError as error:
        raise SaevxError(
            f"Cannot listen on {host}:{port} ({error.strerror}): choose another --port."
        ) from error
    return listening
