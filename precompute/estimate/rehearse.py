"""The whole command on a few of its batches, in a folder that goes: what `--dry-run` measures (forecast.py scales it).

Every step is the real one. What of a step's time grows with the data is timed once more alone, warm, so that the rest,
which does not, is known too. Where the SAE is wide, every `stride`-th feature stands for all (narrow.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from precompute.collect import accumulators as acc
from precompute.collect import merge
from precompute.collect.collector import Collector
from precompute.data import Data, none_left
from precompute.data.batches import Plan
from precompute.errors import SaevxError
from precompute.model.mllm import Mllm
from precompute.options.precompute import LATER
from precompute.sae.sae import SaeV
from precompute.scoring.pixels import pixel_flags, pixel_hashes
from precompute.scoring.token_support import unsupported
from precompute.steps.cooccur import feature_sets
from precompute.steps.index import all_sample_vectors, nearest
from precompute.steps.label_words import read_words
from precompute.steps.omega import K_PAIRED, Firing, common_means, firing, paired
from precompute.steps.registry import STEPS
from precompute.steps.score import Weights, score_maxima
from precompute.steps.weigh import cut_maxima, sample_counts
from precompute.store import schema as s
from precompute.store.making import trim
from precompute.store.making.unfinished import Collected, load_json, load_step
from precompute.store.making.verify import verify
from precompute.store.making.writer import seal, write_database, write_pairs
from precompute.store.reader import Store
from precompute.store.schema import IMAGE, TEXT
from precompute.utils import memory
from precompute.utils.progress import say

Array = NDArray[Any]
SECONDS = 12.0
"""How long the model is run, one batch at least."""
MOST_SAMPLES, FEW_DS = 1024, 64
TRIED_FEATURES, TRIED_VECTORS = 64, 256


class Piece(NamedTuple):
    """The part of a step's time that grows with something."""

    step: str
    grows_with: str
    """A field of `Sizes`."""
    seconds: float


class Sizes(NamedTuple):
    """What time, memory and bytes depend on."""

    samples: float
    images: float
    tokens: float
    events: float
    maxima: float
    """Features of each sample and modality."""
    kept_maxima: float
    ds_samples: float
    ds_tokens: float
    text_bytes: float
    """Of captions and the rows' other fields."""
    thumb_bytes: float
    reasons: float
    examples: float
    """Rows of that table."""
    pairs: float
    """Of features that share samples."""
    shown: float
    """Samples that a page shows (`--events examples`)."""
    enough: float
    """Features of which ω is computed."""


class Rehearsal(NamedTuple):
    """What was measured."""

    sizes: Sizes
    n_planned: int
    """Samples, those among them that were set aside too."""
    n_planned_tokens: float
    n_features: int
    """As rehearsed: that of the SAE, over `stride`."""
    stride: int
    seconds: dict[str, float]
    """Of each step."""
    peak: dict[str, int]
    """Most bytes resident in each step."""
    loaded: int
    """Bytes resident with model and SAE loaded, before the first step."""
    passed: int
    """When the model has run on the batches."""
    pieces: list[Piece]
    overlaps: bool
    """Whether a shard is written while the next is computed."""
    a_shard: float
    """Seconds that a shard takes whatever is in it."""
    a_feature: float
    """Seconds of ω a feature."""
    a_vector_pair: float
    """Seconds of the comparison of two samples, in the search for near-duplicates."""
    bytes: dict[str, int]
    """Of the finished store by folder or file."""
    count_fm: Array
    """int64 [F, 2]: active tokens."""
    samples_fm: Array
    """int64 [F, 2]: samples with an active token."""
    samples_ds_fm: Array
    examples_fm: Array
    """int64 [F, 2]: rows of the table examples."""


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    into[name] = into.get(name, 0.0) + time.monotonic() - begin


def some(data: Data, plan: Plan, n_batches: int, ds: int) -> tuple[Data, Plan, int]:
    """The first planned batches as data of their own; and how many of them are in D_s."""
    chosen = [at for batch in plan.batches[:n_batches] for at in batch]
    place = {at: i for i, at in enumerate(chosen)}
    members = [place[at] for at in plan.ds[:ds] if at in place] or list(range(min(FEW_DS, len(chosen))))
    batches = [[place[at] for at in batch] for batch in plan.batches[:n_batches]]
    rows = [data.rows[at] for at in chosen]
    small = Plan(batches, [range(n_batches)], members, plan.length_n[chosen])
    return data._replace(rows=rows, rejected_rows=[]), small, len(members)


