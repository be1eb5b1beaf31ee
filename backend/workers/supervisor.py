"""The process that `saevx serve --workers` starts: it starts the workers, starts one again that has ended, and ends all
when it is stopped. It answers no request itself."""

import contextlib
import json
import os
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from backend.settings import Settings
from backend.workers.place import FIRST, Worker
from precompute.errors import SaevxError, first_line
from precompute.utils.progress import harmless

STOP_S = 12.0
"""Seconds that workers have to end: more than they give to running answers."""
SHORT_S, PAUSE_S = 5.0, 2.0
"""A worker that ends sooner than that is started again after a pause only."""


class Task(NamedTuple):
    """What a worker is started with: a line of JSON over its standard input."""

    settings: dict[str, Any]
    names: list[str]
    worker: dict[str, Any]
    """The fields of a `Worker`."""
    sockets: list[int]
    """Numbers of the open sockets: the server's, and its own for other workers."""


class Opened(NamedTuple):
    """What a worker says, as soon as it answers: a line of JSON over its standard output. Likewise `Failed`."""

    stores: list[str]
    problems: list[str]


class Failed(NamedTuple):
    """What it says where it cannot."""

    reason: str


def as_line(message: Task | Opened | Failed) -> bytes:
    """A message as JSON, ended by a line feed."""
    return json.dumps(message._asdict()).encode() + b"\n"


Announce = Callable[[Sequence[str], Sequence[str]], None]
"""Called once with the stores, and why others cannot be read."""


@dataclass
class Running:
    """A worker's process, or its place while there is none."""

    worker: Worker
    sockets: list[socket.socket]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    again_at: float = 0.0
    """When it is to be started, while there is no process."""
    reason: str = field(default="")
    """The last that was printed of why it could not start."""


def supervise(settings: Settings, names: Iterable[str], sockets: list[socket.socket], announce: Announce) -> None:
    """Run a worker for each socket until interrupted.

    Raises:
        SaevxError: the first worker cannot start, such as where no store can be opened.
    """
    folder = make_folder()
    workers: list[Running] = []
    try:
        secret = secrets.token_urlsafe(32)
        for number, public in enumerate(sockets, FIRST):
            worker = Worker(number, len(sockets), folder, secret)
            workers.append(Running(worker, [public, private_socket(worker)]))
        Supervisor(settings, sorted(names), workers).run(announce)
    finally:
        stop(workers)
        shutil.rmtree(folder, ignore_errors=True)


def make_folder() -> Path:
    """A folder that only this user reads. Raises SaevxError where there can be none."""
    try:
        return Path(tempfile.mkdtemp(prefix="saevx-"))
    except OSError as error:
        raise SaevxError(
            f"The workers need a folder for temporary files ({first_line(error)}): name one in the variable TMPDIR."
        ) from error


def private_socket(worker: Worker) -> socket.socket:
    """The listening socket of a worker for the others. Raises SaevxError where the path is too long for one."""
    new_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        new_socket.bind(worker.socket(worker.number))
    except OSError as error:
        new_socket.close()
        raise SaevxError(
            f"The workers cannot make a socket in {worker.folder} ({first_line(error)}): name a folder with a short "
            "path in the variable TMPDIR."
        ) from error
    new_socket.listen(1024)
    return new_socket


class Supervisor:
    """The workers of one server."""

    def __init__(self, settings: Settings, names: list[str], workers: list[Running]) -> None:
        self.settings, self.names, self.workers = settings, names, workers
        self.selector = selectors.DefaultSelector()

    def run(self, announce: Announce) -> None:
        """Until interrupted. The first worker opens the stores before the others do, so that a fault of theirs is
        reported once."""
        first, *other_workers = self.workers
        self.start(first)
        match self.hear(first):
            case Opened(stores, problems):
                announce(stores, problems)
            case Failed(reason):
                raise SaevxError(reason)
            case _:
                raise SaevxError("The first worker ended while it started: its messages are above this one.")
        for child in other_workers:
            self.start(child)
        while True:
            start_times = [child.again_at for child in self.workers if child.process is None]
            pause = max(0.0, min(start_times) - time.monotonic()) if start_times else None
            for key, _ in self.selector.select(pause):
                self.attend(cast(Running, key.data))
            for child in self.workers:
                if child.process is None and child.again_at <= time.monotonic():
                    self.start(child)

    def start(self, child: Running) -> None:
        """Start the worker's process, and hand over what it needs."""
        files = [s.fileno() for s in child.sockets]
        token = self.settings.token.get_secret_value() if self.settings.token else None
        settings = {**self.settings.model_dump(mode="json"), "token": token}
        worker = {**asdict(child.worker), "folder": str(child.worker.folder)}
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "backend.workers.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=files,
            env=environment,
            process_group=0,  # Ctrl+C reaches this process alone, which ends them
        )
        child.process, child.started_at = process, time.monotonic()
        with contextlib.suppress(OSError):  # it has ended already, which its output tells
            stream = cast(IO[bytes], process.stdin)
            stream.write(as_line(Task(settings, self.names, worker, files)))
            stream.flush()
        self.selector.register(cast(IO[bytes], process.stdout), selectors.EVENT_READ, child)

    def hear(self, child: Running) -> Opened | Failed | None:
        """What the worker says next; None where it has ended."""
        try:
            fields = json.loads(cast(IO[bytes], child.process and child.process.stdout).readline())
        except (OSError, ValueError):  # it has ended, or was killed in the middle of a line
            return None
        return Failed(**fields) if "reason" in fields else Opened(**fields)

    def attend(self, child: Running) -> None:
        """Read what a worker says; plan its next start where it has ended."""
        message = self.hear(child)
        if isinstance(message, Failed) and message.reason != child.reason:
            print(harmless(f"saevx: {message.reason}"), file=sys.stderr)
        if message is not None:
            child.reason = message.reason if isinstance(message, Failed) else ""
            return
        process = cast("subprocess.Popen[bytes]", child.process)
        self.selector.unregister(cast(IO[bytes], process.stdout))
        status = process.wait()
        close(process)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        name = f"worker {child.worker.number} (process {process.pid})"
        print(f"saevx: {name} {how} and is started again.", file=sys.stderr)
        if child.worker.has_model:
            child.worker.model_file.unlink(missing_ok=True)
        lifetime_s = time.monotonic() - child.started_at
        child.process, child.again_at = None, time.monotonic() + (PAUSE_S if lifetime_s < SHORT_S else 0.0)


def stop(workers: Iterable[Running]) -> None:
    """End all workers: with time for running answers, then at once."""
    processes = [child.process for child in workers if child.process is not None]
    try:
        for process in processes:
            process.terminate()
            with contextlib.suppress(OSError):  # one that does not listen to signals yet reads this later
                cast(IO[bytes], process.stdin).close()
        end = time.monotonic() + STOP_S
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    finally:  # also where this is interrupted
        for process in processes:
            process.kill()
            process.wait()
            close(process)


def close(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes of a process that has ended."""
    for stream in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            cast(IO[bytes], stream).close()
