"""Shards on a real Ray cluster: the same bytes as in one process, with a worker killed in the middle too."""

import json
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from precompute.collect.merge import FAN_IN
from precompute.errors import SaevxError
from precompute.options.precompute import PrecomputeOptions
from precompute.options.score import ScoreOptions
from precompute.pipeline import precompute
from precompute.scoring import new_data as score_data
from precompute.utils.processes.ray_pool import Pool, pool, threads_each
from tests.helpers.in_process import saevx, sums
from tests.helpers.servers import free_port
from tests.helpers.tinies import Tiny, pass_options, tiny_files

__all__ = ["tiny_files"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else workers wait for whatever else the machine does
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. Its processes have another working directory than the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        running = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield running.address
    running.shutdown()


def options(files: Tiny, out: Path, **more: Any) -> PrecomputeOptions:
    return pass_options(files.root, out=out, name="tiny", batch_tokens=150, shard_samples=1, ds=10, **more)


@pytest.fixture(scope="module")
def alone(tiny_files: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of one process."""
    return precompute(options(tiny_files, tmp_path_factory.mktemp("alone") / "store"))


@contextmanager
def killing(after: int) -> Iterator[list[Pool]]:
    """Kills a worker once `after` items have been given out. Yields the pool, once it is there."""
    given_out, pools = Pool.map, []

    def mapped(self: Pool, method: str, items: Iterable[Any]) -> Iterator[Any]:
        pools.append(self)

        def counted() -> Iterator[Any]:
            for n, item in enumerate(items):
                if n == after:
                    os.kill(self.pids[-1], signal.SIGKILL)
                yield item

        yield from given_out(self, method, counted())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "map", mapped)
        yield pools


def test_a_store_with_the_first_shards_worker_killed(
    tiny_files: Tiny, alone: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other waits for what the first shard's worker finds; then another one has to find it. DATA is relative."""
    monkeypatch.chdir(tiny_files.data.parent)
    given = options(tiny_files, tmp_path / "store", ray=cluster, workers=2).model_copy(update={"data": "data"})
    with killing(after=2) as pools:
        out = precompute(given)
    report = json.loads((out / "run.json").read_text())["ray"]
    assert sum(report["shards_by_process"].values()) > FAN_IN and report["workers"] == 2
    assert len(pools) == 2, "the workers did not merge"
    assert set(report["shards_by_process"]) - set(map(str, pools[0].pids)), "no worker took the place of the killed one"
    assert sums(out) == sums(alone)


def test_a_store_goes_on_where_a_run_without_ray_was_left(
    tiny_files: Tiny, alone: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from precompute.collect import collector as collect

    write = collect.write_shard

    def interrupted(part: Path, number: int, *rest: Any, **more: Any) -> None:
        write(part, number, *rest, **more)
        if number == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(collect, "write_shard", interrupted)
        precompute(options(tiny_files, tmp_path / "store"))
    out = precompute(options(tiny_files, tmp_path / "store", ray=cluster, workers=1))
    assert sum(json.loads((out / "run.json").read_text())["ray"]["shards_by_process"].values()) > 4
    assert sums(out) == sums(alone)


def test_scores_of_an_interrupted_run_with_a_worker_killed(
    tiny_files: Tiny, alone: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "pairs"
    shutil.copytree(tiny_files.data, data)
    with (data / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "000.png", "text": "a <image>", "id": "mark"}\n{no json\n')

    def given(out: str, **more: Any) -> ScoreOptions:
        return ScoreOptions(data=str(data), store=alone, out=tmp_path / out, device="cpu", shard_samples=3, **more)

    def files(out: Path) -> tuple[bytes, bytes]:
        return out.read_bytes(), out.with_suffix(".quarantine.jsonl").read_bytes()

    whole = files(score_data.score_data(given("whole.jsonl")))
    assert [text.count(b"\n") for text in whole] == [40, 2]
    score, ran = score_data.Job.score, []

    def interrupted(job: Any, rows: list[Any]) -> Any:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(rows)
        return score(job, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(score_data.Job, "score", interrupted)
        score_data.score_data(given("shared.jsonl"))
    assert len(list((tmp_path / "shared.jsonl.part").glob("*.jsonl"))) == 3
    monkeypatch.chdir(tmp_path)
    with killing(after=8) as pools:
        relative = given("shared.jsonl", ray=cluster, workers=2).model_copy(update={"data": "pairs"})
        out = score_data.score_data(relative)
    assert files(out) == whole
    assert set(pools[0].items) - set(pools[0].pids), "no worker took the place of the killed one"


def test_any_number_of_items_and_what_a_worker_raises(cluster: str) -> None:
    given_out: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1, 41):
            given_out.append(item)
            yield item

    with (
        pytest.raises(SaevxError, match=r"worker failed \(ZeroDivisionError.*repeat the command"),
        pool(int, "7", cluster, 2, gpu=False) as workers,
    ):
        result = []
        for value in workers.map("__add__", items()):
            result.append(value)
            assert len(given_out) <= len(result) + 2, "more than the workers can do stands in memory"
        assert sorted(result) == list(range(8, 48))
        list(workers.map("__floordiv__", [0]))
    with pytest.raises(SaevxError, match=r"worker failed \(ValueError"), pool(int, "x", cluster, 1, gpu=False):
        pytest.fail("a worker is ready that cannot be made")
    with pytest.raises(SaevxError, match="room for 2 workers"), pool(int, "7", cluster, 3, gpu=False):
        pytest.fail("three workers on two cores")


def test_threads_of_a_worker_on_a_cluster() -> None:
    """As many as fit, none across machines."""
    machines = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 5.0}]
    for workers, gpu, threads in ((1, False, 16), (3, False, 8), (4, False, 5), (29, False, 1), (6, True, 4)):
        assert threads_each(machines, workers, gpu=gpu) == threads
    assert threads_each(machines, 7, 2, gpu=False) == 2
    for workers, own, gpu, room in ((30, 0, False, 29), (7, 0, True, 6), (4, 8, False, 3)):
        with pytest.raises(SaevxError, match=f"room for {room} workers"):
            threads_each(machines, workers, own, gpu=gpu)


@pytest.mark.parametrize("command", ["precompute", "score"])
def test_what_cannot_be_run_is_said_in_a_sentence(tiny_files: Tiny, tmp_path: Path, command: str) -> None:
    of = {"precompute": ["--model", tiny_files.model, "--sae", tiny_files.sae], "score": ["--store", "nowhere"]}
    for more, status, word in (
        (["--ray", "local"], 2, "--workers"),
        (["--workers", 2], 2, "--ray"),
        (["--ray", "", "--workers", 2], 2, "--ray takes a text that is not empty"),
        (["--ray", f"127.0.0.1:{free_port()}", "--workers", 2], 1, "ray start"),
    ):
        done = saevx(command, tiny_files.data, "--out", tmp_path / "out.jsonl", *of[command], *more)
        assert done.status == status and word in done.err and len(done.err.splitlines()) == 1, done.err
