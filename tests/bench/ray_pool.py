"""Two Ray workers of one thread against one of them: the pass alone, all being loaded before the clock starts."""

from __future__ import annotations

import os
import shutil
from typing import Any
from unittest.mock import patch

from precompute.collect import PRELUDE_FILE
from precompute.collect_pool import Shared, Worker
from precompute.pass_options import Options
from precompute.pipeline import Run
from precompute.ray_pool import Pool, pool
from precompute.shard import SHARDS
from tests.bench.common import Figure, Setup, alternately, ratio, subset

SAMPLES, ROUNDS, SHARD = 640, 2, 64


def run(setup: Setup) -> dict[str, Any]:
    import ray

    n, rounds = (8, 1) if setup.small else (SAMPLES, ROUNDS)
    options = Options(
        data=str(subset(setup, n)), model=str(setup.demo / "model"), sae=str(setup.demo / "sae"),
        out=setup.scratch / "store", device="cpu", batch_tokens=1024, shard_samples=min(SHARD, n // 2),
    )  # fmt: skip
    data, plan = Run(options).data_and_plan

    def passed(workers: Pool) -> None:
        shutil.rmtree(options.part / SHARDS, ignore_errors=True)
        (options.part / PRELUDE_FILE).unlink(missing_ok=True)
        list(workers.map("shard", range(len(plan.shards))))

    with (
        patch.dict(os.environ, OMP_NUM_THREADS="1", RAY_worker_niceness="0"),
        pool(Worker, Shared(options, data, plan), "local", 2, gpu=False) as two,
    ):
        one = Pool(ray, two.actors[:1], two.given, two.threads)
        seconds = alternately({"1 worker": lambda: passed(one), "2 workers": lambda: passed(two)}, rounds)
    figure: Figure = {
        "what": "one Ray worker's wall time over that of two, a thread each, after loading",
        "value": ratio(seconds["1 worker"], seconds["2 workers"]), "unit": "×", "goal": 1.7, "sense": "≥",
        "note": f"{n} pairs in {len(plan.shards)} shards; the scale, which the first finds out, waited for",
    }  # fmt: skip
    return {"options": {"samples": n, "rounds": rounds}, "figures": [figure], "seconds": seconds}
