"""Per-feature, per-modality accumulators of one pass: exact, and mergeable in any order.

They live where the model computes. Counts and sums are integers; top-k and bands are the first entries under a total
order, so any two ways of splitting the events give the same bits. Nothing here loops over tokens or features.

Bands are sampled by a keyed 64-bit mix of (seed, feature, row, position): as reproducible as a
cryptographic hash, at a hundredth of the cost per event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from precompute.tensors import order_of, places, rank_in_run, run_ends, run_starts, sorted_numbers

Array = NDArray[Any]
TOP = 20
N_BANDS, BAND = 4, 8
N_BINS = 256
SHIFT = 7
"""Bin of a float16 = its bits >> 7: 8 bins an octave."""
AT_ONCE = 1 << 20
"""Events sorted at a time."""
FIXED = 24
"""Sums are in units of 2^−24, float16's smallest step, so they are exact."""
LAST_HASH = 2**63 - 1


class Entries(NamedTuple):
    """Single activations; `group` = feature · 2 + modality."""

    group: Tensor
    """int64."""
    value: Tensor
    """float16 in stored units, > 0."""
    row: Tensor
    """int64: number of the sample's row in the data."""
    position: Tensor
    """int32: token of the sample."""

    def take(self, at: Tensor) -> Entries:
        return Entries(self.group[at], self.value[at], self.row[at], self.position[at])


@dataclass(frozen=True)
class Accum:
    """What is kept of any set of events, on the CPU; the histogram [2F, 256] as its few filled cells."""

    count: Tensor
    """int64 [2F]."""
    total: Tensor
    """int64 [2F]: Σ value · 2^24."""
    max: Tensor
    """float16 [2F]."""
    hist_at: Tensor
    """int64, rising."""
    hist_n: Tensor
    """int64."""
    top: Entries
    """At most TOP a group; value falling, then row, then position."""
    band: Entries
    """At most BAND a group and band; by band, hash, row, position."""


class Running:
    """Accumulators that take in events, or other accumulators, in place: the memory they need does not grow with
    either (one dense histogram, and lists of at most a few entries per group).

    Most events can neither be among a group's strongest nor among a band's smallest hashes: a gate per group and a
    limit per cell keep them out before anything is sorted. Both only ever drop what could not have been kept.

    Args:
        device: of the events that it is going to see.
    """

    def __init__(self, n_features: int, seed: int, device: torch.device | str = "cpu") -> None:
        n = 2 * n_features
        self.seed, self.device = seed, torch.device(device)
        self.count, self.total = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(2))
        self.max = torch.zeros(n, dtype=torch.float16, device=device)
        self.hist = torch.zeros(n * N_BINS, dtype=torch.int64, device=device)
        kinds = (torch.int64, torch.float16, torch.int64, torch.int32)
        none = Entries(*(torch.zeros(0, dtype=kind, device=device) for kind in kinds))
        self.top, self.band = [none], [none]
        self.waiting: list[Entries] = []
        """Not yet taken in: batches are small, and a million events together take less time."""
        self.gate = torch.zeros(n, dtype=torch.int16, device=device)
        """Bits of the value that TOP entries of a group reach; 0 while there are fewer."""
        self.limit = torch.full((n * N_BANDS,), LAST_HASH, device=device)
        """Hash of a cell's BAND-th entry, as the bands lay when `limit_octave` was the maximum's."""
        self.limit_octave = torch.full((n,), -64, dtype=torch.int8, device=device)

    def see(self, events: Entries) -> None:
        """Take in events in any order; no token and feature twice in all that is taken in."""
        self.waiting.append(events)
        if sum(len(part.group) for part in self.waiting) >= AT_ONCE:
            self._see_waiting()

    def _see_waiting(self) -> None:
        if self.waiting:
            events, self.waiting = join(self.waiting), []
            for low in range(0, len(events.group), AT_ONCE):
                self._see(Entries(*(column[low : low + AT_ONCE] for column in events)))

    def _see(self, events: Entries) -> None:
        # By group and then by value: whatever is summed over a group lies together, its largest at the end.
        key = sorted_numbers(events.group << 16 | bits_of(events.value))
        group, bits = key >> 16, key & 0xFFFF
        begin = run_starts(group)
        end, here = run_ends(begin, len(key)), group[begin]
        self.count[here] += end - begin
        whole = _table(_whole, self.device)[bits].cumsum(0)[end - 1]
        whole[1:] -= whole[:-1].clone()
        self.total[here] += whole
        self.max[here] = torch.maximum(self.max[here], bits[end - 1].to(torch.int16).view(torch.float16))
        bins = run_starts(key >> SHIFT)
        self.hist[group[bins] * N_BINS + (bits[bins] >> SHIFT)] += run_ends(bins, len(key)) - bins
        full = places(end - begin >= TOP)
        reached = bits[end[full] - TOP].to(torch.int16)
        self.gate[here[full]] = torch.maximum(self.gate[here[full]], reached)
        self.top.append(events.take(places(bits_of(events.value) >= self.gate[events.group])))

        cell, hashed = band_cells(events, self.max), event_hash(self.seed, events)
        moved = self.limit_octave != octave(self.max)
        some = places((hashed <= self.limit[cell]) | moved[events.group])
        self.band.append(events.take(some[likely(cell[some], hashed[some])]))
        self._settle()

    def take(self, other: Accum) -> None:
        """Take in other accumulators of the same features and seed."""
        self._see_waiting()
        top, band = (Entries(*(column.to(self.device) for column in part)) for part in (other.top, other.band))
        if not self.count.any():  # theirs are cut already
            self.top, self.band = [top], [band]
        else:
            self.top.append(top.take(places(bits_of(top.value) >= self.gate[top.group])))
            self.band.append(band)
        self.count += other.count.to(self.device)
        self.total += other.total.to(self.device)
        self.max = torch.maximum(self.max, other.max.to(self.device))
        self.hist[other.hist_at.to(self.device)] += other.hist_n.to(self.device)
        self._settle()

    def _settle(self, waiting: int = 1 << 20) -> None:
        """Cut the lists, once more waits than is kept."""
        if sum(len(part.group) for part in self.top[1:]) > max(waiting, len(self.top[0].group)):
            self._cut_top()
        if sum(len(part.group) for part in self.band[1:]) > max(waiting, len(self.band[0].group)):
            self._cut_band()

    def _cut_top(self) -> None:
        top = join(self.top)
        top = top.take(ranked(top))
        rank = rank_in_run(top.group)
        last = places(rank == TOP - 1)
        self.gate[top.group[last]] = bits_of(top.value[last])
        self.top = [top.take(places(rank < TOP))]

    def _cut_band(self) -> None:
        band = pick_bands(join(self.band), self.max, self.seed)
        cell = band_cells(band, self.max)
        last = places(rank_in_run(cell) == BAND - 1)
        self.limit.fill_(LAST_HASH)
        self.limit[cell[last]] = event_hash(self.seed, band)[last]
        self.limit_octave = octave(self.max)
        self.band = [band]

    def accum(self) -> Accum:
        """What has been taken in."""
        self._see_waiting()
        if len(self.top) > 1:
            self._cut_top()
        if len(self.band) > 1:
            self._cut_band()
        filled = places(self.hist > 0)
        top, band = (Entries(*(column.cpu() for column in part)) for (part,) in (self.top, self.band))
        return Accum(
            self.count.cpu(), self.total.cpu(), self.max.cpu(), filled.cpu(), self.hist[filled].cpu(), top, band
        )  # fmt: skip


