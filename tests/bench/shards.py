"""The same bytes and memory however a run is cut: whole commands in processes of their own, one thread each."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.common import Figure, Setup, begin, subset

SAMPLES, MEMORY_SAMPLES = 160, 200


def command(setup: Setup, data: Path, out: Path, *more: str) -> list[str]:
    return [
        "precompute", str(data), "--model", str(setup.demo / "model"),
        "--sae", str(setup.demo / "sae"), "--out", str(out), "--name", "bench", "--device", "cpu", *more,
    ]  # fmt: skip


def peak(arguments: list[str]) -> int:
    """Bytes of the largest resident set of a command that must succeed."""
    process = begin(*arguments)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def killed_once(arguments: list[str], out: Path) -> None:
    """The command killed when its first shard stands, and run again."""
    process = begin(*arguments)
    first = out.with_name(out.name + ".part") / "shards" / "000000.npz"
    while not first.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    peak(arguments)


def hashes(store: Path) -> dict[str, str]:
    """SHA-256 of every file but run.json."""
    files = (path for path in sorted(store.rglob("*")) if path.is_file() and path.name != "run.json")
    return {path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(setup: Setup) -> dict[str, Any]:
    n, n_memory = (16, 6) if setup.small else (SAMPLES, MEMORY_SAMPLES)
    data = subset(setup, n)
    # A shard is whole batches, so small ones make room for eight shards.
    cut = ("--batch-tokens", "64" if setup.small else "1024")
    eighth = ("--shard-samples", str(n // 8))
    ways: dict[str, tuple[str, ...]] = {"1 shard": cut}
    if not setup.small:
        ways["8 shards"] = (*cut, *eighth)
    result = {}
    for name, more in ways.items():
        out = setup.scratch / name.replace(" ", "-")
        peak(command(setup, data, out, *more))
        result[name] = hashes(out)
    out = setup.scratch / "killed"
    killed_once(command(setup, data, out, *cut, *eighth), out)
    result["killed and resumed"] = hashes(out)
    if not setup.small:  # tests/precompute/collect/test_ray.py does it there
        result |= with_ray(setup, data, (*cut, *eighth))
    one = result["1 shard"]
    differ = {way: sorted(k for k in one | files if one.get(k) != files.get(k)) for way, files in result.items()}

    # The smallest size says nothing of memory: of that, one run is enough.
    folders = [subset(setup, count) for count in ((n_memory,) if setup.small else (n_memory, 4 * n_memory))]
    full = ("--shard-samples", str(n_memory // 2))  # until one shard is full, more pairs fill it
    peaks = [
        peak(command(setup, folder, setup.scratch / f"m{folder.name}", "--only", "collect", *full))
        for folder in folders
    ]
    bytes_few, bytes_many = peaks[0], peaks[-1]
    figures: list[Figure] = [
        {
            "what": "ways of cutting a run that give other bytes than one shard",
            "value": float(sum(map(bool, differ.values()))), "unit": "", "goal": 0.0, "sense": "=",
            "note": f"{', '.join(result)}; SHA-256 of {len(one)} files, all but run.json; {n} pairs, one thread",
        },
        {
            "what": "peak memory of the pass over 4 N pairs over that over N",
            "value": bytes_many / bytes_few, "unit": "×", "goal": 1.1, "sense": "≤",
            "note": f"N = {n_memory}, shards of {n_memory // 2}; largest resident set, "
            f"{bytes_few / 1e6:.0f} and {bytes_many / 1e6:.0f} MB",
        },
    ]  # fmt: skip
    return {"options": {"samples": n, "memory_samples": n_memory}, "figures": figures, "differ": differ}


def with_ray(setup: Setup, data: Path, more: tuple[str, ...]) -> dict[str, dict[str, str]]:
    out = setup.scratch / "ray"
    peak(command(setup, data, out, *more, "--ray", "local", "--workers", "2"))
    return {"2 Ray workers": hashes(out)}
