"""`--dry-run`: time, memory and bytes of a run, foretold from a rehearsal on a few of its batches (rehearse.py).

Counts grow with the data, some of them less and less: rows of a feature's lists fill up. How far is read off the
rehearsal itself, from the features that have been seen often. Nothing here is as large as features times samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from precompute.collect.accumulators import MOST_WAITING
from precompute.collect.shard import feature_type
from precompute.data.batches import Plan
from precompute.estimate.rehearse import Rehearsal, Sizes
from precompute.scoring.reasons import MAX_REASONS
from precompute.steps.cooccur import KEPT as KEPT_PARTNERS
from precompute.steps.cooccur import MAX_SAMPLES
from precompute.steps.index import N_NEIGHBOURS
from precompute.steps.omega import K_PAIRED, PIECE_BYTES
from precompute.store import mapfile
from precompute.store.cooccurrence import COLUMNS as PAIR_COLUMNS
from precompute.store.features import NEIGHBOUR
from precompute.store.making.trim import BYTES_A_CHECKSUM, EVENT_CHOICES, EventChoice
from precompute.store.making.unfinished import BLOCK
from precompute.store.making.verify import CHUNK_EVENTS
from precompute.store.schema import FLAGS, SHOWN, SPACES, TOP
from precompute.store.search import WIDTH

Array = NDArray[Any]

# Bytes of a row with its part of every index over it. What a rehearsal's own database takes beside these decides.
FEATURE_ROW = 1000
"""features, feature_details (its histogram too) and feature_fts."""
SAMPLE_ROW, SAMPLE_TEXT = 900, 2.2
"""samples; and for each byte of its caption and other fields, the full text's words included."""
EXAMPLE_ROW = 21
VOCABULARY_ROW = 15
REASON_ROW = 200
PAGES = 60 * 4096
"""Every table and index has a page of its own."""

# Bytes of memory, beside the model and the SAE.
HISTOGRAM, LISTS = 2 * 256 * 8, 5000
"""A feature's, of the accumulators in the pass."""
ACCUM = 2 * 256 * 8 + 2 * (TOP + 32) * 18 + 2 * (SHOWN + 32) * 19
"""A feature's, of the accumulators as the later steps read them, and of the examples."""
STEP_FEATURE = 1000
"""A feature's, of what the later steps make."""
WAITING_ENTRY, SORTING = 127, 32e6
"""An entry's, of those that wait in the accumulators, one an event at most; and whatever their number."""
HELD_EVENT = 25
"""A shard's event's, in the small arrays of its samples, beside its own bytes twice."""
MERGED_EVENT = 40
BLOCK_MAXIMUM = 140
MEANS_ARRAYS, MEANS = 5.5, 8
"""Of omega.common_means: how many arrays of the size of a piece of residuals as float64 stand at once, and how many
float64 [d] a sample of D_s has."""
VERIFIED_EVENT = 60
RECORD = 3000
"""A sample's line, read."""
FEW = 0.3
"""Shape of the gamma distribution that the features' rates are taken to have: how a feature never seen in the rehearsal
may yet be seen."""


SAMPLES_OF_A_PARTNER = 10
"""From so many on a feature mostly has all the partners that are kept of one."""
FULLER, FULL_SAMPLES = 0.45, 100
"""Larger share of distinct pairs in large data than in a hundred samples, where few pairs have the support."""


class Forecast(NamedTuple):
    """What a run would take."""

    sizes: Sizes
    n_features: int
    seconds: dict[str, float]
    memory: float
    sae: float
    """Bytes of its weights in memory."""
    bytes: dict[str, float]
    """Of the store with all events, by part."""
    of: dict[EventChoice, float]
    """Of the store with each choice of `--events`."""
    scratch: float
    """More, while it is made."""

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


