"""Per-feature, per-modality accumulators of one pass: exact, and mergeable in any order.

Counts and sums are integers; top-k and bands are the first entries under a total order, so any two ways of
splitting the events give the same bits. Nothing here loops over tokens or features.

Bands are sampled by a keyed 64-bit mix of (seed, feature, row, position): as reproducible as a
cryptographic hash, at a hundredth of the cost per event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from precompute.runs import rank_in_run, run_starts

Array = NDArray[Any]
TOP = 20
N_BANDS, BAND = 4, 8
N_BINS = 256
SHIFT = 7
"""Bin of a float16 = its bits >> 7: 8 bins an octave."""
AT_ONCE = 1 << 20
"""Events sorted at a time."""
ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
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


@dataclass(frozen=True)
class Saved:
    """Accumulators as a shard's file has them: the histogram as its few filled cells."""

    count: Array
    total: Array
    max: Array
    hist_at: Array
    hist_n: Array
    top: Entries
    band: Entries


def empty(n_features: int, seed: int) -> Accum:
    none = Entries(*(np.zeros(0, t) for t in (np.int64, np.float16, np.int64, np.int32)))
    n = 2 * n_features
    return Accum(
        n_features, seed, np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.float16),
        np.zeros((n, N_BINS), np.int64), none, none,
    )  # fmt: skip


class Running:
    """Accumulators that take in events, or other accumulators, in place: the memory they need does not grow with
    either (one dense histogram, and lists of at most a few entries per group).

    Most events can neither be among a group's strongest nor among a band's smallest hashes: a gate per group and a
    limit per cell keep them out before anything is sorted. Both only ever drop what could not have been kept.
    """

    def __init__(self, n_features: int, seed: int) -> None:
        n = 2 * n_features
        self.n_features, self.seed = n_features, seed
        self.count, self.total, self.max = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.float16)
        self.hist = np.zeros(n * N_BINS, np.int64)
        none = empty(0, seed).top
        self.top, self.band = [none], [none]
        self.gate = np.zeros(n, np.float16)
        """Value that TOP entries of a group reach; 0 while there are fewer."""
        self.limit = np.full(n * N_BANDS, ALL, np.uint64)
        """Hash of a cell's BAND-th entry, as the bands lay when `limit_octave` was the maximum's."""
        self.limit_octave = np.full(n, -64, np.int64)

    def see(self, events: Entries) -> None:
        """Take in events in any order; no token and feature twice in all that is taken in."""
        for low in range(0, len(events.group), AT_ONCE):
            self._see(Entries(*(column[low : low + AT_ONCE] for column in events)))

    def _see(self, events: Entries) -> None:
        group, value = events.group, events.value
        # By group and then by value: whatever is summed over a group lies together, its largest at the end.
        key = np.sort(group.astype(np.uint64) << np.uint64(16) | value.view(np.uint16))
        begin = run_starts(key >> np.uint64(16))
        end = np.append(begin[1:], len(key))
        here, n_here, bits = (key[begin] >> np.uint64(16)).astype(np.int64), end - begin, key.astype(np.uint16)
        self.count[here] += n_here
        self.total[here] += np.add.reduceat(_WHOLE[bits], begin)
        self.max[here] = np.maximum(self.max[here], bits[end - 1].view(np.float16))
        bins = run_starts(key >> np.uint64(SHIFT))
        cell = here[np.searchsorted(begin, bins, "right") - 1] * N_BINS + (bits[bins] >> SHIFT)
        self.hist[cell] += np.diff(np.append(bins, len(key)))
        full = n_here >= TOP
        self.gate[here[full]] = np.maximum(self.gate[here[full]], bits[end[full] - TOP].view(np.float16))
        self.top.append(events.take(np.flatnonzero(value >= self.gate[group])))

        cell, hashed = band_cells(group, value, self.max), event_hash(self.seed, events)
        known = self.limit_octave[group] == octave(self.max)[group]
        limit = np.where(known, self.limit[cell], ALL)
        self.band.append(events.take(np.flatnonzero((hashed <= limit) & likely(cell, hashed))))
        self._settle()

    def take(self, other: Accum | Saved) -> None:
        """Take in other accumulators of the same features and seed."""
        if not self.count.any():  # theirs are cut already
            self.top, self.band = [other.top], [other.band]
        else:
            self.top.append(other.top.take(np.flatnonzero(other.top.value >= self.gate[other.top.group])))
            self.band.append(other.band)
        self.count += other.count
        self.total += other.total
        np.maximum(self.max, other.max, out=self.max)
        if isinstance(other, Saved):
            self.hist[other.hist_at] += other.hist_n
        else:
            self.hist += other.hist.reshape(-1)
        self._settle()

    def _settle(self, waiting: int = 1 << 20) -> None:
        """Cut the lists, once more waits than is kept."""
        if sum(len(part.group) for part in self.top[1:]) > max(waiting, len(self.top[0].group)):
            self._cut_top()
        if sum(len(part.group) for part in self.band[1:]) > max(waiting, len(self.band[0].group)):
            self._cut_band()

    def _cut_top(self) -> None:
        top = join(self.top)
        order = ranked(top)
        group, value = top.group[order], top.value[order]
        rank = rank_in_run(group)
        last = rank == TOP - 1
        self.gate[group[last]] = value[last]
        self.top = [top.take(order[rank < TOP])]

    def _cut_band(self) -> None:
        band = pick_bands(join(self.band), self.max, self.seed)
        cell = band_cells(band.group, band.value, self.max)
        last = rank_in_run(cell) == BAND - 1
        self.limit[:] = ALL
        self.limit[cell[last]] = event_hash(self.seed, band)[last]
        self.limit_octave = octave(self.max)
        self.band = [band]

    def accum(self) -> Accum:
        """What has been taken in."""
        if len(self.top) > 1:
            self._cut_top()
        if len(self.band) > 1:
            self._cut_band()
        return Accum(
            self.n_features, self.seed, self.count, self.total, self.max, self.hist.reshape(-1, N_BINS),
            self.top[0], self.band[0],
        )  # fmt: skip


