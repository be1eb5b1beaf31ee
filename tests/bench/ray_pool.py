"""Two Ray workers of one thread against one of them: the pass alone, all being loaded before the clock starts.

Beside it the model's forward alone, in one process of one thread and in two: what the machine itself gives.
"""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

from precompute.collect.collector import CALIBRATION_FILE
from precompute.collect.session import Session
from precompute.collect.shard import SHARDS
from precompute.collect.workers import Worker, WorkerInput
from precompute.model.batch import Batch
from precompute.model.mllm import Mllm
from precompute.options.precompute import PrecomputeOptions
from precompute.utils.processes.ray_pool import Pool, pool
from tests.bench.common import Figure, Setup, alternately, ratio, subset

SHARDS_RUN, SHARD, ROUNDS = 10, 64, 2
"""Shards, an even number for two; and samples of each, as many as the scale is found out from at least."""


def run(setup: Setup) -> dict[str, Any]:
    import ray

    n_shards, shard_samples, rounds = (2, 4, 1) if setup.small else (SHARDS_RUN, SHARD, ROUNDS)
    n_workers = 1 if setup.small else 2  # each imports everything, which takes longer than the smallest size
    pairs = subset(setup, 2 * n_shards * shard_samples)
    options = PrecomputeOptions(
        data=str(pairs),
        model=str(setup.demo / "model"),
        sae=str(setup.demo / "sae"),
        out=setup.scratch / "store",
        device="cpu",
        shard_samples=shard_samples,
        batch_tokens=64 if setup.small else 1024,
    )
    data, plan = Session(options).data_and_plan
    plan = plan._replace(shards=plan.shards[:n_shards])
    batches = [b for shard in plan.shards for b in shard]
    n = sum(len(plan.batches[b]) for b in batches)

    def passed(workers: Pool) -> None:
        shutil.rmtree(options.part / SHARDS, ignore_errors=True)
        (options.part / CALIBRATION_FILE).unlink(missing_ok=True)
        list(workers.map("shard", range(len(plan.shards))))

    def forward(processes: ProcessPoolExecutor) -> None:
        list(processes.map(_forward, batches))

    with patch.dict(os.environ, OMP_NUM_THREADS="1", RAY_worker_niceness="0"):
        with pool(Worker, WorkerInput(options, data, plan), "local", n_workers, gpu=False) as two:
            one = Pool(ray, two.actors[:1], two.shared, two.threads)
            seconds = alternately({"1 worker": lambda: passed(one), "2 workers": lambda: passed(two)}, rounds)
        with (
            _processes(n_workers, options, batches) as both,
            nullcontext(both) if setup.small else _processes(1, options, batches) as alone,
        ):
            seconds |= alternately({"1 process": lambda: forward(alone), "2 processes": lambda: forward(both)}, 1)
    bare = ratio(seconds["1 process"], seconds["2 processes"])
    figure: Figure = {
        "what": "one Ray worker's wall time over that of two, a thread each, after loading",
        "value": ratio(seconds["1 worker"], seconds["2 workers"]),
        "unit": "×",
        "goal": 1.7,
        "sense": "≥",
        "note": f"{n} pairs in {len(plan.shards)} shards; the scale, which the first finds out, waited for; "
        f"plain processes that do the forward alone: {bare:.2f} ×",
    }
    report = {"samples": n, "shards": len(plan.shards), "rounds": rounds}
    return {"options": report, "figures": [figure], "seconds": seconds}


@contextmanager
def _processes(n: int, options: PrecomputeOptions, batches: list[int]) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(n, get_context("spawn"), _load, (options, batches)) as processes:
        yield processes


_loaded: tuple[Mllm, dict[int, Batch]]


def _load(options: PrecomputeOptions, batches: list[int]) -> None:
    global _loaded
    job = Session(options).collector()
    decoded = {b: job.load([job.data.rows[i] for i in job.plan.batches[b]])[0].batch for b in batches}
    _loaded = job.mllm, {b: batch for b, batch in decoded.items() if batch is not None}


def _forward(number: int) -> None:
    mllm, batches = _loaded
    mllm.hidden(batches[number])