def rehearse(
    mllm: Mllm, sae: SaeV, stride: int, data: Data, plan: Plan, folder: Path, options: dict[str, Any], *,
    seed: int, nll: bool, sinks: float | None, ds: int, seconds: float = SECONDS,
) -> Rehearsal:  # fmt: skip
    """Measure.

    Args:
        options: of the later steps.
        folder: an empty one, for what the run writes.

    Raises:
        SaevxError: no sample of the first batches can be used.
    """
    part = folder / "store.part"
    part.mkdir()
    trial = Collector(mllm, sae, data, plan, folder / "warm", seed, nll, sinks)
    rejected = []
    parts = (one for batch in batches_of(data, plan) for one in trial.load(batch))
    for tried in parts:
        if tried.batch is not None:
            break
        rejected += tried.rejected_rows
    else:
        raise SaevxError(none_left("No sample could be tried", rejected))
    trial.forward(trial.load(tried.rows[:1])[0])
    begin = time.monotonic()
    trial.forward(tried)
    a_batch = max(time.monotonic() - begin, 1e-3)
    n_batches = min(len(plan.batches), max(1, round(seconds / a_batch)))
    n_samples = np.cumsum([len(batch) for batch in plan.batches])
    n_batches = min(n_batches, max(1, int(np.searchsorted(n_samples, MOST_SAMPLES, "right"))))
    small_data, small_plan, small_ds = some(data, plan, n_batches, ds)
    say(f"dry run: all steps on {n_samples[n_batches - 1]} of {n_samples[-1]} samples")
    del trial, tried

    took: dict[str, float] = {}
    peak: dict[str, int] = {}
    loaded = memory.resident()

    @contextmanager
    def step(name: str) -> Iterator[None]:
        memory.forget_peak()
        with timed(took, name):
            yield
            memory.give_back()
        peak[name] = memory.peak()

    job = Collector(mllm, sae, small_data, small_plan, part, seed, nll, sinks)
    with step("collect"):
        found = job.run(quiet=True)
    passed = memory.resident()
    with step("merge"):
        manifest: dict[str, Any] = {
            "name": "dry-run", "code_version": "", "options": {},
            "model": {"name": "", "layer": mllm.layer, "d_model": mllm.d_model},
            "sae": {"name": "", "sha256": "", "architecture": "", "n_features": sae.n_features},
            **found, **merge.merge(job, small_ds),
        }  # fmt: skip
    for name in LATER:
        with step(name):
            manifest |= STEPS[name](part, manifest, options)
    with step("write"):
        write_database(part, manifest)
        write_pairs(part, manifest)
    a_pass: dict[str, float] = {}
    with timed(a_pass, "shard"):
        acc.save(acc.Accumulator(sae.n_features, seed).accum())
    data_read = Collected(part, manifest)
    pieces = growing(job, data_read, manifest, stride)
    counts = {
        "count_fm": np.asarray(data_read.accum["count"]),
        "samples_fm": load_step(part, "weigh")["samples"],
        "samples_ds_fm": load_step(part, "weigh")["samples_ds"],
    }
    shown = trim.example_rows(data_read)
    a_feature, a_vector_pair = a_feature_of_omega(data_read), a_comparison()
    sizes = sizes_of(data_read, manifest, len(shown))
    with step("trim"):
        trim.write(part, data_read.scale_log2, shown)
        trim.forget(part)
    manifest["events"] = {"kept": "all", "n": data_read.n_samples}
    with step("seal"):
        seal(part, manifest)
    with step("verify"):
        bad = [check for check in verify(part) if not check.ok]
    if bad:
        raise SaevxError(f"The trial's store is not sound ({bad[0].name}: {bad[0].detail}).")
    examples_fm, n_pairs = rows_made(part, sae.n_features)
    found_bytes: dict[str, int] = {}
    for path in part.rglob("*"):
        if path.is_file():
            top = path.relative_to(part).parts[0]
            found_bytes[top] = found_bytes.get(top, 0) + path.stat().st_size
    enough = int((counts["samples_ds_fm"] >= K_PAIRED).all(1).sum())
    return Rehearsal(
        sizes=sizes._replace(examples=float(examples_fm.sum()), pairs=n_pairs, enough=enough),
        n_planned=len(small_plan.length_n),
        n_planned_tokens=float(small_plan.length_n.sum()),
        n_features=sae.n_features, stride=stride, overlaps=job.overlaps, seconds=took, peak=peak, loaded=loaded,
        passed=passed, pieces=pieces, a_shard=a_pass["shard"], a_feature=a_feature, a_vector_pair=a_vector_pair,
        bytes=found_bytes, examples_fm=examples_fm, **counts,
    )  # fmt: skip


def batches_of(data: Data, plan: Plan) -> Iterator[list[Any]]:
    return ([data.rows[at] for at in batch] for batch in plan.batches)


