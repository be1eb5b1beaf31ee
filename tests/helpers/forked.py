"""`saevx` in a process of its own that starts at once: a copy of one that has imported everything (fork_server.py).

Only tests start it so. A benchmark that somebody runs starts fresh processes, as its figures say.
"""

import atexit
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
SAEVX = [sys.executable, "-m", "backend.cli"]
PR_SET_CHILD_SUBREAPER = 36
OF_NO_IMPORT = ("SAEVX_", "PYTEST_", "PYTHONPATH", "KMP_", "RAY_", "XDG_STATE_", "OLDPWD", "PWD", "SHLVL", "_")
"""Beginnings of variables that no library reads while it is imported. A command for which another one differs is
started afresh."""


def start(
    *args: object, code: str | None = None, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """`saevx ARGS` as subprocess.Popen would start it, in seconds less.

    Args:
        code: to run in place of the entry point, as in `python -c CODE ARGS`.
    """
    command, environment = [*of_code(code), *map(str, args)], dict(os.environ if env is None else env)
    server = ForkServer.of_this_process()
    kind = Forked if server is not None and server.is_for(environment) else subprocess.Popen
    return kind(command, env=environment, **options)


def of_code(code: str | None) -> list[str]:
    """The command before its arguments."""
    return SAEVX if code is None else [sys.executable, "-c", code]


class ForkServer:
    """The process that copies itself, and the channel to it."""

    begun_with: Mapping[str, str] | None = None
    """Its environment, which tests/conftest.py sets before any test changes its own; None where there is to be none."""
    instance: Self | None = None

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.environment = {**(self.begun_with or {}), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.channel, child_channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "tests.helpers.fork_server", str(child_channel.fileno())]
        self.process = subprocess.Popen(
            command, env=self.environment, cwd=ROOT, pass_fds=[child_channel.fileno()], stdin=subprocess.DEVNULL
        )
        child_channel.close()
        atexit.register(self.close)

    @classmethod
    def of_this_process(cls) -> Self | None:
        """None where there is to be none."""
        if cls.instance is None and cls.begun_with is not None:
            cls.instance = cls()
        return cls.instance

    def is_for(self, environment: Mapping[str, str]) -> bool:
        names = self.environment.keys() | environment.keys()
        return all(
            self.environment.get(name) == environment.get(name) for name in names if not name.startswith(OF_NO_IMPORT)
        )

    def copy(self, job: dict[str, Any], files: list[int]) -> int:
        """The number of a new child of this process that runs the job."""
        prctl = ctypes.CDLL(None).prctl
        with self.lock:
            prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self.channel, [json.dumps(job).encode()], files)
                number, status = self.channel.recv(64), self.channel.recv(64)
            finally:
                prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        assert number and status, "the process that copies itself has ended"
        return int(number)

    def close(self) -> None:
        self.channel.close()
        self.process.wait(timeout=60)


class Forked(subprocess.Popen[str]):
    """A command that a ForkServer starts; all else is Popen's own.

    Popen has no public place to start a process otherwise, and a class beside it would repeat its pipes, `communicate`,
    `wait` and signals. A Python whose method has other parameters fails at the first command, with their names.
    """

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: Any, shell: Any, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int,
        errread: int, errwrite: int, restore_signals: Any, gid: Any, gids: Any, uid: Any, umask: Any,
        start_new_session: bool, process_group: int,
    ) -> None:  # fmt: skip
        files = {0: p2cread, 1: c2pwrite, 2: errwrite}
        own_files = {target: target if file == -1 else file for target, file in files.items()}  # -1: as of this process
        code = args[2] if args[1] == "-c" else None
        job = {
            "code": code,
            "arguments": args[len(of_code(code)) :],
            "ignores_interrupts": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
            "environment": env,
            "folder": os.fspath(cwd or Path.cwd()),
            "new_session": start_new_session,
            "targets": list(own_files),
        }
        server = ForkServer.of_this_process()
        assert server is not None
        self.pid = server.copy(job, list(own_files.values()))
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
