"""However the pass is cut into shards, interrupted and merged, the bytes are the same."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from precompute.collect import collector as collect
from precompute.collect import merge
from precompute.collect.collector import Collector
from precompute.model import calibration
from precompute.pipeline import Pipeline
from tests.helpers import machine
from tests.helpers.tinies import Maker, collected


def files_of(part: Path) -> dict[str, bytes]:
    """Every byte that later steps read; .npz by content, as zip archives carry times."""
    result = {}
    for path in sorted(part.rglob("*")):
        name = path.relative_to(part).as_posix()
        if path.is_dir() or name in ("run.json", "plan.json"):
            continue
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                result |= {f"{name}/{key}": arrays[key].tobytes() for key in arrays.files}
        else:
            result[name] = path.read_bytes()
    return result


def test_one_shard_or_many_give_the_same_bytes(options: Maker, tmp_path: Path) -> None:
    few = collected(options(shard_samples=1000, out=tmp_path / "a" / "store"))[0]
    many = collected(options(shard_samples=4, out=tmp_path / "b" / "store"))[0]
    assert files_of(few) == files_of(many)
    assert not (many / "shards").exists() and not (many / "thumbs").exists()


KILLED = """
import os, sys
from precompute.collect.collector import Collector
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import Pipeline
import torch
torch.set_num_threads(1)
whole, done = Collector.shard, []
def shard(self, number, *rest):
    if len(done) == 2:
        os._exit(9)
    done.append(number)
    return whole(self, number, *rest)
Collector.shard = shard
Pipeline(PrecomputeOptions.model_validate_json(sys.argv[1])).collect()
"""


def test_a_killed_run_goes_on_to_the_same_bytes(options: Maker, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    right = collected(options(out=tmp_path / "a" / "store"))[0]
    (tmp_path / "b").mkdir()
    again = options(out=tmp_path / "b" / "store")
    assert machine.saevx(again.model_dump_json(), code=KILLED).returncode == 9
    shards = sorted(path.name for path in (again.part / "shards").glob("*.npz"))
    assert len(shards) == 2 and not (again.part / "manifest.json").exists()
    before = [(again.part / "shards" / name).stat().st_mtime_ns for name in shards]
    run = Pipeline(again)
    data, plan = run.session.data_and_plan
    job = Collector(run.session.mllm, run.session.sae, data, plan, run.part, 0, text_alone=True)
    job.run()
    assert before == [(again.part / "shards" / name).stat().st_mtime_ns for name in shards], "not done again"
    run.collect()
    assert files_of(run.part) == files_of(right)


def test_written_while_the_next_is_computed_the_bytes_are_the_same(
    options: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the pass does with a GPU."""
    right = collected(options(shard_samples=4, out=tmp_path / "a" / "store"))[0]
    monkeypatch.setattr(Collector, "overlaps", True)
    with monkeypatch.context() as patch:
        write, threads = collect.write_shard, set()

        def full(part: Path, number: int, *rest: Any, **more: Any) -> None:
            threads.add(threading.current_thread().name)
            if number == 1:
                raise OSError("No space left on device")
            write(part, number, *rest, **more)

        patch.setattr(collect, "write_shard", full)
        run = Pipeline(options(shard_samples=4, out=tmp_path / "b" / "store"))
        with pytest.raises(OSError, match="No space left"):
            run.collect()
        assert len(threads) == 1 and threading.current_thread().name not in threads
        assert 1 in run.session.collector().missing_shards() and 0 not in run.session.collector().missing_shards()
    again = collected(options(shard_samples=4, out=tmp_path / "b" / "store"))[0]
    assert files_of(again) == files_of(right)


def test_a_pass_that_fails_decodes_no_more_images(options: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "CALIBRATION_SAMPLES", 4)  # or it would read all pairs of this data
    run = Pipeline(options(shard_samples=4, batch_tokens=100))

    def fail(*_: Any, **more: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(collect, "write_shard", fail)
    with pytest.raises(OSError, match="No space left") as failure:
        run.collect()
    assert failure.tb, "which holds all that the pass had in memory"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode-ahead")]


def test_accumulators_merged_as_a_tree_give_the_same_file(options: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Pipeline(options(shard_samples=1))
    run.part.mkdir(parents=True)
    job = run.session.collector()
    job.run()
    merge.merge(job, 10)
    path = run.part / "collect" / "accum.npz"
    whole, n = path.read_bytes(), len(job.plan.shards)
    monkeypatch.setattr(merge, "FAN_IN", 3)
    assert merge.merge_tree(9) == [9, 3] and merge.merge_tree(10) == [10, 4, 2] and merge.merge_tree(1) == [1]
    for level, width in list(enumerate(merge.merge_tree(n)))[1:]:
        for number in range(width):
            merge.merge_node(job, level, number)
    read: list[Path] = []
    accum_of = merge.accum_of
    monkeypatch.setattr(merge, "accum_of", lambda job, paths: read.extend(paths) or accum_of(job, paths))
    merge.merge(job, 10)
    assert path.read_bytes() == whole
    assert n > 9 and 1 < len(read) <= 3 and all("level2" in one.name for one in read)
