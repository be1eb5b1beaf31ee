"""The trials of `saevx bench reliability`. Each says how many it made, and in how many nothing was lost or let in."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from precompute.errors import SaevxError
from precompute.store.making.sealing import seal_run
from precompute.store.making.verify import verify_or_raise
from tests.helpers import machine
from tests.helpers.flips import changed_bit
from tests.helpers.in_process import sums

ROOT = Path(__file__).parents[2]
MAX_KILLS_OF_A_RUN = 4


class Trial(NamedTuple):
    """A line of docs/reliability.md."""

    what: str
    tried: int
    held: int
    """Of these, with nothing lost and nobody let in."""
    how: str
    command: str
    took_s: float = 0.0


def killed(
    args: Sequence[object], out: Path, n: int, content: Callable[[Path], object] | None = None
) -> tuple[int, int]:
    """(kills, of these survived): `kill -9` at random moments of a command, up to four times in one run, which the same
    command then finishes. All kills of a run count as lost if its content differs from that of an undisturbed one.

    Args:
        content: what is compared of a result; all bytes by default.
    """
    content = content or all_bytes
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


def all_bytes(path: Path) -> dict[str, str] | bytes:
    return sums(path) if path.is_dir() else path.read_bytes()


def training_log(path: Path) -> object:
    """Losses, rate and figures of each line that `saevx train` has logged."""
    return json.loads((path / "training.json").read_text("utf-8"))["log"]


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
