"""What all benchmarks share: what they are given, what they leave, and how two ways are timed side by side."""

import json
import os
import platform
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import torch

from tests.helpers.forked import start

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1"}
TREE = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
"""Environments of the commands that benchmarks start."""
PACKAGES = ("saevx", "torch", "transformers", "sae-lens", "numpy", "faiss-cpu", "SQLAlchemy", "fastapi", "ray")


class Setup(NamedTuple):
    """What a benchmark is run with."""

    demo: Path
    """Folder that `saevx demo` left: model, sae, data, store. Read only."""
    scratch: Path
    """An empty folder for what the benchmark writes."""
    small: bool
    """The smallest size at which everything still runs: for CI, where no figure counts."""
    device: str
    wide: Path
    """Folder of the wide made-up store, which stays; made by the first benchmark that needs it."""
    only: tuple[str, ...] = ()
    """Parts to run, of a benchmark that has parts; all where it is empty."""
    before: dict[str, Any] | None = None
    """The earlier result, whose other parts stay; None where all parts are run."""


class Figure(TypedDict):
    """One line of docs/performance.md."""

    what: str
    value: float | None
    """None where it could not be measured here; `note` says why."""
    unit: str
    """"×" for a ratio of two ways timed side by side."""
    goal: float
    sense: Literal["≥", "≤", "="]
    note: str
    """How it was measured, in a sentence."""


def met(figure: Figure) -> bool | None:
    """Whether the goal is reached; None where there is no value."""
    value, goal = figure["value"], figure["goal"]
    if value is None:
        return None
    return {"≥": value >= goal, "≤": value <= goal, "=": value == goal}[figure["sense"]]


def alternately(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in every round, the ways taking turns; one round before them warms up."""
    result: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            if number:
                result[name].append(time.perf_counter() - begin)
    return result


def ratio(over: list[float], under: list[float]) -> float:
    """Median of the rounds' own ratios, so that a machine that slows down slows both."""
    return float(np.median(np.array(over) / np.array(under)))


def subset(setup: Setup, n: int) -> Path:
    """The demo's first n pairs as a data set of their own."""
    folder = setup.scratch / f"data{n}"
    folder.mkdir()
    lines = (setup.demo / "data" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()[:n]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in lines:
        place = Path(json.loads(line)["file_name"])
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(setup.demo / "data" / place, folder / place)  # a link would lead out of the image folder
    return folder


def begin(*args: object, environment: Mapping[str, str] = TREE) -> subprocess.Popen[str]:
    """`saevx ARGS` in a process of its own, which prints nowhere."""
    return start(*args, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until_ready(server: subprocess.Popen[str], url: str, path: str = "/readyz", patience_s: float = 120) -> None:
    """Until the server answers there with 200."""
    end = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(url + path, timeout=10) as reply:
                if reply.status == 200:
                    return
        except OSError:
            pass
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"no answer from {path}")
        time.sleep(0.05)


def machine() -> dict[str, Any]:
    """Where and with what a result was made; no name of a host or person."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
