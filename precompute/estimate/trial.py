"""The whole command on a few of its samples, in a folder that is then removed: what `--dry-run` measures.

Every step is the real one. From trials of n, 2n and 4n samples follows how time, memory and bytes grow (growth.py).
"""

import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from precompute.collect import merge
from precompute.collect.collector import Collector
from precompute.collect.session import Session
from precompute.collect.shard import SHARDS
from precompute.data.batches import Plan
from precompute.data.records import Data
from precompute.data.rejections import all_rejected_message
from precompute.errors import SaevxError
from precompute.options.precompute import LATER
from precompute.steps.registry import STEPS
from precompute.store.making import trim
from precompute.store.making.sealing import seal
from precompute.store.making.unfinished import Collected
from precompute.store.making.verify import verify
from precompute.store.making.writer import write_database, write_pairs
from precompute.utils import memory
from precompute.utils.progress import say

SECONDS = 12.0
"""How long the model is run in the largest trial, one batch at least."""
MAX_SAMPLES = 1024
FEW_SAMPLES, PATIENCE = 64, 5
"""With fewer samples the lists of a feature's examples are not yet full anywhere, and how they fill up is not seen: to
run so many, the model may take so many times as long."""
PARTS = {
    "index": "vectors", "store.sqlite": "tables", "cooccurrence": "pairs", "map.bin": "map", "images": "thumbnails",
    "manifest.json": "manifest",
}  # fmt: skip
"""What the folders and files of a store are called here; `events` is two parts."""


class Trial(NamedTuple):
    """What a run of some samples took."""

    n_samples: float
    """Planned: those that turned out unreadable are counted too. Likewise the tokens."""
    n_tokens: float
    seconds: dict[str, float]
    """Of each step."""
    resident: float
    """Bytes before the first step, with model and SAE loaded."""
    memory: dict[str, float]
    """Most bytes resident in each step, beyond those before the first."""
    shard: float
    """Bytes in memory of those samples at most, as the one shard that they are."""
    bytes: dict[str, float]
    """Of the finished store with all events, by part."""
    events: dict[str, float]
    """Bytes of the events with each choice of `--events`."""
    counts: dict[str, float]
    """`samples`, `tokens` and `events` of the store; `scratch`: most bytes on the disk beyond the finished store."""


def first_samples(data: Data, plan: Plan, n: int, ds: int) -> tuple[Data, Plan]:
    """The first n planned samples as data of their own, in the same batches, one shard; D_s is the first `ds`."""
    batches: list[list[int]] = []
    left = n
    for batch in plan.batches:
        batches += [batch[:left]] if left else []
        left -= len(batch[:left])
    sample_rows = [at for batch in batches for at in batch]
    place = {at: i for i, at in enumerate(sample_rows)}
    small_plan = Plan(
        [[place[at] for at in batch] for batch in batches],
        [range(len(batches))],
        list(range(min(ds, n))),
        plan.length_n[sample_rows],
    )
    return data._replace(rows=[data.rows[at] for at in sample_rows], rejected_rows=[]), small_plan


def largest_trial(session: Session, seconds: float) -> int:
    """The number of samples that the model runs in about so many seconds, a batch at least.

    Raises:
        SaevxError: no sample of the data can be used.
    """
    data, plan = session.data_and_plan
    o, rejected_rows = session.options, []
    with tempfile.TemporaryDirectory() as folder:
        job = Collector(session.mllm, session.sae, data, plan, Path(folder), o.seed, o.nll)
        for batch in plan.batches:
            for loaded_batch in job.load([data.rows[at] for at in batch]):
                rejected_rows += loaded_batch.rejected_rows
                if loaded_batch.batch is None:
                    continue
                job.forward(job.load(loaded_batch.rows[:1])[0])  # the first forward pass of a process is slower
                begin = time.monotonic()
                job.forward(loaded_batch)
                per_sample = max(time.monotonic() - begin, 1e-3) / len(loaded_batch.rows)
                n = max(round(seconds / per_sample), min(FEW_SAMPLES, round(PATIENCE * seconds / per_sample)))
                return min(max(len(loaded_batch.rows), min(MAX_SAMPLES, n)), len(plan.length_n))
    raise SaevxError(all_rejected_message("No sample could be tried", rejected_rows))


