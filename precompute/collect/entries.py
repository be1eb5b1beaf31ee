"""Entries, which the accumulators keep: a sample in a group (feature and modality), with its strongest token there. How
a batch's activations become entries, and the orders by which examples are chosen.

All tensors stay on the model's device, and nothing loops over tokens, samples or features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from precompute.store.schema import BAND, N_BANDS
from precompute.utils.ragged import torch_rank_in_run, torch_run_ends, torch_run_starts
from precompute.utils.tensors import argsort_distinct, as_int64, mix, nonzero_indices, sorted_numbers
from precompute.utils.types import Array

VALUE_BITS = 15
"""Of a float16 ≥ 0."""
FRACTION_BITS = 24
"""Sums are in units of 2^−24, float16's smallest step, so they are exact."""


class Activations(NamedTuple):
    """Every activation of whole samples, token by token."""

    row_s: Tensor
    """int64: the number of each sample's row in the data."""
    n_t: Tensor
    """int64: activations of each token."""
    sample_t: Tensor
    """int64, rising: which of the samples a token is of."""
    modality_t: Tensor
    """int64."""
    position_t: Tensor
    """int64, rising in a sample: the token's place in it."""
    feature_e: Tensor
    """int64."""
    value_e: Tensor
    """float16 in stored units, > 0."""
    cell_t: Tensor
    """int64: row · PLACE_SIDE + column of an image token's place in its view; PLACE_SIDE² of other tokens."""

    @property
    def group_e(self) -> Tensor:
        """int64: feature · 2 + modality."""
        return self.feature_e * 2 + self.modality_t.repeat_interleave(self.n_t)


class Entries(NamedTuple):
    """Samples in a group, each by one of its tokens."""

    group: Tensor
    """int64: feature · 2 + modality."""
    value: Tensor
    """float16 in stored units, > 0: the token's."""
    row: Tensor
    """int64: number of the sample's row in the data."""
    position: Tensor
    """int32: the token's place in the sample."""
    n_active: Tensor
    """int32: tokens of the sample that are active in this group."""

    def take(self, at: Tensor) -> Entries:
        """The entries at these places, int64."""
        return Entries(*(column[at] for column in self))


class BySample(NamedTuple):
    """Activations by sample: of each sample, group and octave of values the largest, at the first token that has it.

    By sample, then modality, then feature, then octave. What few of them need stands by sample and token.
    """

    group: Tensor
    """int64."""
    value: Tensor
    """float16."""
    n_active: Tensor
    """int32: tokens of the sample that are active in this group."""
    sample: Tensor
    """int64: which of the samples."""
    token: Tensor
    """int64: which of the batch's tokens."""
    last: Tensor
    """int64: the places of each sample's and group's highest octave, that is of the sample's maxima."""
    row_s: Tensor
    """int64: number of each sample's row in the data."""
    position_t: Tensor
    """int64: each token's place in its sample."""

    def entries(self, at: Tensor) -> Entries:
        """Those at these places, int64, as entries."""
        row, position = self.row_s[self.sample[at]], self.position_t[self.token[at]].int()
        return Entries(self.group[at], self.value[at], row, position, self.n_active[at])


def by_sample(events: Activations, n_features: int) -> BySample:
    """The entries of a batch: complete, because no sample continues in another batch."""
    side_t = events.sample_t * 2 + events.modality_t
    key, token = by_place(side_t * n_features, len(events.row_s) * 2 * n_features, events)
    levels = torch_run_starts(key >> 10)
    # Subnormal numbers: the bits of their exponent are all the same.
    if len(subnormal := nonzero_indices((key & (1 << VALUE_BITS) - 1) < 1 << 10)):
        finer = octave_of(key[subnormal] & (1 << VALUE_BITS) - 1)
        levels = torch.cat([levels, subnormal[torch_run_starts(key[subnormal] >> VALUE_BITS, finer)]]).unique()
    at = torch_run_ends(levels, len(key)) - 1
    place, bits, token = key[at] >> VALUE_BITS, (key[at] & (1 << VALUE_BITS) - 1).to(torch.int16), token[at]
    begin = torch_run_starts(place)
    last = torch_run_ends(begin, len(place)) - 1
    n_active = torch.diff(at[last], prepend=at.new_full((1,), -1)).int().repeat_interleave(last + 1 - begin)
    side = side_t[token]
    group = (place - side * n_features) * 2 + (side & 1)
    value = bits.view(torch.float16)
    return BySample(group, value, n_active, side >> 1, token, last, events.row_s, events.position_t)


def by_place(place_t: Tensor, n_places: int, events: Activations) -> tuple[Tensor, Tensor]:
    """Activations in the order of their places, then values, then tokens from the last to the first.

    Args:
        place_t: int64: the place that feature 0 has on each token. n_places: so many there are.

    Returns:
        int64 place · 2^VALUE_BITS + bits of the value; int64 token.
    """
    n = len(place_t)
    width = max(1, n.bit_length())
    shift = VALUE_BITS + width
    if n_places.bit_length() + shift < 64:
        # As one number each, they need no order to be worked out and followed.
        number_t = (place_t << shift) + torch.arange(n, 0, -1, device=place_t.device)
        packed_t = number_t.repeat_interleave(events.n_t)
        packed_t += events.feature_e << shift
        packed_t += bits_of(events.value_e).long() << width
        packed_t = sorted_numbers(packed_t)
        return packed_t >> width, n - (packed_t & (1 << width) - 1)
    token = torch.arange(n, device=place_t.device).repeat_interleave(events.n_t).flip(0)
    key = place_t[token] + events.feature_e.flip(0) << VALUE_BITS | bits_of(events.value_e).flip(0)
    order = key.argsort(stable=True)
    return key[order], token[order]


