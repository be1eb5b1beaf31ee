"""Shards on a real local Ray cluster: the same bytes as in one process, with a worker killed in the middle too."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SAEVX, run_saevx
from tests.precompute.tinies import Tiny, tiny_files

__all__ = ["tiny_files"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def arguments(files: Tiny, out: Path, *more: str) -> list[str]:
    given = ["precompute", files.data, "--model", files.model, "--sae", files.sae, "--out", out, "--name", "tiny"]
    return [*map(str, given), "--batch-tokens", "150", "--shard-samples", "4", "--ds", "10", "--device", "cpu", *more]


def hashes(store: Path) -> dict[str, str]:
    """SHA-256 of every file but run.json."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file() and path.name != "run.json")
    return {path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def alone(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The store of one process."""
    out = tmp_path_factory.mktemp("alone") / "store"
    subprocess.run([*SAEVX, *arguments(tiny_files, out)], check=True, capture_output=True, env=ONE_THREAD)
    return hashes(out)


def test_two_workers_one_killed_in_the_middle(tiny_files: Tiny, alone: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "store"
    command = [*SAEVX, *arguments(tiny_files, out, "--ray", "local", "--workers", "2")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ONE_THREAD)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if found := re.search(r"processes \[(\d+), (\d+)\]", line):
            break
    else:
        pytest.fail(f"no worker started:\n{said}")
    killed = found[1]  # it has begun with the first shard, before which the others cannot write theirs
    os.kill(int(killed), signal.SIGKILL)
    rest, errors = process.communicate(timeout=300)
    assert process.returncode == 0, said + errors
    assert rest.strip() == str(out)

    told = json.loads((out / "run.json").read_text())["ray"]
    n_shards = sum(told["shards_by_process"].values())
    assert n_shards > 8 and told["workers"] == 2
    assert told["shards_by_process"].keys() - {found[1], found[2]}, "no worker took the place of the killed one"
    assert hashes(out) == alone


def test_goes_on_where_a_run_without_ray_was_left(tiny_files: Tiny, alone: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "store"
    kill_after_first = (
        "import os, sys, signal; from precompute import collect; write = collect.write_shard\n"
        "def once(*given):\n    write(*given); os.kill(os.getpid(), signal.SIGKILL)\n"
        "collect.write_shard = once\nfrom backend.cli import main; main()"
    )
    begun = subprocess.run(
        [sys.executable, "-c", kill_after_first, *arguments(tiny_files, out)], capture_output=True, env=ONE_THREAD
    )
    assert begun.returncode == -signal.SIGKILL
    more = subprocess.run(
        [*SAEVX, *arguments(tiny_files, out, "--ray", "local", "--workers", "2")], capture_output=True, env=ONE_THREAD
    )
    assert more.returncode == 0, more.stderr.decode()
    assert hashes(out) == alone


def test_what_cannot_be_run_is_said_in_a_sentence(tiny_files: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "store"
    for more, word in (
        (("--ray", "local"), "--workers"),
        (("--workers", "2"), "--ray"),
        (("--ray", "127.0.0.1:1", "--workers", "2"), "ray start"),
    ):
        done = run_saevx(*arguments(tiny_files, out, *more), check=False)
        assert done.returncode == 1 and word in done.stderr.splitlines()[-1], done.stderr
        assert "Traceback" not in done.stderr
