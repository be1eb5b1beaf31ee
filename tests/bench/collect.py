"""`collect` over the bare forward to layer L on the same batches, pictures decoded to tensors beforehand; and what
share of a whole run's wall time the other steps take.

The two take turns batch by batch, so that a machine whose speed changes from minute to minute changes both.
"""

import json
import shutil
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from precompute.collect import merge
from precompute.collect.collector import Collector
from precompute.data.batches import Batching, Plan, plan_rows
from precompute.data.records import Columns, Data
from precompute.data.rows import read
from precompute.model.loader import LoadedBatch
from precompute.model.mllm import Mllm
from precompute.options.precompute import PrecomputeOptions
from precompute.pipeline import precompute
from precompute.sae.encode import Scale, encode_batch
from precompute.sae.sae import SaeV
from tests.bench.common import Figure, Setup, alternately, ratio, subset

SAMPLES, ROUNDS = 1500, 3


class Ready(Collector):
    """The pass over batches that are decoded already."""

    batches: dict[int, list[LoadedBatch]]
    """Each planned batch in the parts that the processor takes it in."""

    def planned_batches(self, batches: Sequence[int]) -> Generator[LoadedBatch]:
        for number in batches:
            for part in self.batches[number]:
                yield replace(part, hidden=None)


class Beside(Ready):
    """Each batch is run through the bare model too, on a clock of its own: of every two one before the pass has it and
    one after, because whoever is second finds its shapes prepared."""

    bare = 0.0

    def planned_batches(self, batches: Sequence[int]) -> Generator[LoadedBatch]:
        last = sum(len(self.batches[number]) for number in batches) - 1
        for n, one in enumerate(super().planned_batches(batches)):
            first = n % 2 == 0 or n == last
            if first:
                self.run_bare(one)
            yield one
            if not first:
                self.run_bare(one)

    def run_bare(self, one: LoadedBatch) -> None:
        assert one.batch is not None
        begin = time.perf_counter()
        self.mllm.hidden(one.batch)
        self.bare += time.perf_counter() - begin


class Known(Ready):
    """The pass over residuals that are computed already."""

    def planned_batches(self, batches: Sequence[int]) -> Generator[LoadedBatch]:
        for number in batches:
            yield from self.batches[number]


def demo_pairs(setup: Setup, n: int) -> tuple[Mllm, SaeV, Data, Plan]:
    """Model, SAE and the first n pairs of the demo."""
    sae = SaeV.load(str(setup.demo / "sae"), setup.device)
    mllm = Mllm.load(setup.demo / "model", layer=sae.layer, device=setup.device)
    data = read(str(setup.demo / "data"), Columns())
    data = data._replace(rows=data.rows[:n])
    return mllm, sae, *plan_rows(mllm, data, "the demo", Batching(batch_tokens(setup), seed=0, ds=n))


def batch_tokens(setup: Setup) -> int:
    """As `saevx precompute` would choose."""
    return 1024 if setup.device == "cpu" else 4096


def run(setup: Setup) -> dict[str, Any]:
    n, rounds = (20, 1) if setup.small else (SAMPLES, ROUNDS)
    mllm, sae, data, plan = demo_pairs(setup, n)
    decoder = Collector(mllm, sae, data, plan, setup.scratch / "decoded", 0)
    batches = {i: decoder.load([data.rows[at] for at in batch]) for i, batch in enumerate(plan.batches)}
    loaded = [(one, one.batch) for parts in batches.values() for one in parts if one.batch is not None]
    n_tokens = sum(int(batch.length_b.sum()) for _, batch in loaded)
    part = setup.scratch / "part"
    for _, batch in loaded[:10]:  # a model's first batches are slower
        mllm.hidden(batch)

    seconds: dict[str, list[float]] = {"bare": [], "collect": []}
    for _ in range(rounds):
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(setup.scratch / "decoded", part)
        job = Beside(mllm, sae, data, plan, part, 0)
        job.batches = batches
        begin = time.perf_counter()
        job.run()
        merge.merge(job, 1000)
        seconds["bare"].append(job.bare)
        seconds["collect"].append(time.perf_counter() - begin - job.bare)
    profile = {"forward": float(np.median(seconds["bare"]))}

    # What is beside the forward, piece by piece, over residuals that are known.
    for one, batch in loaded:
        one.hidden = mllm.hidden(batch)
    known = Known(mllm, sae, data, plan, part, 0)
    known.batches = batches
    scale = Scale.from_manifest(known.saved_calibration())

    def encode() -> None:
        for one, batch in loaded:
            assert one.hidden is not None
            encode_batch(one.hidden, batch, sae, scale, errors=True)

    def shards() -> None:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(setup.scratch / "decoded", part)
        known.run(quiet=True)

    pieces = alternately({"encode": encode, "shards": shards, "merge": lambda: merge.merge(known, 1000)}, rounds)
    profile |= {name: float(np.median(taken)) for name, taken in pieces.items()}
    profile["shards"] -= profile["encode"]
    steps = shares(setup, n)
    speed = ratio(seconds["bare"], seconds["collect"])
    figure: Figure = {
        "what": "tokens a second of `collect` over those of the bare forward to layer L",
        "value": speed, "unit": "×", "goal": 0.9, "sense": "≥",
        "note": f"the demo's model, {n_tokens} tokens, decoded beforehand; writing and merging included",
    }  # fmt: skip
    return {
        "options": {"samples": n, "rounds": rounds, "batch_tokens": batch_tokens(setup)},
        "figures": [figure],
        "n_tokens": n_tokens,
        "seconds": seconds,
        "profile": profile,
        "steps": steps,
    }


def shares(setup: Setup, n: int) -> dict[str, float]:
    """Each step's seconds in one whole run, as run.json has them."""
    folder = subset(setup, n)
    options = PrecomputeOptions(
        data=str(folder),
        model=str(setup.demo / "model"),
        sae=str(setup.demo / "sae"),
        out=setup.scratch / "store",
        device=setup.device,
    )
    report = json.loads((precompute(options) / "run.json").read_text())
    return dict(report["seconds"], total=report["seconds_total"])