def join(parts: Sequence[Entries]) -> Entries:
    return Entries(*(torch.cat(column) for column in zip(*parts, strict=True)))


def ranked(events: Entries) -> Tensor:
    """Order by group, value falling, row, position."""
    place = by_place(events)
    key = events.group[place] << 16 | 0xFFFF - bits_of(events.value)[place].long()
    width = len(place).bit_length()
    if bits_needed(events.group) + 16 + width < 64:
        # Sorting the numbers themselves, the place in their low bits, is several times faster than their order.
        packed = sorted_numbers(key << width | torch.arange(len(place), device=key.device))
        return place[packed & ((1 << width) - 1)]
    return place[key.argsort(stable=True)]


def by_place(events: Entries) -> Tensor:
    """Order by row and position (events of one token in any order)."""
    key = events.row << 31 | events.position
    if bool((key[1:] >= key[:-1]).all()):
        return torch.arange(len(key), device=key.device)
    return key.argsort(stable=True)


def pick_bands(events: Entries, largest: Tensor, seed: int) -> Entries:
    """In each group and band the BAND entries with the smallest hash.

    Args:
        largest: float16 [2F], the maximum that the bands count down from.
    """
    cell, key = band_cells(events, largest), event_hash(seed, events)
    # Only entries among the few smallest of their cell can be kept: drop what is clearly not, then sort the rest.
    some = likely(cell, key)
    order = some[hashed_order(events.take(some), cell[some], key[some])]
    return events.take(order[places(rank_in_run(cell[order]) < BAND)])


def hashed_order(events: Entries, cell: Tensor, key: Tensor) -> Tensor:
    """Order by cell, hash, row, position."""
    # One sort of cell and as much of the hash as fits beside it is several times faster than four: two entries of a
    # cell that agree in so much are all but unheard of.
    width = bits_needed(cell)
    packed = cell << (63 - width) | (key >> (width + 1)) + (1 << (62 - width))
    order = order_of(packed)
    if bool((packed[order[1:]] == packed[order[:-1]]).any()):
        order = by_place(events)
        for column in (key, cell):
            order = order[column[order].argsort(stable=True)]
    return order


def bits_needed(number: Tensor) -> int:
    """Of the largest of numbers ≥ 0; 1 at least."""
    return max(1, int(number.max()).bit_length()) if len(number) else 1


def band_cells(events: Entries, largest: Tensor) -> Tensor:
    """group · N_BANDS + band of each entry, the bands counted down from the group's maximum."""
    depth = octave(largest)[events.group] - octave(events.value)
    return events.group * N_BANDS + depth.clamp_(max=N_BANDS - 1)


