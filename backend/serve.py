"""Runs the server: what `saevx serve` and the end of `saevx demo` do."""

from __future__ import annotations

import contextlib
import errno
import gc
import socket
import sys
from typing import TYPE_CHECKING

from backend.settings import Settings
from precompute.errors import SaevxError, Terminated, first_line

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
    with contextlib.suppress(Terminated):  # which is how a service is stopped
        server.run(sockets=[listening])  # on uvloop, where it is installed


def settle() -> None:
    """Takes what start-up made from the garbage collector, and lets it look less often: to go through half a million
    objects of libraries again and again is a third of the time of the longer pages."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


def bind(host: str, port: int) -> socket.socket:
    """The listening socket, taken before anything is announced; port 0 takes any free one.

    Raises:
        SaevxError: there is no such host, it is not this machine, or the port is taken or may not be used.
    """
    name = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise SaevxError(
            f"There is no host {host!r} ({first_line(error)}): choose another --host, such as 127.0.0.1 or 0.0.0.0."
        ) from error
    for last, (family, kind, protocol, _, address) in enumerate(found, 1 - len(found)):
        listening = socket.socket(family, kind, protocol)
        try:
            if sys.platform != "win32":  # there it would share the port with whoever has it
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)  # from here on a browser waits for the page instead of being refused
            return listening
        except OSError as error:
            listening.close()
            if last == 0:
                raise cannot_listen(host, port, error) from error
    raise SaevxError(f"There is no host {host!r}: choose another --host, such as 127.0.0.1 or 0.0.0.0.")


def cannot_listen(host: str, port: int, error: OSError) -> SaevxError:
    """With what helps against the cause."""
    if error.errno == errno.EADDRNOTAVAIL:
        return SaevxError(f"{host} is no address of this machine: choose another --host, such as 127.0.0.1 or 0.0.0.0.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return SaevxError(f"This user may not listen on port {port}: choose another --port, from 1024 on.")
    why = "another program does already" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return SaevxError(f"Cannot listen on {host}:{port} ({why}): choose another --port, or 0 for a free one.")
