"""The trials of `saevx bench reliability`. Each says how many it made, and in how many nothing was lost or let in."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import psutil
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.settings import Settings
from precompute.errors import SaevxError
from precompute.store.making.sealing import seal_run
from precompute.store.making.verify import verify_or_raise
from tests.helpers import machine
from tests.helpers.flips import changed_bit
from tests.helpers.in_process import sums
from tests.helpers.servers import Server

ROOT = Path(__file__).parents[2]
MAX_KILLS_OF_A_RUN = 4
ODD_VALUES = (
    "", " ", "0", "-1", "1e999", "NaN", "99999999999999999999", "é", "\u202e", "\u200b", "\x00", "\ud7ff", "'", '"',
    "%", "*", "a" * 3000, "<script>alert(1)</script>", "{{7*7}}", "../../../etc/passwd", "a,b,,c", "null", "[]", "{}",
    "true", "' OR 1=1 --", "NEAR(", '"un closed', "\n\r\t", "🐕" * 50,
)  # fmt: skip


class Trial(NamedTuple):
    """A line of docs/reliability.md."""

    what: str
    tried: int
    held: int
    """Of these, with nothing lost and nobody let in."""
    how: str
    command: str


def killed(args: Sequence[object], out: Path, n: int) -> tuple[int, int]:
    """(kills, of these survived): `kill -9` at random moments of a command, up to four times in one run, which the same
    command then finishes. All kills of a run count as lost if its files differ from those of an undisturbed one."""
    rng, whole = random.Random(0), out.with_name(f"whole-{out.name}")
    begin = time.monotonic()
    undisturbed = machine.saevx(*args, "--out", whole)
    if undisturbed.returncode:
        raise RuntimeError(undisturbed.stderr[-500:])
    longest, expected = time.monotonic() - begin, content(whole)
    done = lost = 0
    while done < n:
        before = done
        for _ in range(MAX_KILLS_OF_A_RUN):
            process = machine.begin(*args, "--out", out)
            try:
                process.communicate(timeout=rng.uniform(0, longest))
                break  # it came to its end before
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                done += 1
            if done == n:
                break
        finished = out.exists() or machine.saevx(*args, "--out", out).returncode == 0
        lost += (done - before) * (not finished or content(out) != expected)
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    return done, done - lost


def content(path: Path) -> dict[str, str] | bytes:
    return sums(path) if path.is_dir() else path.read_bytes()


def flips(store: Path, n: int) -> int:
    """How many of n changed bits `saevx verify` finds."""
    (store / "run.json").write_text(json.dumps({"host": "gpu-böx", "seconds": {"collect": 3.5}}))
    seal_run(store)
    verify_or_raise(store)
    n_detected = 0
    for seed in range(n):
        with changed_bit(store, seed):
            try:
                verify_or_raise(store)
            except SaevxError:
                n_detected += 1
    return n_detected


def fuzzed(store: Path, n: int) -> int:
    """How many of n requests with odd values, to every operation in turn, are answered without an internal error."""
    rng, app = random.Random(0), create_app(Settings(stores=[store], live=False))
    operations = [
        (method, path, one) for path, methods in app.openapi()["paths"].items() for method, one in methods.items()
    ]
    fine = 0
    with TestClient(app, raise_server_exceptions=False) as client:
        for number in range(n):
            method, path, one = operations[number % len(operations)]
            places = {name: rng.choice((*ODD_VALUES, "1", "s00001")) for name in re.findall(r"\{(\w+)\}", path)}
            address = "/".join(
                quote(places.get(part.strip("{}"), part), safe="") if "{" in part else part
                for part in path.split("/")
            )
            query = {
                p["name"]: rng.choice(ODD_VALUES)
                for p in one.get("parameters", []) if p["in"] == "query" and rng.random() < 0.4
            }  # fmt: skip
            body = None if method == "get" else json.dumps(odd_json(rng, 0))
            headers = {"Content-Type": "application/json"} if body else {}
            reply = client.request(method.upper(), address, params=query, content=body, headers=headers)
            fine += reply.status_code < 500 or (reply.status_code == 503 and "detail" in reply.json())
    return fine


def odd_json(rng: random.Random, depth: int) -> Any:
    """A value of any kind."""
    if depth < 3 and rng.random() < 0.5:
        names = ("text", "features", "prompt", "id", "tags", "image", "mode", "strength", "body", "version", "note")
        return {rng.choice(names): odd_json(rng, depth + 1) for _ in range(rng.randrange(4))}
    return rng.choice([*ODD_VALUES, None, True, -1, 1e308, 2**70, [], [[]], [None, "a"]])


PAGES = ("/", "/features", "/features/{}", "/samples", "/samples?q=dog", "/map", "/quality", "/cooccurrence", "/sae",
         "/api/v1/features?limit=50", "/api/v1/features/{}", "/api/v1/samples?limit=50", "/search?q=cat")  # fmt: skip


def load(store: Path, log: Path, clients: int, seconds: float) -> dict[str, float]:
    """Requests of so many clients at once for so long: how many, how many of them failed, and by how many MB the
    server's memory grew in the second half."""
    counts = {"requests": 0, "failed": 0}
    with Server(store, "--no-live", log=log) as server:
        end, lock = time.monotonic() + seconds, threading.Lock()

        def browse(seed: int) -> None:
            rng = random.Random(seed)
            while time.monotonic() < end:
                try:
                    page = rng.choice(PAGES).format(rng.randrange(96))
                    with urllib.request.urlopen(server.url + page, timeout=60) as reply:
                        reply.read()
                        failed = 0
                except OSError:
                    failed = 1
                with lock:
                    counts["requests"] += 1
                    counts["failed"] += failed

        threads = [threading.Thread(target=browse, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        middle = psutil.Process(server.process.pid).memory_info().rss
        for thread in threads:
            thread.join()
        grown = psutil.Process(server.process.pid).memory_info().rss - middle
    return {**counts, "grown_mb": round(grown / 1e6, 1)}


def passed(files: Sequence[str], folder: Path) -> tuple[int, int]:
    """(tests that ran, of these passed) of files of this suite."""
    report = folder / "tests.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *files]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=False, env=machine.environment(HF_HUB_OFFLINE="1"))
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    ran, failed, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    return ran - skipped, ran - skipped - failed - errors