def likely(cell: Tensor, key: Tensor) -> Tensor:
    """Places of the entries that may be among their cell's BAND smallest hashes; all that are, may.

    Of n uniform 64-bit hashes, 8 lie under (32 / n) · 2^64 but for one case in millions; where they do not, all of the
    cell's may, so the choice stays exact.
    """
    n_cell = torch.bincount(cell)
    n = n_cell[cell]
    # As numbers less 2^63, like the hashes; of 64 and more, because nothing is won with few.
    under = (n < 64) | (key <= ((32.0 / n.clamp(min=64) - 0.5) * 2.0**64).long())
    enough = torch.bincount(cell[places(under)], minlength=len(n_cell))[cell] >= n.clamp(max=BAND)
    return places(under | ~enough)


def bits_of(value: Tensor) -> Tensor:
    """int16: the bits of float16 values ≥ 0, which rise as they do."""
    return value.view(torch.int16)


def octave(value: Tensor) -> Tensor:
    """int8: ⌊log2⌋ of float16 values ≥ 0, subnormal ones too; of 0 something below all others."""
    return _table(_octave, value.device)[bits_of(value).long()]


def _octave(value: Array) -> Array:
    return np.where(value > 0, np.frexp(value)[1] - 1, -64).astype(np.int8)


def _whole(value: Array) -> Array:
    return np.ldexp(value, FIXED).astype(np.int64)


@cache
def _table(work: Callable[[Array], Array], device: torch.device) -> Tensor:
    """[2^15]: of every float16 ≥ 0 by its bits; to look it up is several times faster than to work it out."""
    value = np.arange(1 << 15, dtype=np.uint16).view(np.float16).astype(np.float64)
    return torch.from_numpy(work(np.where(np.isfinite(value), value, 0.0))).to(device)


def event_hash(seed: int, events: Entries) -> Tensor:
    """int64: (seed, row, position, feature) of each entry as a number of 64 bits, less 2^63."""
    # Events come token by token: what depends on the token alone is mixed once for each.
    first = run_starts(events.row, events.position)
    key = int.from_bytes(hashlib.sha256(f"saevx bands {seed}".encode()).digest()[:8], "big")
    x = torch.full((len(first),), signed(key), device=events.row.device)
    for number in (events.row, events.position):
        x = mix(x, number[first])
    x = x.repeat_interleave(run_ends(first, len(events.row)) - first)
    return mix(x, events.group >> 1).bitwise_xor_(signed(1 << 63))


def mix(x: Tensor, number: Tensor) -> Tensor:
    """One more number in the hash: splitmix64's finaliser (Steele et al. 2014), in int64 that wraps around."""
    mixed = x ^ number
    mixed += signed(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed ^= mixed >> shift & (1 << 64 - shift) - 1  # zeros come in from the left
        mixed *= signed(factor)
    return mixed


def signed(number: int) -> int:
    """The same 64 bits as a number that int64 holds."""
    return number - (number >> 63 << 64)


def tables(accum: Accum) -> dict[str, Array]:
    """As the later steps read it: dense arrays [F, 2, …]; row −1 where there is none."""
    n = len(accum.count) // 2
    hist = torch.zeros(2 * n * N_BINS, dtype=torch.int64)
    hist[accum.hist_at] = accum.hist_n
    found: dict[str, Array] = {
        "count": accum.count.numpy().reshape(n, 2), "total": accum.total.numpy().reshape(n, 2),
        "max": accum.max.numpy().reshape(n, 2), "hist": hist.numpy().reshape(n, 2, N_BINS),
    }  # fmt: skip
    for name, entries, cell, shape in (
        ("top", accum.top, accum.top.group, (TOP,)),
        ("band", accum.band, band_cells(accum.band, accum.max), (N_BANDS, BAND)),
    ):
        at = cell * shape[-1] + rank_in_run(cell)
        for field, missing in (("row", -1), ("position", -1), ("value", 0)):
            column = getattr(entries, field)
            dense = torch.full((n, 2, *shape), missing, dtype=column.dtype)
            dense.view(-1)[at] = column
            found[f"{name}_{'pos' if field == 'position' else field}"] = dense.numpy()
    return found


def save(accum: Accum) -> dict[str, Array]:
    """Flat arrays for a shard's file."""
    found: dict[str, Array] = {name: getattr(accum, name).numpy() for name in _PLAIN}
    for name in ("top", "band"):
        found |= {f"{name}_{field}": column.numpy() for field, column in getattr(accum, name)._asdict().items()}
    return found


def load(arrays: dict[str, Array]) -> Accum:
    """Back from `save`."""
    column = {name: torch.from_numpy(array) for name, array in arrays.items()}
    top, band = (Entries(*(column[f"{name}_{field}"] for field in Entries._fields)) for name in ("top", "band"))
    return Accum(**{name: column[name] for name in _PLAIN}, top=top, band=band)


_PLAIN = ("count", "total", "max", "hist_at", "hist_n")
