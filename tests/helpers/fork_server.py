"""A process that has imported the libraries once and copies itself for each command. forked.py starts it, as
`python -m tests.helpers.fork_server FD`.

A copy is a process like any other: it has its own number, session, environment, folder, signals, memory and exit
status, and runs the entry point from its first line. What it saves is the import of torch and transformers, 7 seconds
of a processor. Not as in a fresh process: modules are imported already, and strings have the hashes of this one.
"""

import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = (
    "faiss", "openTSNE", "uvicorn", "scipy.sparse.csgraph", "cleanvision", "alembic.command", "sae_lens", "datasets",
    "transformers.models.auto.modeling_auto", "transformers.models.auto.processing_auto",
    "transformers.models.clip.modeling_clip", "transformers.models.llama.modeling_llama",
    "transformers.models.llava.modeling_llava", "transformers.models.llava.processing_llava",
)  # fmt: skip
"""What commands import only where they need it."""
NOT_COMMANDS = (
    "precompute.experiments", "precompute.demo.training", "precompute.demo.evaluation", "backend.workers",
    "backend.mcp", "backend.annotations.migrations", "backend.cli",
)  # fmt: skip
"""Packages of which few commands import a module; and the entry, which each copy runs."""


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its channel
    begun_with = dict(os.environ)
    import_all()
    while True:
        message, files, _, _ = socket.recv_fds(channel, 1 << 20, 3)
        if not message:
            return
        job = json.loads(message)
        if copy(channel):
            channel.close()
            return become(job, files, begun_with)
        for file in files:
            os.close(file)


def import_all() -> None:
    for package in ("precompute", "backend"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.startswith(NOT_COMMANDS):
                importlib.import_module(module.name)
    for name in LIBRARIES:
        importlib.import_module(name)
    threads = {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
    own_threads = {Path("/proc/self/comm").read_text().strip(), "jemalloc_bg_thd"}  # a copy begins the second again
    if other_threads := threads - own_threads:
        sys.exit(f"an import has started the threads {other_threads}, of which a copy would know nothing")
    gc.collect()
    gc.freeze()  # a collection would copy the pages that all copies share


def copy(channel: socket.socket) -> bool:
    """True in the copy; here its number is sent. Its parent ends at once, so that it becomes a child of the tests."""
    parent = os.fork()
    if parent == 0:
        number = os.fork()
        if number == 0:
            return True
        channel.send(str(number).encode())
        os._exit(0)
    os.waitpid(parent, 0)
    channel.send(b"apart")
    return False


def become(job: dict[str, Any], files: list[int], begun_with: dict[str, str]) -> None:
    """Runs the command as a fresh process would."""
    if job["new_session"]:
        os.setsid()
    for target, file in zip(job["targets"], files, strict=True):
        os.dup2(file, target)
    for file in files:
        os.close(file)
    if not job["ignores_interrupts"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["folder"])
    change(job["environment"], begun_with)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    random.seed()
    np.random.seed()
    if job["code"] is not None:
        sys.argv = ["-c", *job["arguments"]]
        exec(job["code"], {"__name__": "__main__"})
    else:
        sys.argv = ["saevx", *job["arguments"]]
        runpy.run_module("backend.cli", run_name="__main__", alter_sys=True)


def change(environment: dict[str, str], begun_with: dict[str, str]) -> None:
    """Of the environment what is to be other than at the start; what an import has set stays."""
    for name in begun_with.keys() - environment.keys():
        os.environ.pop(name, None)
    os.environ.update({name: value for name, value in environment.items() if begun_with.get(name) != value})


if __name__ == "__main__":
    main()
