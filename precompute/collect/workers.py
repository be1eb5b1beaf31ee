"""The pass on several workers (ray_pool.py): each writes whole shards into the unfinished store, and they merge the
shards' accumulators as a tree, so that the command itself need not read those of every shard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from precompute.collect.collector import Clock, Collector
from precompute.collect.merge import merge_node, merge_tree
from precompute.collect.session import Session
from precompute.data.batches import Plan
from precompute.data.records import Data
from precompute.utils.processes.ray_pool import pool
from precompute.utils.progress import progress_bar

if TYPE_CHECKING:
    from precompute.options.precompute import PrecomputeOptions


class WorkerInput(NamedTuple):
    """What every worker starts with."""

    options: PrecomputeOptions
    data: Data
    plan: Plan


class Worker:
    """The pass over the planned batches, shard by shard."""

    def __init__(self, worker_input: WorkerInput) -> None:
        self.job = Session(worker_input.options, data_and_plan=(worker_input.data, worker_input.plan)).collector()

    def shard(self, number: int) -> tuple[int, Clock]:
        """Write one shard. Returns its number, and what it took."""
        self.job.clock = Clock(calibration_samples=self.job.clock.calibration_samples)
        self.job.run([number], quiet=True, wait=True)
        return number, self.job.clock

    def node(self, place: tuple[int, int]) -> None:
        """Merge the children of the node at (level, number)."""
        merge_node(self.job, *place)


def collect(job: Collector, options: PrecomputeOptions) -> dict[str, Any]:
    """Every shard that is not there yet. Returns what run.json tells of the workers.

    Args:
        options: with the cluster's address and the number of workers; paths absolute.

    Raises:
        SaevxError: Ray is not reached, or a worker failed again and again.
    """
    assert options.ray is not None and options.workers is not None
    todo = job.missing_shards()
    if not todo:
        return {}
    device = job.mllm.device.type
    worker_options = options.model_copy(update={"ray": None, "workers": None, "device": device})
    worker_input = WorkerInput(worker_options, job.data, job.plan)
    n_samples = [sum(len(job.plan.batches[b]) for b in shard) for shard in job.plan.shards]
    n_before = sum(n_samples) - sum(n_samples[i] for i in todo)
    n_workers = min(options.workers, len(todo))
    with pool(Worker, worker_input, options.ray, n_workers, gpu=device == "cuda") as workers:
        with progress_bar("collect", sum(n_samples), "samples", n_before) as progress:
            for number, clock in workers.map("shard", todo):
                job.clock.add(clock)
                progress.update(n_samples[number])
        job.clock.wall += workers.seconds
        about = workers.about()
        for level, n in list(enumerate(merge_tree(len(job.plan.shards))))[1:]:
            list(workers.map("node", [(level, i) for i in range(n)]))
        return about
