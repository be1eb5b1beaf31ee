"""Per-feature, per-modality accumulators of one pass: exact, and mergeable in any order.

Counts and sums are integers; top-k and bands are the first entries under a total order, so any two ways of
splitting the events give the same bits. Nothing here loops over tokens or features.

Bands are sampled by a keyed 64-bit mix of (seed, feature, row, position): as reproducible as a
cryptographic hash, at a hundredth of the cost per event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TOP = 20
N_BANDS, BAND = 4, 8
N_BINS = 256
SHIFT = 7
"""Bin of a float16 = its bits >> 7: 8 bins an octave."""
FIXED = 24
"""Sums are in units of 2^−24, float16's smallest step, so they are exact."""


class Entries(NamedTuple):
    """Single activations; `group` = feature · 2 + modality."""

    group: Array
    value: Array
    """float16 in stored units, > 0."""
    row: Array
    """Number of the sample's row in the data."""
    position: Array
    """Token of the sample."""

    def take(self, at: Array) -> Entries:
        return Entries(self.group[at], self.value[at], self.row[at], self.position[at])


@dataclass(frozen=True)
class Accum:
    """What is kept of any set of events."""

    n_features: int
    seed: int
    count: Array
    """int64 [2F]."""
    total: Array
    """int64 [2F]: Σ value · 2^24."""
    max: Array
    """float16 [2F]."""
    hist: Array
    """int64 [2F, 256]."""
    top: Entries
    """At most TOP a group; value falling, then row, then position."""
    band: Entries
    """At most BAND a group and band; by band, hash, row, position."""


def empty(n_features: int, seed: int) -> Accum:
    none = Entries(*(np.zeros(0, t) for t in (np.int64, np.float16, np.int64, np.int32)))
    n = 2 * n_features
    return Accum(
        n_features, seed, np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.float16),
        np.zeros((n, N_BINS), np.int64), none, none,
    )  # fmt: skip


def accumulate(events: Entries, n_features: int, seed: int) -> Accum:
    """Accumulators of a set of events.

    Args:
        events: any order; no token and feature twice.
    """
    if not len(events.group):
        return empty(n_features, seed)
    n = 2 * n_features
    order = ranked(events)
    group, value = events.group[order], events.value[order]
    bits = value.view(np.uint16)
    count = np.bincount(group, minlength=n)
    # One run for each (group, bin): values fall inside a group, so equal bins lie together.
    cell = group * N_BINS + (bits >> SHIFT)
    first = run_starts(cell)
    hist = np.zeros(n * N_BINS, np.int64)
    hist[cell[first]] = np.diff(np.append(first, len(cell)))
    largest = np.zeros(n, np.float16)
    total = np.zeros(n, np.int64)
    begin = run_starts(group)
    largest[group[begin]] = value[begin]
    total[group[begin]] = np.add.reduceat(np.ldexp(value.astype(np.float64), FIXED).astype(np.int64), begin)
    top = events.take(order[rank_in_run(group) < TOP])
    band = pick_bands(events, largest, seed)
    return Accum(n_features, seed, count, total, largest, hist.reshape(n, N_BINS), top, band)


def merge(parts: Sequence[Accum]) -> Accum:
    """Accumulators of all events of the parts together; associative and commutative to the bit."""
    head = parts[0]
    if len(parts) == 1:
        return head
    largest = np.maximum.reduce([part.max for part in parts])
    top = join([part.top for part in parts])
    order = ranked(top)
    kept = order[rank_in_run(top.group[order]) < TOP]
    return replace(
        head,
        count=np.add.reduce([part.count for part in parts]),
        total=np.add.reduce([part.total for part in parts]),
        max=largest,
        hist=np.add.reduce([part.hist for part in parts]),
        top=top.take(kept),
        band=pick_bands(join([part.band for part in parts]), largest, head.seed),
    )