def enlarged(r: Rehearsal, plan: Plan, ds: int) -> Sizes:
    """The sizes of the whole run."""
    small = r.sizes
    by_sample = len(plan.length_n) / r.n_planned
    by_token = float(plan.length_n.sum()) / r.n_planned_tokens
    ds_tokens = float(np.sort(plan.length_n[plan.ds[:ds]]).sum())
    ds_samples = float(min(ds, len(plan.ds)))
    per_planned = small.tokens / r.n_planned_tokens
    count_fm = (r.count_fm + FEW * (by_token > 1)) * by_token
    examples = curve(r.count_fm, r.examples_fm, count_fm)
    samples_fm = (r.samples_fm + FEW * (by_sample > 1)) * min(by_sample, max(1.0, MAX_SAMPLES / small.samples))
    pairs = n_pairs(r, samples_fm, by_sample)
    in_ds = r.samples_ds_fm * (ds_samples / max(small.ds_samples, 1))
    enough = float((in_ds >= K_PAIRED).all(1).sum()) * r.stride
    samples = small.samples * by_sample
    per_flag = small.reasons * by_sample
    return Sizes(
        samples=samples,
        images=small.images * by_sample,
        tokens=small.tokens * by_token,
        events=small.events * by_token * r.stride,
        maxima=small.maxima * by_sample * r.stride,
        kept_maxima=min(small.kept_maxima * r.stride, 512 * small.samples) * by_sample,
        ds_samples=ds_samples,
        ds_tokens=ds_tokens * per_planned,
        text_bytes=small.text_bytes * by_sample,
        thumb_bytes=small.thumb_bytes * by_sample,
        reasons=min(per_flag, MAX_REASONS * len(FLAGS)),
        examples=examples * r.stride,
        pairs=pairs * r.stride,
        shown=shown(r, examples * r.stride, samples),
        enough=enough,
    )


def curve(seen: Array, rows: Array, expected: Array) -> float:
    """Σ of rows at the counts expected, from the rows at the counts seen: means by octave, which do not fall."""
    seen, rows = seen.ravel().astype(np.float64), rows.ravel().astype(np.float64)
    octave = np.floor(np.log2(np.maximum(seen, 1))).astype(np.int64)
    some = seen > 0
    if not some.any():
        return 0.0
    n = np.bincount(octave[some])
    known = np.flatnonzero(n)
    count = np.bincount(octave[some], seen[some])[known] / n[known]
    mean = np.maximum.accumulate(np.bincount(octave[some], rows[some])[known] / n[known])
    return float(np.interp(expected.ravel(), np.r_[0.0, count], np.r_[0.0, mean]).sum())


def n_pairs(r: Rehearsal, samples_fm: Array, by_sample: float) -> float:
    """Pairs of features: each feature that is in some samples has its partners, and a part of them is another's too.

    Args:
        samples_fm: samples that activate each feature in the whole run, by modality.
    """

    def sides(n_fm: Array) -> float:
        return float(2 * KEPT_PARTNERS * (n_fm >= SAMPLES_OF_A_PARTNER).sum())

    small = sides(r.samples_fm)
    if not small:
        return r.sizes.pairs * by_sample
    fuller = 1 + FULLER * (1 - 1 / by_sample) * min(1.0, FULL_SAMPLES / r.sizes.samples)
    return r.sizes.pairs / small * fuller * sides(samples_fm)


def shown(r: Rehearsal, examples: float, samples: float) -> float:
    """Samples among the examples: each example falls on one at random, and several of a feature on the same."""
    small = r.sizes
    share = small.shown / small.samples
    if share >= 1 or small.examples == 0:
        return samples * min(1.0, examples / max(samples, 1.0))
    apart = -np.log(1 - share) * small.samples / small.examples
    return float(samples * (1 - np.exp(-apart * examples / samples)))


# ---- bytes


def table_bytes(z: Sizes, n_features: float, vocab: int) -> float:
    """store.sqlite."""
    return (
        PAGES
        + n_features * FEATURE_ROW
        + z.samples * SAMPLE_ROW
        + z.text_bytes * SAMPLE_TEXT
        + z.examples * EXAMPLE_ROW
        + vocab * VOCABULARY_ROW
        + z.reasons * REASON_ROW
    )


def store_bytes(z: Sizes, r: Rehearsal, n_features: int, vocab: int, d_model: int) -> dict[str, float]:
    """The finished store by part, all events kept."""
    a_value = 2 + np.dtype(feature_type(n_features)).itemsize
    told = table_bytes(r.sizes, r.n_features, vocab)
    return {
        "events": z.events * a_value + z.tokens * 8,
        "tokens": z.tokens * 5 + z.samples * 8,
        "maxima": z.kept_maxima * a_value + z.samples * 16,
        "tables": table_bytes(z, n_features, vocab) * r.bytes["store.sqlite"] / told,
        "pairs": z.pairs * 4 * len(PAIR_COLUMNS) + n_features * 8,
        "vectors": (
            n_features * d_model * 2 * len(SPACES)
            + z.samples * WIDTH * 2 * 2
            + n_features * len(SPACES) * N_NEIGHBOURS * NEIGHBOUR.itemsize
        ),
        "map": mapfile.HEADER.size + n_features * sum(np.dtype(kind).itemsize for kind in mapfile.FIELDS.values()),
        "thumbnails": z.thumb_bytes,
        "manifest": 4000 + z.images * BYTES_A_CHECKSUM,
    }


