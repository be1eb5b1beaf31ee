"""Work on several processes or machines through Ray (`--ray local|ADDRESS --workers N`).

Every worker is an actor that loads model and SAE once and writes whole files into an unfinished folder, which all of
them must see. Ray restarts a lost actor and gives it its item again; a file appears whole or not at all, so no item is
left half done. The items are planned before, so the bytes are those of a run without Ray on the same device type,
dtype and number of threads.
"""

import math
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from typing import Any

from precompute.errors import SaevxError
from precompute.utils.progress import say

RESTARTS = 16
"""How often a worker may be lost before the run gives up; what is done stays."""
CONNECT_S = 10.0


class Actor:
    """A process with what `make` returns in it, such as a model.

    What it is made from comes with every call, as a reference in a list, so that it is fetched only once: an actor that
    Ray restarts might not get the arguments of its constructor again.
    """

    def __init__(self, make: Callable[[Any], Any], threads: int) -> None:
        self.make, self.threads = make, threads
        self.worker: Any = None

    def ready(self, references: list[Any]) -> int:
        """Its process, once all is loaded."""
        if self.worker is None:
            import ray
            import torch

            torch.set_num_threads(self.threads)
            self.worker = self.make(ray.get(references[0]))
        return os.getpid()

    def do(self, references: list[Any], method: str, item: Any) -> tuple[int, Any]:
        """Its process, and what the method returns of an item."""
        return self.ready(references), getattr(self.worker, method)(item)


class Pool:
    """Actors that are ready."""

    def __init__(self, ray: Any, actors: list[Any], references: list[Any], threads: int) -> None:
        self.actors, self.shared, self.threads = actors, references, threads
        self.pids: list[int] = ray.get([actor.ready.remote(references) for actor in actors])
        self.inner = ray.util.ActorPool(actors)
        self.begin = time.monotonic()
        self.items: Counter[int] = Counter()
        """Done by each process."""

    def map(self, method: str, items: Iterable[Any]) -> Iterator[Any]:
        """What the method returns of each item, in the order in which they are done. Items are taken one by one as
        workers are free for them, so there may be any number."""

        def next_done() -> Any:
            pid, result = self.inner.get_next_unordered()
            self.items[pid] += 1
            return result

        for item in items:
            if not self.inner.has_free():
                yield next_done()
            self.inner.submit(lambda actor, a: actor.do.remote(self.shared, method, a), item)
        while self.inner.has_next():
            yield next_done()

    @property
    def seconds(self) -> float:
        """Since all was loaded."""
        return time.monotonic() - self.begin

    def about(self) -> dict[str, Any]:
        """For run.json."""
        by_process = {str(pid): n for pid, n in self.items.items()}
        return {
            "workers": len(self.pids),
            "threads": self.threads,
            "seconds_loaded": self.seconds,
            "shards_by_process": by_process,
        }


@contextmanager
def pool(make: Callable[[Any], Any], common_value: Any, address: str, workers: int, *, gpu: bool) -> Iterator[Pool]:
    """`workers` actors, each with its own `make(shared)`.

    Args:
        make: a function or class of a module, so that workers can import it.
        common_value: sent to each worker once, with absolute paths.
        address: "local" for this machine, else a running cluster's.
        gpu: whether each takes a GPU.

    Raises:
        SaevxError: Ray is not reached, has no room for so many, or a worker failed again and again.
    """
    n_given = int(os.environ.get("OMP_NUM_THREADS") or 0)
    n_threads = n_given or max(1, (os.cpu_count() or 1) // workers)
    begin = time.monotonic()
    with ray_connection(address, workers * n_threads) as ray, ray_errors(ray):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        threads = n_threads if address == "local" else threads_each(nodes, workers, n_given, gpu=gpu)
        actor = ray.remote(Actor).options(
            num_cpus=threads, num_gpus=int(gpu), max_restarts=RESTARTS, max_task_retries=RESTARTS
        )
        actors = [actor.remote(make, threads) for _ in range(workers)]
        ready_pool = Pool(ray, actors, [ray.put(common_value)], threads)
        seconds = time.monotonic() - begin
        say(f"{workers} workers have loaded the model in {seconds:.1f} s: processes {ready_pool.pids}")
        yield ready_pool


def threads_each(nodes: list[dict[str, float]], workers: int, n_given: int = 0, *, gpu: bool) -> int:
    """Threads of each worker on a cluster: as many as there is room for.

    Args:
        nodes: what each machine has, as `CPU` and `GPU`.
        n_given: threads that each must have, where that is given.

    Raises:
        SaevxError: so many workers do not fit; Ray itself would wait for more machines without a word.
    """

    def room(threads: int) -> int:
        places = (min(node.get("CPU", 0.0) // threads, node.get("GPU", 0.0) if gpu else math.inf) for node in nodes)
        return int(sum(places))

    max_threads = int(max(node.get("CPU", 0.0) for node in nodes))
    choices = [threads for threads in ([n_given] if n_given else range(1, max_threads + 1)) if room(threads) >= workers]
    if not choices:
        size = f" of {n_given} threads (OMP_NUM_THREADS)" if n_given else ""
        raise SaevxError(
            f"The cluster has room for {room(n_given or 1)} workers{size}, not for {workers}: give a smaller --workers."
        )
    return choices[-1]


@contextmanager
def ray_connection(address: str, n_cpus: int) -> Iterator[Any]:
    """Connected to Ray; disconnected at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    import ray.util

    local_options = {"num_cpus": n_cpus, "include_dashboard": False} if address == "local" else {}
    try:
        with keep_signal_handler():
            ray.init(address, log_to_driver=False, logging_level="ERROR", configure_logging=True, **local_options)
    except (OSError, RuntimeError, ValueError) as error:  # ConnectionError is an OSError
        raise unreachable(address) from error
    try:
        with redirect_stdout(sys.stderr):  # where Ray tells of lost workers; standard output is for results
            yield ray
    finally:
        ray.shutdown()


@contextmanager
def keep_signal_handler() -> Iterator[None]:
    """Keeps this program's answer to the signal to terminate, which Ray would replace."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def ray_errors(ray: Any) -> Iterator[None]:
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
        raise SaevxError(
            "Workers were lost again and again, or could not start (is the same saevx installed on every machine?): "
            "repeat the command to go on with what is done."
        ) from error


def check(address: str | None) -> None:
    """Before anything is loaded: is there such a cluster? Raises SaevxError."""
    if address is None:
        return
    if find_spec("ray") is None:
        raise SaevxError("--ray needs Ray: pip install 'saevx[ray]'.")
    check_reachable(address)


def check_reachable(address: str) -> None:
    """Raises SaevxError where nothing listens at the address: Ray itself would try for minutes. Names that only Ray
    knows (auto, ray://…) are left to it."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
        except (OSError, OverflowError) as error:
            raise unreachable(address) from error


def unreachable(address: str) -> SaevxError:
    return SaevxError(
        f"No Ray cluster answers at {address}: give the address that `ray start --head` printed, or local."
    )