def join(parts: Sequence[Entries]) -> Entries:
    return Entries(*(torch.cat(column) for column in zip(*parts, strict=True)))


def no_entries(device: torch.device | str) -> Entries:
    kinds = (torch.int64, torch.float16, torch.int64, torch.int32, torch.int32)
    return Entries(*(torch.zeros(0, dtype=kind, device=device) for kind in kinds))


def rank_entries(entries: Entries) -> Tensor:
    """Order by group, value falling, row; no sample twice in a group."""
    width = bits_needed(entries.row)
    key = entries.group << VALUE_BITS | (1 << VALUE_BITS) - 1 - bits_of(entries.value).long()
    if bits_needed(entries.group) + VALUE_BITS + width < 64:
        return argsort_distinct(key << width | entries.row)
    order = entries.row.argsort(stable=True)
    return order[key[order].argsort(stable=True)]


# ---- bands


def pick_bands(entries: Entries, octave_g: Tensor, seed: int) -> Entries:
    """In each group and band the BAND samples with the smallest hash, each by its largest value in the band.

    Args:
        entries: several octaves of a sample may lie in one band.
        octave_g: int8, of the groups' maxima, from which the bands count down.
    """
    cell, key = band_cells(entries.group, entries.value, octave_g[entries.group]), entry_hash(seed, entries)
    order = hashed_order(entries, cell, key)
    order = order[torch_run_starts(cell[order], entries.row[order])]
    return entries.take(order[nonzero_indices(torch_rank_in_run(cell[order]) < BAND)])


def hashed_order(entries: Entries, cell: Tensor, key: Tensor) -> Tensor:
    """Order by cell, hash, row, value falling."""
    # One sort of cell and as much of the hash as fits beside it is several times faster than four.
    width = bits_needed(cell)
    packed_key = cell << (63 - width) | (key >> (width + 1)) + (1 << (62 - width))
    order = argsort_distinct(packed_key)
    begin = torch_run_starts(packed_key[order])
    n = torch_run_ends(begin, len(order)) - begin
    # What agrees in so much is mostly a sample's own octaves in the lowest band.
    at_ties = nonzero_indices((n > 1).repeat_interleave(n))
    subset = order[at_ties]
    for column in (-bits_of(entries.value), entries.row, key, cell):
        subset = subset[column[subset].argsort(stable=True)]
    order[at_ties] = subset
    return order


def band_cells(group: Tensor, value: Tensor, top_octave: Tensor) -> Tensor:
    """int64: group · N_BANDS + band of each value, the bands counted down from the octave of its group's maximum."""
    return group * N_BANDS + (top_octave - octave(value)).clamp_(max=N_BANDS - 1)


def sample_hash(seed: int, group: Tensor, sample: Tensor, row_s: Tensor) -> Tensor:
    """int64: (seed, row, feature) as a number of 64 bits, less 2^63: as reproducible as a cryptographic hash, at a
    hundredth of the cost.

    Args:
        sample: of each group, whose row is in `row_s`.
    """
    key = int.from_bytes(hashlib.sha256(f"saevx bands {seed}".encode()).digest()[:8], "big")
    x_s = mix(torch.full_like(row_s, as_int64(key)), row_s)
    return mix(x_s[sample], group >> 1).bitwise_xor_(as_int64(1 << 63))


def entry_hash(seed: int, entries: Entries) -> Tensor:
    """As `sample_hash`."""
    return sample_hash(seed, entries.group, torch.arange(len(entries.row), device=entries.row.device), entries.row)


# ---- float16 as numbers


def bits_needed(number: Tensor) -> int:
    """Bits of the largest of these numbers ≥ 0; 1 at least."""
    return max(1, int(number.max()).bit_length()) if len(number) else 1


def bits_of(value: Tensor) -> Tensor:
    """int16: the bits of float16 values ≥ 0, which rise as they do."""
    return value.view(torch.int16)


def octave(value: Tensor) -> Tensor:
    """int8: ⌊log2⌋ of float16 values ≥ 0, subnormal ones too; for 0 a number below all others."""
    return octave_of(bits_of(value).long())


def octave_of(bits: Tensor) -> Tensor:
    """As `octave`, of values by their bits, int64."""
    return _table(_octave, bits.device)[bits]


def fixed_point(bits: Tensor) -> Tensor:
    """int64: values in units of 2^−FRACTION_BITS, by their bits, int64."""
    return _table(_fixed_point, bits.device)[bits]


def _octave(value: Array) -> Array:
    return np.where(value > 0, np.frexp(value)[1] - 1, -64).astype(np.int8)


def _fixed_point(value: Array) -> Array:
    return np.ldexp(value, FRACTION_BITS).astype(np.int64)


@cache
def _table(work: Callable[[Array], Array], device: torch.device) -> Tensor:
    """[2^15]: of every float16 ≥ 0 by its bits; a look-up is several times faster than the computation."""
    value = np.arange(1 << VALUE_BITS, dtype=np.uint16).view(np.float16).astype(np.float64)
    return torch.from_numpy(work(np.where(np.isfinite(value), value, 0.0))).to(device)