def by_choice(parts: dict[str, float], z: Sizes) -> dict[EventChoice, float]:
    """Bytes of the store with each choice of `--events`."""
    other = sum(parts.values()) - parts["events"]
    share = {"all": 1.0, "examples": min(1.0, z.shown / max(z.samples, 1.0)), "none": 0.0}
    return {kept: other + parts["events"] * share[kept] for kept in EVENT_CHOICES}


# ---- time


def step_seconds(z: Sizes, r: Rehearsal, n_features: int, n_shards: int, parts: dict[str, float]) -> dict[str, float]:
    """Each step's, the start-up apart."""
    by = {name: new / old if old else 1.0 for name, new, old in zip(Sizes._fields, z, r.sizes, strict=True)}
    by["samples"] = len_ratio = by["samples"]
    found = {}
    moving: dict[str, float] = {}
    for step, taken in r.seconds.items():
        pieces = [piece for piece in r.pieces if piece.step == step and piece.grows_with != "squared"]
        squared = sum(piece.seconds for piece in r.pieces if piece.step == step and piece.grows_with == "squared")
        omega = r.a_feature * r.sizes.enough if step == "weigh" else 0.0
        moves = sum(piece.seconds for piece in pieces) + squared + omega
        # A piece is timed warm and alone, so it can seem longer than the step that has it.
        part = min(1.0, taken / moves) if moves else 1.0
        rest = max(0.0, taken - moves)
        scale = r.stride**2 if step == "cooccur" else r.stride
        grown = sum(piece.seconds * by[piece.grows_with] * grown_to(piece, z, r) for piece in pieces)
        found[step] = rest * scale + part * (grown + squared * r.stride**2)
        moving[step] = part
    # A shard has a fixed part; the rest of the pass goes with the tokens.
    tokens = by["tokens"]
    found["collect"] = max(r.seconds["collect"] - r.a_shard, 0.0) * tokens + r.a_shard * n_shards * r.stride
    found["weigh"] += r.a_feature * z.enough * moving["weigh"]
    found["flag"] += r.a_vector_pair * z.samples**2 * (len_ratio > 1)
    small = sum(r.bytes.values())
    ratio = sum(parts.values()) / small
    found["write"] = r.seconds["write"] * (parts["tables"] + parts["pairs"]) / max(
        r.bytes["store.sqlite"] + r.bytes["cooccurrence"], 1
    )
    for step in ("seal", "verify"):
        found[step] = r.seconds[step] * ratio
    found["trim"] = 0.0
    return found


def grown_to(piece: Any, z: Sizes, r: Rehearsal) -> float:
    """Co-occurrence looks at so many samples and no more."""
    if piece.step != "cooccur":
        return 1.0
    return min(1.0, max(MAX_SAMPLES, r.sizes.samples) / z.samples) * r.stride


# ---- memory


