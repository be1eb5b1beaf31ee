"""Shards on several processes or machines through Ray (`saevx precompute --ray local|ADDRESS --workers N`).

Every worker is an actor that loads model and SAE once and writes whole shards into the unfinished store, a folder that
all of them must see. Ray starts a lost actor anew and gives it its shard again; a shard appears whole or not at all, so
nothing is done half. The plan is settled before, so the bytes are those of a run without Ray on the same device type,
dtype and number of threads.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

from precompute.collect import Clock, Collector, prelude_path
from precompute.data import Data
from precompute.errors import SaevxError
from precompute.plan import Plan
from precompute.progress import Progress, say

RESTARTS = 16
"""How often a worker may be lost before the run gives up; what is done stays."""
CONNECT_S = 10.0


class Shared(NamedTuple):
    """What every worker is told."""

    options: dict[str, Any]
    data: Data
    plan: Plan
    threads: int


class Done(NamedTuple):
    """A shard that stands."""

    number: int
    process: int
    forward: float
    """Seconds."""
    tokens: int


class Worker:
    """A process with the model in it."""

    def __init__(self, shared: Shared) -> None:
        import torch

        from precompute.pipeline import Options, Run

        torch.set_num_threads(shared.threads)
        run = Run(Options(**shared.options))
        run.__dict__["data_and_plan"] = (shared.data, shared.plan)
        self.job: Collector = run.collector()

    def ready(self) -> int:
        """Its process, once the model is loaded."""
        return os.getpid()

    def shard(self, number: int) -> Done:
        """Write one shard."""
        while number and not prelude_path(self.job.part).exists():  # who has shard 0 is finding out
            time.sleep(0.1)
        before = self.job.clock
        self.job.clock = Clock(prelude_samples=before.prelude_samples)
        self.job.run([number], quiet=True)
        return Done(number, os.getpid(), self.job.clock.forward, self.job.clock.tokens)


def collect(job: Collector, options: dict[str, Any], address: str, workers: int, *, gpu: bool) -> dict[str, Any]:
    """Every shard that is not there yet, on `workers` actors. Returns what run.json tells of them.

    Args:
        options: of `precompute`, paths absolute.
        address: "local" for this machine, else a running cluster's.
        gpu: whether each worker takes a GPU.

    Raises:
        SaevxError: Ray is not installed or not reached, or a worker failed again and again.
    """
    todo = job.missing()
    if not todo:
        return {}
    shards: Counter[str] = Counter()
    threads = int(os.environ.get("OMP_NUM_THREADS") or 0) or max(1, (os.cpu_count() or 1) // workers)
    begin = time.monotonic()
    with connected(address, workers * threads) as ray, told(ray):
        shared = ray.put(Shared(options, job.data, job.plan, threads))
        actor = ray.remote(Worker).options(
            num_cpus=threads, num_gpus=int(gpu), max_restarts=RESTARTS, max_task_retries=RESTARTS
        )
        actors = [actor.remote(shared) for _ in range(min(workers, len(todo)))]
        pids = ray.get([one.ready.remote() for one in actors])
        loaded = time.monotonic()
        say(f"{len(actors)} workers have loaded the model in {loaded - begin:.1f} s: processes {pids}")
        pool = ray.util.ActorPool(actors)
        n_samples = [sum(len(job.plan.batches[b]) for b in shard) for shard in job.plan.shards]
        before = sum(n_samples) - sum(n_samples[i] for i in todo)
        with Progress("collect", sum(n_samples), "samples", before) as progress:
            for done in pool.map_unordered(lambda one, n: one.shard.remote(n), todo):
                job.clock.forward += done.forward
                job.clock.tokens += done.tokens
                shards[str(done.process)] += 1
                progress.add(n_samples[done.number])
    seconds = time.monotonic() - loaded
    job.clock.wall += seconds
    return {"workers": len(actors), "threads": threads, "seconds_loaded": seconds, "shards_by_process": dict(shards)}


@contextmanager
def connected(address: str, n_cpus: int) -> Iterator[Any]:
    """Ray, connected and let go again."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise SaevxError("--ray needs Ray: pip install 'saevx[ray]'.") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if address != "local":
            reach(address)
        if address == "local":
            ray.init("local", num_cpus=n_cpus, include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise SaevxError(
            f"No Ray cluster answers at {address}: give the address that `ray start --head` printed, or local."
        ) from error
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of lost workers; standard output is for results
            yield ray
    finally:
        ray.shutdown()


def reach(address: str) -> None:
    """A quick look whether anything listens there: Ray itself would try for minutes. Names that only Ray knows
    (auto, ray://…) are left to it. Raises OSError."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()


@contextmanager
def told(ray: Any) -> Iterator[None]:
    """What a worker raises, as one sentence here."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, SaevxError):
            raise SaevxError(str(cause)) from error
        raise SaevxError(
            f"A worker failed ({type(cause).__name__}: {cause}): repeat the command, it goes on with what is done."
        ) from error
    except ray.exceptions.RayActorError as error:
        raise SaevxError("Workers were lost again and again: repeat the command to go on with what is done.") from error


def check(address: str, workers: int | None) -> int:
    """Number of workers. Raises SaevxError for options that do not go together."""
    if workers is None:
        raise SaevxError("--ray needs --workers: how many processes, on a GPU machine one for each GPU.")
    if not address:
        raise SaevxError("--ray takes local, or the address of a cluster such as 10.0.0.1:6379.")
    return workers


