"""Per-feature, per-modality accumulators of one pass: exact, and mergeable in any order.

They live where the model computes. Counts and sums are integers, strongest samples and bands the first entries under a
total order, and a sample comes whole: any two ways of splitting the samples give the same bits. Nothing here loops over
tokens, samples or features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from precompute.collect.entries import (
    Activations,
    BySample,
    Entries,
    band_cells,
    bits_of,
    entry_hash,
    fixed_point,
    join,
    no_entries,
    octave,
    pick_bands,
    rank_entries,
    sample_hash,
)
from precompute.store.histogram import N_BINS, SHIFT
from precompute.store.schema import BAND, N_BANDS, PLACE_SIDE, TOP
from precompute.utils.ragged import torch_rank_in_run
from precompute.utils.tensors import nonzero_indices
from precompute.utils.types import Array

MAX_PENDING = 1 << 20
"""Candidates that are gathered, or as many as were chosen, before a list is cut again."""
LAST_HASH = 2**63 - 1
N_CELLS = PLACE_SIDE**2


@dataclass(frozen=True)
class Accum:
    """The accumulators of any set of samples, on the CPU; the histogram [2F, 256] as its few filled cells. A group is a
    feature and a modality, feature · 2 + modality."""

    count: Tensor
    """int64 [2F]: active tokens."""
    total: Tensor
    """int64 [2F]: Σ value · 2^24."""
    max: Tensor
    """float16 [2F]."""
    hist_at: Tensor
    """int64, rising: the filled cells, group · 256 + bin."""
    hist_n: Tensor
    """int64: active tokens in each of them."""
    place_at: Tensor
    """int64, rising: the places of images on which features are active, feature · N_CELLS + cell."""
    place_n: Tensor
    """int64: Σ value · 2^24 in each of them."""
    cells: Tensor
    """int64 [N_CELLS]: image tokens in each place."""
    top: Entries
    """At most TOP a group, each a sample by its largest value; value falling, then row."""
    band: Entries
    """At most BAND a group and band, each a sample by its largest value in the band; by band, hash, row."""


class Accumulator:
    """Takes in samples, or other accumulators, in place. Its memory does not grow with their number: it holds one dense
    histogram, and lists of at most a few entries per group.

    Why gate and limit: most samples can be neither among a group's TOP strongest nor among a band's BAND smallest
    hashes, and sorting all of them would take longer than the forward pass. The gate of a group is the value of its
    TOP-th entry so far, the limit of a cell (a group's band) the hash of its BAND-th. Both only get stricter as more
    samples come, so what they drop could never have been chosen, in whatever order the samples come.

    Args:
        device: of the activations that it is going to see.
    """

    def __init__(self, n_features: int, seed: int, device: torch.device | str = "cpu") -> None:
        n = 2 * n_features
        self.seed, self.device = seed, torch.device(device)
        self.count, self.total = (torch.zeros(n, dtype=torch.int64, device=device) for _ in range(2))
        self.max = torch.zeros(n, dtype=torch.float16, device=device)
        self.hist = torch.zeros(n * N_BINS, dtype=torch.int64, device=device)
        # The last column takes in the text, so that no event must be picked out.
        self.place = torch.zeros(n_features * (N_CELLS + 1), dtype=torch.int64, device=device)
        self.cells = torch.zeros(N_CELLS + 1, dtype=torch.int64, device=device)
        self.top, self.band = Candidates(device), Candidates(device)
        self.gate = torch.zeros(n, dtype=torch.int16, device=device)
        """Bits of the value that TOP entries of a group reach; 0 while there are fewer."""
        self.limit = torch.full((n * N_BANDS,), LAST_HASH, device=device)
        """Hash of a cell's BAND-th entry. Bands are counted down from the group's maximum, so a limit holds only as
        long as the maximum is in the octave in which it was when the limit was set, `limit_octave`."""
        self.limit_octave = torch.full((n,), -64, dtype=torch.int8, device=device)

    def update(self, events: Activations, samples: BySample) -> None:
        """Take in samples: batches come in any order, no sample twice.

        Args:
            samples: `by_sample` of the events.
        """
        group, bits = events.group_e, bits_of(events.value_e).long()
        self.count.index_add_(0, group, torch.ones_like(group))
        summand = fixed_point(bits)
        self.total.index_add_(0, group, summand)
        place = events.feature_e * (N_CELLS + 1) + events.cell_t.repeat_interleave(events.n_t)
        self.place.index_add_(0, place, summand)
        self.cells += torch.bincount(events.cell_t, minlength=N_CELLS + 1)
        self.hist.index_add_(0, group * N_BINS + (bits >> SHIFT), torch.ones_like(group))
        groups, value = samples.group[samples.last], bits_of(samples.value[samples.last])
        bits_of(self.max).scatter_reduce_(0, groups, value, "amax")
        self.top.add(samples.entries(samples.last[nonzero_indices(value >= self.gate[groups])]))
        self.band.add(samples.entries(self._band_candidates(samples)))
        self._compact()

    def _band_candidates(self, samples: BySample) -> Tensor:
        """int64: places in `samples` of what may be among a band's smallest hashes."""
        group = samples.group
        top_octave = octave(self.max[group])
        cell = band_cells(group, samples.value, top_octave)
        # Of a sample's octaves that lie in one band, which are neighbours here, the highest.
        is_highest = torch.ones_like(cell, dtype=torch.bool)
        is_highest[:-1] = (cell[1:] != cell[:-1]) | (samples.sample[1:] != samples.sample[:-1])
        hash_s = sample_hash(self.seed, group, samples.sample, samples.row_s)
        return nonzero_indices(is_highest & ((hash_s <= self.limit[cell]) | (top_octave != self.limit_octave[group])))

    def merge(self, other: Accum) -> None:
        """Take in other accumulators, of other samples, of the same features and seed."""
        top, band = (Entries(*(column.to(self.device) for column in part)) for part in (other.top, other.band))
        self.count += other.count.to(self.device)
        self.total += other.total.to(self.device)
        self.max = torch.maximum(self.max, other.max.to(self.device))
        self.hist[other.hist_at.to(self.device)] += other.hist_n.to(self.device)
        place_at = other.place_at.to(self.device)
        self.place[place_at + place_at // N_CELLS] += other.place_n.to(self.device)
        self.cells[:-1] += other.cells.to(self.device)
        self.top.add(top.take(nonzero_indices(bits_of(top.value) >= self.gate[top.group])))
        self.band.add(band)
        self._compact()

    def _compact(self, max_pending: int = MAX_PENDING) -> None:
        """Cut the lists, once more candidates are gathered than were chosen: so each sort is paid for by as many new
        entries, and the work stays linear."""
        if self.top.n > max(max_pending, len(self.top.entries.row)):
            self._cut_top()
        if self.band.n > max(max_pending, len(self.band.entries.row)):
            self._cut_band()

    def _cut_top(self) -> None:
        """Choose the TOP strongest entries of each group, and set `gate` to the weakest of these."""
        top = self.top.all_entries()
        order = rank_entries(top)
        rank = torch_rank_in_run(top.group[order])
        self.top.replace_chosen(top.take(order[nonzero_indices(rank < TOP)]))
        last = order[nonzero_indices(rank == TOP - 1)]
        self.gate[top.group[last]] = bits_of(top.value[last])

    def _cut_band(self) -> None:
        """Choose the BAND entries of each cell with the smallest hashes, and set `limit` to the largest of these."""
        octave_g = octave(self.max)
        band = pick_bands(self.band.all_entries(), octave_g, self.seed)
        self.band.replace_chosen(band)
        cell = band_cells(band.group, band.value, octave_g[band.group])
        last = nonzero_indices(torch_rank_in_run(cell) == BAND - 1)
        self.limit.fill_(LAST_HASH)
        self.limit[cell[last]] = entry_hash(self.seed, band.take(last))
        self.limit_octave = octave_g

    def accum(self) -> Accum:
        """All samples taken in so far."""
        self._cut_top()
        self._cut_band()
        bins = nonzero_indices(self.hist > 0)
        place = self.place.view(-1, N_CELLS + 1)[:, :-1].flatten()
        places = nonzero_indices(place > 0)
        top, band = (Entries(*(column.cpu() for column in lists.entries)) for lists in (self.top, self.band))
        return Accum(
            self.count.cpu(), self.total.cpu(), self.max.cpu(), bins.cpu(), self.hist[bins].cpu(), places.cpu(),
            place[places].cpu(), self.cells[:-1].cpu(), top, band,
        )  # fmt: skip


class Candidates:
    """A list that was cut to the chosen entries, and the candidates that came since."""

    def __init__(self, device: torch.device | str) -> None:
        self.entries = no_entries(device)
        self.parts: list[Entries] = []
        self.n = 0
        """Entries of the parts."""

    def add(self, part: Entries) -> None:
        if len(part.row):
            self.parts.append(part)
            self.n += len(part.row)

    def all_entries(self) -> Entries:
        return join([self.entries, *self.parts])

    def replace_chosen(self, entries: Entries) -> None:
        self.entries, self.parts, self.n = entries, [], 0


def tables(accum: Accum) -> dict[str, Array]:
    """As the later steps read it: dense arrays [F, 2, …], places [F, 7, 7]; row −1 where there is none."""
    n = len(accum.count) // 2
    hist = torch.zeros(2 * n * N_BINS, dtype=torch.int64)
    hist[accum.hist_at] = accum.hist_n
    place = torch.zeros(n * N_CELLS, dtype=torch.int64)
    place[accum.place_at] = accum.place_n
    columns: dict[str, Array] = {
        "count": accum.count.numpy().reshape(n, 2),
        "total": accum.total.numpy().reshape(n, 2),
        "max": accum.max.numpy().reshape(n, 2),
        "hist": hist.numpy().reshape(n, 2, N_BINS),
        "place": place.numpy().reshape(n, PLACE_SIDE, PLACE_SIDE),
        "cells": accum.cells.numpy().reshape(PLACE_SIDE, PLACE_SIDE),
    }
    top, band = accum.top, accum.band
    cells = band_cells(band.group, band.value, octave(accum.max)[band.group])
    for name, entries, cell, shape in (("top", top, top.group, (TOP,)), ("band", band, cells, (N_BANDS, BAND))):
        at = cell * shape[-1] + torch_rank_in_run(cell)
        for field, fill_value in MISSING.items():
            column = getattr(entries, field)
            table = torch.full((n, 2, *shape), fill_value, dtype=column.dtype)
            table.view(-1)[at] = column
            columns[f"{name}_{field}"] = table.numpy()
    return columns


MISSING = {"row": -1, "position": -1, "value": 0, "n_active": 0}
"""Columns of an example, and what stands in them where there is none."""


def save(accum: Accum) -> dict[str, Array]:
    """Flat arrays for a shard's file."""
    flat: dict[str, Array] = {name: getattr(accum, name).numpy() for name in _PLAIN}
    for name in ("top", "band"):
        flat |= {f"{name}_{field}": column.numpy() for field, column in getattr(accum, name)._asdict().items()}
    return flat


def load(arrays: dict[str, Array]) -> Accum:
    """Back from `save`."""
    column = {name: torch.from_numpy(array) for name, array in arrays.items()}
    top, band = (Entries(*(column[f"{name}_{field}"] for field in Entries._fields)) for name in ("top", "band"))
    return Accum(**{name: column[name] for name in _PLAIN}, top=top, band=band)


_PLAIN = ("count", "total", "max", "hist_at", "hist_n", "place_at", "place_n", "cells")
