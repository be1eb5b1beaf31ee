"""Two Ray workers of one thread against one such worker, from when the workers have loaded the model."""

from __future__ import annotations

import json
import statistics
from typing import Any

from tests.bench.common import Figure, Setup, subset
from tests.bench.shards import command, peak

SAMPLES, ROUNDS = 320, 2


def run(setup: Setup) -> dict[str, Any]:
    n, rounds = (16, 1) if setup.small else (SAMPLES, ROUNDS)
    data = subset(setup, n)
    cut = ("--batch-tokens", "1024", "--shard-samples", str(max(1, n // 16)), "--only", "collect")
    seconds: dict[str, list[float]] = {"1 worker": [], "2 workers": []}
    shards = 0
    for number in range(rounds):
        for workers, found in enumerate(seconds.values(), 1):
            out = setup.scratch / f"{number}-{workers}"
            peak(command(setup, data, out, *cut, "--ray", "local", "--workers", str(workers)))
            told = json.loads((out.with_name(out.name + ".part") / "run.json").read_text())["ray"]
            found.append(told["seconds_loaded"])
            shards = sum(told["shards_by_process"].values())
    speed = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    figure: Figure = {
        "what": "one Ray worker's wall time over that of two, a thread each, after loading",
        "value": speed, "unit": "×", "goal": 1.7, "sense": "≥",
        "note": f"{n} pairs in {shards} shards, the first of which the second worker must wait for",
    }  # fmt: skip
    return {"options": {"samples": n, "rounds": rounds}, "figures": [figure], "seconds": seconds}
