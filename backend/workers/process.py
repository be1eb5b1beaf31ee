"""The process of one worker: `python -m backend.workers.process`, started by the supervisor alone."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from backend.app import create_app
from backend.serve import freeze_garbage_collector, server_of
from backend.settings import Settings
from backend.workers.place import Worker
from backend.workers.supervisor import Failed, Opened, Task, as_line
from precompute.errors import SaevxError

SUPERVISOR = 0
"""Number of standard input, which the supervisor closes when it ends, whatever ends it."""


def main() -> None:
    """Serve until the supervisor says otherwise, or ends."""
    with os.fdopen(os.dup(SUPERVISOR), "rb", buffering=0) as stream:
        task = Task(**json.loads(stream.readline()))
    worker = Worker(**{**task.worker, "folder": Path(task.worker["folder"])})
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what anything prints from now on is no message to the supervisor
    settings = Settings(**task.settings)
    if settings.log_json:
        from backend.middleware.observe import log_json

        log_json()
    try:
        app = create_app(settings, task.names, worker)
    except SaevxError as error:
        output.write(as_line(Failed(str(error))))
        sys.exit(1)
    state = app.state.saevx
    server = server_of(app)
    start = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await start(sockets)
        asyncio.get_running_loop().add_reader(SUPERVISOR, leave)
        with contextlib.suppress(OSError):  # the supervisor has ended meanwhile, so that this process does too
            output.write(as_line(Opened(list(state.stores), list(state.unavailable.values()))))

    def leave() -> None:
        asyncio.get_running_loop().remove_reader(SUPERVISOR)
        server.should_exit = True

    untyped_server: Any = server
    untyped_server.startup = startup
    freeze_garbage_collector()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # uvicorn sends it again after its own answer to it
    server.run(sockets=[socket.socket(fileno=number) for number in task.sockets])


if __name__ == "__main__":
    main()