def accumulate(events: Entries, n_features: int, seed: int) -> Accum:
    """Accumulators of a set of events.

    Args:
        events: any order; no token and feature twice.
    """
    running = Running(n_features, seed)
    running.see(events)
    return running.accum()


def merge(parts: Sequence[Accum]) -> Accum:
    """Accumulators of all events of the parts together; associative and commutative to the bit."""
    running = Running(parts[0].n_features, parts[0].seed)
    for part in parts:
        running.take(part)
    return running.accum()


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
    cell, key = band_cells(events.group, events.value, largest), event_hash(seed, events)
    # Only entries among the few smallest of their cell can be kept: drop what is clearly not, then sort the rest.
    some = np.flatnonzero(likely(cell, key))
    order = some[hashed_order(events.take(some), cell[some], key[some])]
    return events.take(order[rank_in_run(cell[order]) < BAND])


def hashed_order(events: Entries, cell: Array, key: Array) -> Array:
    """Order by cell, hash, row, position."""
    # One sort of cell and as much of the hash as fits beside it is several times faster than four: two entries of a
    # cell that agree in so much are all but unheard of.
    width = np.uint64(max(1, int(cell.max(initial=0)).bit_length()))
    packed = cell.astype(np.uint64) << (np.uint64(64) - width) | key >> width
    order: Array = np.argsort(packed)
    if (np.diff(packed[order]) == 0).any():
        order = np.lexsort((events.position, events.row, key, cell))
    return order


def band_cells(group: Array, value: Array, largest: Array) -> Array:
    """group · N_BANDS + band of each entry, the bands counted down from the group's maximum."""
    cells: Array = group * N_BANDS + np.minimum(octave(largest)[group] - octave(value), N_BANDS - 1)
    return cells


def likely(cell: Array, key: Array) -> Array:
    """bool: whether an entry may be among its cell's BAND smallest hashes; all that are, may.

    Of n uniform 64-bit hashes, 8 lie under (32 / n) · 2^64 but for one case in millions; where they do not, all of the
    cell's may, so the choice stays exact.
    """
    n_cell = np.bincount(cell)
    limit = np.full(len(n_cell), ALL)
    many = n_cell > 32
    limit[many] = (32.0 / n_cell[many] * 2.0**64).astype(np.uint64)
    under = key <= limit[cell]
    enough = np.bincount(cell[under], minlength=len(n_cell)) >= np.minimum(n_cell, BAND)
    found: Array = under | ~enough[cell]
    return found


def octave(value: Array) -> Array:
    """⌊log2⌋ of float16 values ≥ 0, subnormal ones too; of 0 something below all others."""
    octaves: Array = _OCTAVE[value.view(np.uint16)]
    return octaves


def _of_float16(work: Callable[[Array], Array]) -> Array:
    """int64: of every float16 ≥ 0 by its bits, as that is looked up several times faster than it is worked out."""
    value = np.arange(1 << 15, dtype=np.uint16).view(np.float16).astype(np.float64)
    return np.asarray(work(np.where(np.isfinite(value), value, 0.0)), dtype=np.int64)


_OCTAVE = _of_float16(lambda value: np.where(value > 0, np.frexp(value)[1] - 1, -64))
_WHOLE = _of_float16(lambda value: np.ldexp(value, FIXED))


def event_hash(seed: int, events: Entries) -> Array:
    """uint64 of (seed, row, position, feature) of each entry."""
    # Events come token by token: what depends on the token alone is mixed once for each.
    first = run_starts(events.row, events.position)
    key = int.from_bytes(hashlib.sha256(f"saevx bands {seed}".encode()).digest()[:8], "big")
    x = np.full(len(first), key, dtype=np.uint64)
    for number in (events.row[first], events.position[first]):
        x = mix(x, number)
    return mix(np.repeat(x, np.diff(np.append(first, len(events.row)))), events.group >> 1)


def mix(x: Array, number: Array) -> Array:
    """One more number in the hash: splitmix64's finaliser (Steele et al. 2014)."""
    mixed = np.asarray(x ^ number.astype(np.uint64), dtype=np.uint64)
    mixed += np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


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


def load(arrays: dict[str, Array]) -> Saved:
    """Back from `save`, for `Running.take`."""
    top, band = (
        Entries(*(arrays[f"{name}_{field}"] for field in Entries._fields)) for name in ("top", "band")
    )
    plain = {name: arrays[name] for name in ("count", "total", "max", "hist_at", "hist_n")}
    return Saved(**plain, top=top, band=band)