def measure_trial_run(session: Session, n: int) -> Trial:
    """Every step on the first n planned samples.

    Raises:
        SaevxError: none of these samples can be used.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _measure(session, n, Path(folder) / "store.part")


class Meter:
    """Measures steps one after the other."""

    def __init__(self) -> None:
        gc.collect()
        memory.give_back()
        self.resident = memory.resident()
        """Bytes before the first step."""
        self.seconds: dict[str, float] = {}
        self.peak: dict[str, float] = {}
        """Most bytes resident in each step, beyond those before the first."""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        memory.reset_peak()
        begin = time.monotonic()
        yield
        memory.give_back()
        self.seconds[name], self.peak[name] = time.monotonic() - begin, max(0.0, memory.peak() - self.resident)


def _measure(session: Session, n: int, part: Path) -> Trial:
    """The run of `measure_trial_run`, in the folder `part`."""
    part.mkdir()
    meter = Meter()
    o = session.options
    data, plan = first_samples(*session.data_and_plan, n, o.ds)
    job = Collector(session.mllm, session.sae, data, plan, part, o.seed, o.nll, o.sink_multiple, o.text_alone)
    manifest = _provenance(session)
    with meter.step("collect"):
        manifest |= job.run(quiet=True)
    with meter.step("merge"):
        manifest |= merge.merge(job, len(plan.ds))
    peak_bytes = sum(_bytes_of(part).values())
    shard = sum(path.stat().st_size for path in (part / SHARDS).iterdir()) * job.shards_in_memory
    merge.remove_temporary(part)
    options = {**session.step_options(manifest), "labeller": None}
    for name in LATER:
        with meter.step(name):
            manifest |= STEPS[name](part, manifest, options)
    with meter.step("write"):
        write_database(part, manifest)
        write_pairs(part, manifest)
    part_data = Collected(part, manifest)
    n_tokens, n_events = len(part_data.events.token_id), len(part_data.events.event_feature)
    n_samples = part_data.n_samples
    events: dict[str, float] = {
        choice: float(trim.event_bytes(part_data.events, trim.rows_of(part_data, choice)))
        for choice in trim.EVENT_CHOICES
    }
    del part_data
    peak_bytes = max(peak_bytes, sum(_bytes_of(part).values()))
    manifest["events"] = {"kept": "all", "n": n_samples}
    with meter.step("seal"):
        seal(part, manifest)
    with meter.step("verify"):
        failures = [check for check in verify(part) if not check.ok]
    if failures:
        raise SaevxError(f"The trial's store is not sound ({failures[0].name}: {failures[0].detail}).")
    sizes = _bytes_of(part)
    parts = {name: float(sizes.get(place, 0)) for place, name in PARTS.items()}
    parts |= {"events": events["all"], "tokens and maxima": sizes["events"] - events["all"]}
    counts = {"samples": n_samples, "tokens": n_tokens, "events": n_events, "scratch": peak_bytes - sum(sizes.values())}
    return Trial(
        len(plan.length_n), float(plan.length_n.sum()), meter.seconds, meter.resident, meter.peak, float(shard), parts,
        events,
        {name: float(max(count, 0)) for name, count in counts.items()},
    )  # fmt: skip


def _provenance(session: Session) -> dict[str, Any]:
    """As much of a manifest's provenance as the steps need."""
    mllm, sae = session.mllm, session.sae
    return {
        "name": "dry-run",
        "code_version": "",
        "options": {},
        "model": {"name": "", "layer": mllm.layer, "d_model": mllm.d_model},
        "sae": {"name": "", "sha256": "", "architecture": "", "n_features": sae.n_features},
    }


def _bytes_of(part: Path) -> dict[str, int]:
    """Bytes of a store by folder or file at its top."""
    sizes: dict[str, int] = {}
    for path in part.rglob("*"):
        if path.is_file():
            top = path.relative_to(part).parts[0]
            sizes[top] = sizes.get(top, 0) + path.stat().st_size
    return sizes


def measure_trials(session: Session, seconds: float) -> list[Trial]:
    """Trials of n, 2n and 4n samples, the smallest first: it pays for what only a process's first run needs."""
    n_largest = largest_trial(session, seconds)
    n_planned = len(session.data_and_plan[1].length_n)
    say(f"dry run: all steps on {n_largest} of {n_planned} samples, after a half and a quarter of them")
    return [measure_trial_run(session, max(1, n)) for n in (n_largest // 4, n_largest // 2, n_largest)]