def join(parts: Sequence[Entries]) -> Entries:
    return Entries(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def ranked(events: Entries) -> Array:
    """Order by group, value falling, row, position."""
    place = by_place(events)
    group = events.group[place].astype(np.uint64)
    fall = (np.uint16(0xFFFF) - events.value[place].view(np.uint16)).astype(np.uint64)
    key = group << np.uint64(16) | fall
    width = max(1, len(place).bit_length())
    if int(group.max(initial=0)).bit_length() + 16 + width <= 64:
        # Sorting the numbers themselves, the place in their low bits, is several times faster than argsort.
        packed = np.sort(key << np.uint64(width) | np.arange(len(place), dtype=np.uint64))
        return place[(packed & np.uint64((1 << width) - 1)).astype(np.int64)]
    return place[np.argsort(key, kind="stable")]


def by_place(events: Entries) -> Array:
    """Order by row and position (events of one token in any order)."""
    key = events.row.astype(np.int64) << 31 | events.position.astype(np.int64)
    if bool((key[1:] >= key[:-1]).all()):
        return np.arange(len(key))
    return np.argsort(key, kind="stable")


def pick_bands(events: Entries, largest: Array, seed: int) -> Entries:
    """In each group and band the BAND entries with the smallest hash.

    Args:
        largest: float16 [2F], the maximum that the bands count down from.
    """
    if not len(events.group):
        return events
    depth = np.minimum(octave(largest)[events.group] - octave(events.value), N_BANDS - 1)
    cell = events.group * N_BANDS + depth
    key = band_hash(seed, events.group >> 1, events.row, events.position)
    # Only entries among the few smallest of their cell can be kept: drop what is clearly not, then sort the rest.
    likely = key <= bound(cell, key)
    some = np.flatnonzero(likely)
    order = some[np.lexsort((events.position[some], events.row[some], key[some], cell[some]))]
    return events.take(order[rank_in_run(cell[order]) < BAND])


def bound(cell: Array, key: Array) -> Array:
    """For each entry a hash at or above its cell's BAND-th smallest.

    Of n uniform 64-bit hashes, 8 lie under (32 / n) · 2^64 but for one case in millions; where they do not,
    there is no bound, so the choice stays exact.
    """
    n_cell = np.bincount(cell)
    limit = np.minimum(32.0 / np.maximum(n_cell, 1), 1.0) * 2.0**64
    under = key.astype(np.float64) < limit[cell]
    enough = np.bincount(cell[under], minlength=len(n_cell)) >= np.minimum(n_cell, BAND)
    whole = np.uint64(0xFFFFFFFFFFFFFFFF)
    top = np.where(enough & (limit < 2.0**64), limit, 0.0).astype(np.uint64)
    return np.where(top == 0, whole, top)[cell]


def octave(value: Array) -> Array:
    """⌊log2⌋ of float16 values, subnormal ones too; of 0 something below all others."""
    exponent: Array = np.frexp(value.astype(np.float32))[1].astype(np.int64)
    return np.where(value > 0, exponent - 1, -64)


def band_hash(seed: int, feature: Array, row: Array, position: Array) -> Array:
    """uint64 of (seed, feature, row, position): splitmix64's finaliser (Steele et al. 2014) for each number."""
    key = int.from_bytes(hashlib.sha256(f"saevx bands {seed}".encode()).digest()[:8], "big")
    x = np.full(len(feature), key, dtype=np.uint64)
    for number in (row, position, feature):
        x = x ^ number.astype(np.uint64)
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return x


def run_starts(keys: Array) -> Array:
    """Where each run of equal keys begins."""
    return np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, np.int64)


def rank_in_run(keys: Array) -> Array:
    """0, 1, 2 … inside each run of equal keys."""
    first = run_starts(keys)
    rank: Array = np.arange(len(keys)) - np.repeat(first, np.diff(np.append(first, len(keys))))
    return rank


def tables(accum: Accum) -> dict[str, Array]:
    """As the later steps read it: dense arrays [F, 2, …]; row −1 where there is none."""
    n = accum.n_features
    found: dict[str, Array] = {
        "count": accum.count.reshape(n, 2), "total": accum.total.reshape(n, 2), "max": accum.max.reshape(n, 2),
        "hist": accum.hist.reshape(n, 2, N_BINS),
    }  # fmt: skip
    depth = np.minimum(octave(accum.max)[accum.band.group] - octave(accum.band.value), N_BANDS - 1)
    for name, entries, cell, shape in (
        ("top", accum.top, accum.top.group, (TOP,)),
        ("band", accum.band, accum.band.group * N_BANDS + depth, (N_BANDS, BAND)),
    ):
        at = cell * shape[-1] + rank_in_run(cell)
        for field, kind, missing in (
            ("row", np.int64, -1),
            ("position", np.int32, -1),
            ("value", np.float16, 0),
        ):
            dense = np.full(n * 2 * int(np.prod(shape)), missing, dtype=kind)
            dense[at] = getattr(entries, field)
            found[f"{name}_{'pos' if field == 'position' else field}"] = dense.reshape(n, 2, *shape)
    return found


def save(accum: Accum) -> dict[str, Array]:
    """Flat arrays for a shard's file; the histogram as its few filled cells."""
    at = np.flatnonzero(accum.hist)
    found = {
        "count": accum.count,
        "total": accum.total,
        "max": accum.max,
        "hist_at": at,
        "hist_n": accum.hist.ravel()[at],
    }
    for name in ("top", "band"):
        found |= {f"{name}_{field}": column for field, column in getattr(accum, name)._asdict().items()}
    return found


def load(arrays: dict[str, Array], n_features: int, seed: int) -> Accum:
    """Back from `save`."""
    hist = np.zeros(2 * n_features * N_BINS, np.int64)
    hist[arrays["hist_at"]] = arrays["hist_n"]
    top, band = (
        Entries(*(arrays[f"{name}_{field}"] for field in Entries._fields)) for name in ("top", "band")
    )
    return Accum(
        n_features, seed, arrays["count"], arrays["total"], arrays["max"], hist.reshape(-1, N_BINS), top, band
    )