def sizes_of(data: Collected, manifest: dict[str, Any], shown: int) -> Sizes:
    said = [
        len(str(record["text"]).encode()) + len(json.dumps(record.get("extra", {}))) for record in data.samples
    ]
    thumbs = [data.part / str(image["thumb"]) for record in data.samples for image in record["images"]]
    return Sizes(
        samples=data.n_samples,
        images=len(thumbs),
        tokens=len(data.events.token_id),
        events=len(data.events.event_feature),
        maxima=len(data.max_feature),
        kept_maxima=len(data.events.max_feature),
        ds_samples=len(data.ds_rows),
        ds_tokens=len(data.resid),
        text_bytes=sum(said),
        thumb_bytes=sum(path.stat().st_size for path in thumbs),
        reasons=len(load_json(data.part, "flag")["reasons"]),
        examples=0,
        pairs=0,
        shown=shown,
        enough=0,
    )


def growing(job: Collector, data: Collected, manifest: dict[str, Any], stride: int) -> list[Piece]:
    """What of the steps grows with the data, each timed alone."""
    weigh = load_step(data.part, "weigh")
    weights = Weights.of_step(weigh, manifest, data.n_samples)
    took: dict[str, float] = {}
    head = merge.heads(job)
    with timed(took, "merge events"):
        merge.write_events(job, head)
        merge.write_maxima(job, head)
    with timed(took, "merge samples"):
        merge.write_records(job, head)
        merge.write_samples(job, head)
    with timed(took, "weigh maxima"):
        cut_maxima(data, weigh["p999"])
        sample_counts(data)
    with timed(took, "weigh ds_tokens"):
        common_means(data)
        firing(data, weigh["delta"], per_sample=1)
    with timed(took, "score maxima"):
        for low, high in data.blocks():
            score_maxima(*data.maxima(low, high), weights)
    pictures = [data.part / str(image["thumb"]) for record in data.samples for image in record["images"]]
    with timed(took, "flag images"):
        pixel_flags(pictures)
        pixel_hashes(pictures)
    with timed(took, "index maxima"):
        for modality in (TEXT, IMAGE):
            all_sample_vectors(data, weigh, modality)
    with timed(took, "flag maxima"):
        all_sample_vectors(data, weigh, IMAGE)
        for low, high in data.blocks():
            unsupported(
                data, np.arange(low, high), data.maxima(low, high)[1], weigh["p999"], weights.support_f
            )
    text, image = feature_sets(data, np.arange(data.n_samples))
    with timed(took, "cooccur samples"):
        for first, second in ((text, image), (image, text), (text, text), (image, image)):
            (first.T.tocsr() @ second).tocsr()
    with timed(took, "label samples"):
        read_words([str(record["text"]) for record in data.samples])
    if stride > 1:
        vectors = job.sae.directions_fd.detach().cpu().numpy().astype(np.float32)
        with timed(took, "index squared"):  # twice: by direction and by profile
            nearest(vectors)
        took["index squared"] *= 2
    return [Piece(name.split()[0], name.split()[1], seconds) for name, seconds in took.items()]


def a_feature_of_omega(data: Collected) -> float:
    """Seconds of ω a feature, on residuals drawn at random."""
    n = TRIED_FEATURES
    if not len(data.resid):
        return 0.0
    rng = np.random.Generator(np.random.PCG64(0))
    at = rng.integers(0, len(data.resid), K_PAIRED)
    start = np.zeros(2 * data.n_features + 1, np.int64)
    fire = Firing(at, at, np.ones(K_PAIRED), data.resid_row[at], at, start)
    directions = rng.standard_normal((data.n_features, data.resid.shape[1]), dtype=np.float32)
    means, took = common_means(data), dict[str, float]()
    with timed(took, "paired"):
        features = np.arange(min(n, data.n_features))
        paired(data, fire, means, directions, features, resamples=1000, seed=0)
    return took["paired"] / len(features)


def a_comparison() -> float:
    """Seconds of one of the comparisons behind near-duplicates: exact search over vectors of 256 dimensions."""
    import faiss

    rng = np.random.Generator(np.random.PCG64(0))
    base = rng.standard_normal((20 * TRIED_VECTORS, 256), dtype=np.float32)
    took: dict[str, float] = {}
    with timed(took, "knn"):
        faiss.knn(base[:TRIED_VECTORS], base, 9, metric=faiss.METRIC_INNER_PRODUCT)
    return took["knn"] / (len(base) * TRIED_VECTORS)


def rows_made(part: Path, n_features: int) -> tuple[Array, int]:
    """Examples int64 [F, 2] of each feature and modality, and the number of pairs."""
    store = Store.open(part)
    try:
        c = s.examples.c
        query = select(c.feature, c.modality, func.count()).group_by(c.feature, c.modality)
        examples_fm = np.zeros((n_features, 2), np.int64)
        with store.engine.connect() as conn:
            for feature, modality, n in conn.execute(query):
                examples_fm[feature, modality] = n
        return examples_fm, sum(len(pairs) for pairs in store.cooccurrence.pairs.values())
    finally:
        store.close()