def peak_memory(
    z: Sizes, r: Rehearsal, n_features: int, d_model: int, shard_events: float, *, rows: float
) -> dict[str, float]:
    """Most bytes resident in each step: the rehearsal's, and what a larger run has more of.

    Args:
        shard_events: of the largest shard.
        rows: bytes that the list of the data's rows is larger than when the rehearsal ran.
    """
    small = r.sizes
    more_features = n_features - r.n_features
    a_value = 2 + np.dtype(feature_type(n_features)).itemsize
    weights = more_features * d_model * 4 * 2

    def shard(events: float) -> float:
        return events * (a_value * 2 + HELD_EVENT) + min(events, MOST_WAITING) * WAITING_ENTRY + SORTING

    def block(entries: float) -> float:
        return min(entries, BLOCK) * BLOCK_MAXIMUM

    next_shard = shard_events * (a_value + HELD_EVENT) if r.overlaps else 0.0
    held_ds = min(z.ds_tokens, z.tokens * shard_events / max(z.events, 1)) * d_model * 2
    records = (z.samples - small.samples) * RECORD
    more_maxima = block(z.maxima) - block(small.maxima)
    begun = r.passed + rows + weights + n_features * (HISTOGRAM + LISTS)
    later = weights + more_features * (ACCUM + STEP_FEATURE) + rows
    a_piece = PIECE_BYTES / (8 * d_model)
    means = (min(z.ds_tokens, a_piece) - min(small.ds_tokens, a_piece)) * d_model * 8 * MEANS_ARRAYS
    means += (z.ds_samples - small.ds_samples) * d_model * 8 * MEANS
    vectors = more_features * d_model * 4 * 4
    found = {
        "collect": max(
            r.peak["collect"] + rows + weights + more_features * (HISTOGRAM + LISTS),
            begun + shard(shard_events) + next_shard + held_ds,
        ),
        "merge": begun + shard_events * MERGED_EVENT + records,
        "weigh": r.peak["weigh"] + later + means + vectors / 4,
        "score": r.peak["score"] + later + more_maxima + records,
        "flag": r.peak["flag"] + later + more_maxima + records + (z.samples - small.samples) * WIDTH * 8,
        "cooccur": r.peak["cooccur"] + later + records,
        "index": r.peak["index"] + later + vectors + more_maxima + (z.samples - small.samples) * WIDTH * 6,
        "label": r.peak["label"] + later + records,
        "write": r.peak["write"] + later + records,
        "verify": r.peak["verify"] + weights + rows
        + (min(z.events, CHUNK_EVENTS) - min(small.events, CHUNK_EVENTS)) * VERIFIED_EVENT,
    }  # fmt: skip
    return found


def foretell(
    r: Rehearsal, plan: Plan, *, ds: int, n_features: int, vocab: int, d_model: int, startup: float
) -> Forecast:
    """Everything, from what was measured.

    Args:
        startup: seconds until the first step: imports, model, data, plan.
    """
    z = enlarged(r, plan, ds)
    parts = store_bytes(z, r, n_features, vocab, d_model)
    seconds = {"start": startup, **step_seconds(z, r, n_features, len(plan.shards), parts)}
    tokens_of = [float(plan.length_n[batch].sum()) for batch in plan.batches]
    largest = max(sum(tokens_of[i] for i in one) for one in plan.shards) / float(plan.length_n.sum())
    memory = peak_memory(z, r, n_features, d_model, z.events * largest, rows=0)
    a_value = 2 + np.dtype(feature_type(n_features)).itemsize
    scratch = (
        2 * z.ds_tokens * d_model * 2 + z.maxima * a_value + z.samples * RECORD / 2 + z.thumb_bytes
        + n_features * ACCUM + len(plan.shards) * n_features * LISTS / 4 + parts["events"] + parts["tokens"]
    )  # fmt: skip
    sae = n_features * d_model * 4.0 * 2
    return Forecast(z, n_features, seconds, max(memory.values()), sae, parts, by_choice(parts, z), scratch)


# ---- words


def said(f: Forecast, kept: EventChoice, device: str, n_rows: int, r: Rehearsal) -> str:
    """A few lines for a person."""
    from precompute.utils.progress import human

    z = f.sizes
    parts = {**f.bytes, "events": f.bytes["events"] - (f.of["all"] - f.of[kept])}
    lines = [
        f"{z.samples:.0f} samples of {n_rows} rows, about {z.tokens:.0f} tokens, {z.events:.0f} events "
        f"({z.events / max(z.tokens, 1):.1f} features a token)",
        f"time    {clock(f.total)}: " + ", ".join(f"{name} {clock(t)}" for name, t in f.seconds.items()),
        f"memory  {human(f.memory)} at most, {human(r.loaded)} of it with model and SAE loaded, on {device}",
        f"disk    {human(f.of[kept])} for the store with --events {kept}: "
        + ", ".join(f"{name} {human(n)}" for name, n in parts.items()),
        "        " + ", ".join(f"--events {name} {human(f.of[name])}" for name in EVENT_CHOICES)
        + f"; {human(f.scratch)} more while it is made",
    ]  # fmt: skip
    if r.stride > 1:
        lines.append(f"        tried with one of every {r.stride} features: {r.n_features} of {f.n_features}")
    if torch.cuda.is_available() and device.startswith("cuda"):
        lines.append(f"GPU     {torch.cuda.max_memory_allocated() / 1e9:.1f} GB at most so far")
    return "\n".join(lines)


def clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
