"""The accumulators against a few plain lines, and against every way of splitting the events."""

import hashlib
from collections import Counter
from typing import NamedTuple, Self

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precompute.collect import accumulators as acc
from precompute.collect import entries as ent
from precompute.collect.accumulators import Accum
from precompute.collect.entries import Activations, by_sample

Array = np.ndarray
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
N_FEATURES, N_ROWS, N_POSITIONS = 5, 60, 30
Token = tuple[float, int, int]
"""Value, row, position."""


class Events(NamedTuple):
    """Single activations, of samples that may be cut apart only as wholes."""

    group: Array
    value: Array
    row: Array
    position: Array

    def of_rows(self, rows: Array) -> Self:
        at = np.flatnonzero(np.isin(self.row, rows))
        return Events(*(column[at] for column in self))


def random_events(n: int, seed: int, *, spread: float = 3.0) -> Events:
    """n distinct (row, position, feature), values of many octaves, ties and subnormals; each token of one modality."""
    rng = np.random.default_rng(seed)
    flat = rng.choice(N_ROWS * N_POSITIONS * N_FEATURES, size=n, replace=False)
    row, rest = np.divmod(flat, N_POSITIONS * N_FEATURES)
    position, feature = np.divmod(rest, N_FEATURES)
    value = np.round(np.exp(rng.normal(0, spread, n)) * 8) / 8 + rng.choice([2.0**-20, 2.0**-24], n)
    return Events(feature * 2 + position % 2, value.clip(2**-24, 60000).astype(np.float16), row, position)


def activations(events: Events, device: str = "cpu") -> Activations:
    """As the pass has them: token by token, samples numbered from 0."""
    events = Events(*(column[np.lexsort((events.group, events.position, events.row))] for column in events))
    row_s, sample = np.unique(events.row, return_inverse=True)
    _, first, n_t = np.unique(sample * 2**32 + events.position, return_index=True, return_counts=True)
    position, modality = events.position[first], events.group[first] % 2
    cell = np.where(modality == 1, cell_of(position), acc.N_CELLS)
    columns = row_s, n_t, sample[first], modality, position, events.group // 2, cell
    *tensors, cell_t = (torch.from_numpy(np.asarray(c, np.int64)).to(device) for c in columns)
    return Activations(*tensors, torch.from_numpy(events.value).to(device), cell_t)


def cell_of(position: Array) -> Array:
    """Where the image token of a position lies: a made-up grid."""
    return position * 5 % acc.N_CELLS


def update(accumulator: acc.Accumulator, events: Events, n_features: int = N_FEATURES) -> None:
    result = activations(events, str(accumulator.device))
    accumulator.update(result, by_sample(result, n_features))


def accumulate(events: Events, seed: int, n_features: int = N_FEATURES, device: str = "cpu") -> Accum:
    accumulator = acc.Accumulator(n_features, seed, device)
    update(accumulator, events, n_features)
    return accumulator.accum()


def merged(parts: list[Accum], seed: int) -> Accum:
    """By way of files, as the pass merges them."""
    accumulator = acc.Accumulator(N_FEATURES, seed)
    for part in parts:
        accumulator.merge(acc.load(acc.save(part)))
    return accumulator.accum()


def naive_hash(seed: int, feature: int, row: int) -> int:
    """splitmix64's finaliser over the two numbers, in Python's own integers."""
    x, whole = int.from_bytes(hashlib.sha256(f"saevx bands {seed}".encode()).digest()[:8], "big"), 2**64 - 1
    for number in (row, feature):
        x = ((x ^ number) + 0x9E3779B97F4A7C15) & whole
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & whole
        x = (x ^ x >> 27) * 0x94D049BB133111EB & whole
        x ^= x >> 31
    return x


def naive(events: Events, seed: int) -> dict[str, Array]:
    """What is kept of a feature and modality, one group at a time."""
    result = acc.tables(acc.Accumulator(N_FEATURES, seed).accum())
    places, cells = result["place"].reshape(N_FEATURES, -1), result["cells"].reshape(-1)
    for _, position in {(r, p) for r, p, g in zip(events.row, events.position, events.group, strict=True) if g % 2}:
        cells[cell_of(position)] += 1
    for group in range(2 * N_FEATURES):
        k, m = divmod(group, 2)
        mine = np.flatnonzero(events.group == group)
        tokens = [(float(events.value[i]), int(events.row[i]), int(events.position[i])) for i in mine]
        if not tokens:
            continue
        result["count"][k, m] = len(tokens)
        result["total"][k, m] = sum(int(v * 2**24) for v, _, _ in tokens)
        result["max"][k, m] = max(v for v, _, _ in tokens)
        for v, _, _ in tokens:
            result["hist"][k, m, int(np.float16(v).view(np.uint16)) // 128] += 1
        for v, _, position in tokens if m == 1 else ():
            places[k, cell_of(position)] += int(v * 2**24)
        n_active = Counter(row for _, row, _ in tokens)

        strongest = sorted(one_a_sample(tokens), key=lambda e: (-e[0], e[1]))[: acc.TOP]
        put(result, "top", (k, m), strongest, n_active)
        highest = int(np.floor(np.log2(max(v for v, _, _ in tokens))))
        for band in range(4):
            inside = one_a_sample([e for e in tokens if min(3, highest - int(np.floor(np.log2(e[0])))) == band])
            inside.sort(key=lambda e, k=k: naive_hash(seed, k, e[1]))
            put(result, "band", (k, m, band), inside[:8], n_active)
    return result


def one_a_sample(tokens: list[Token]) -> list[Token]:
    """Each sample's strongest, the first of those."""
    ordered = sorted(tokens, key=lambda e: (-e[0], e[2]), reverse=True)
    return list({row: (value, row, position) for value, row, position in ordered}.values())


def put(result: dict[str, Array], name: str, at: tuple[int, ...], tokens: list[Token], n_active: Counter[int]) -> None:
    for i, (value, row, position) in enumerate(tokens):
        result[f"{name}_value"][(*at, i)], result[f"{name}_row"][(*at, i)] = value, row
        result[f"{name}_position"][(*at, i)], result[f"{name}_n_active"][(*at, i)] = position, n_active[row]


def same(a: Accum, b: Accum) -> None:
    left, right = acc.save(a), acc.save(b)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
        assert left[name].dtype == right[name].dtype, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("n", "spread"), [(0, 1.0), (1, 1.0), (40, 4.0), (6000, 0.3), (6000, 3.0)])
def test_naive_reference(n: int, spread: float, device: str) -> None:
    events = random_events(n, seed=n, spread=spread)
    result, right = acc.tables(accumulate(events, 3, device=device)), naive(events, 3)
    assert result.keys() == right.keys()
    for name in right:
        np.testing.assert_array_equal(result[name], right[name], err_msg=name)
        assert result[name].dtype == right[name].dtype, name


def test_one_sample_is_one_example() -> None:
    """A picture on all of whose patches a feature fires is one line, with the number of these patches; equal values go
    to the first token, equal samples to the first row."""
    value = np.r_[[8.0, 9.0, 9.0, 8.0], [9.0], [1.0, 5.0]]
    row, position = np.array([7, 7, 7, 7, 3, 5, 5]), np.array([2, 5, 4, 3, 9, 0, 1])
    top = accumulate(Events(np.full(7, 1), value.astype(np.float16), row, position), 0, 1).top
    assert top.row.tolist() == [3, 7, 5] and top.position.tolist() == [9, 4, 1]
    assert top.value.tolist() == [9, 9, 5] and top.n_active.tolist() == [1, 4, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 900), st.integers(0, 2**32 - 1), st.lists(st.integers(0, N_ROWS), max_size=6), st.randoms())
def test_any_split_of_the_samples_in_any_order_is_the_same(n: int, seed: int, cuts: list[int], random: object) -> None:
    events = random_events(n, seed)
    whole = accumulate(events, 1)
    order = np.random.default_rng(seed).permutation(N_ROWS)
    parts = [accumulate(events.of_rows(rows), 1) for rows in np.split(order, sorted(cuts))]
    random.shuffle(parts)  # type: ignore[attr-defined]
    same(merged(parts, 1), whole)
    while len(parts) > 1:  # a tree, any tree, of files
        parts[:2] = [merged(parts[:2], 1)]
        random.shuffle(parts)  # type: ignore[attr-defined]
    same(parts[0], whole)


def test_save_and_load_keep_every_bit() -> None:
    accum = accumulate(random_events(500, 1), 9)
    same(merged([accum], 9), accum)


def test_bands_are_a_fair_sample_that_the_seed_chooses() -> None:
    """Each of many samples is as likely as any other to be shown, however many of its tokens are active."""
    n = 4000
    row = np.repeat(np.arange(n), np.arange(n) % 3 + 1)
    events = Events(np.zeros(len(row), int), np.full(len(row), 1.5, np.float16), row, np.arange(len(row)))
    rows = torch.cat([accumulate(events, seed, 1).band.row for seed in range(200)]).numpy()
    assert len(rows) == 200 * ent.BAND
    counts = np.histogram(rows, bins=10, range=(0, n))[0]
    assert counts.min() > 110 and counts.max() < 210  # 160 each; 5 standard deviations
    assert np.bincount(rows % 3).max() < 650  # 533 each


def test_sums_of_huge_counts_stay_exact() -> None:
    n = 100_000
    events = Events(np.zeros(n, int), np.full(n, 31.984375, np.float16), np.arange(n), np.zeros(n, int))
    assert accumulate(events, 0, 1).total[0] == n * int(31.984375 * 2**24)


@settings(max_examples=60)
@given(
    n=st.integers(1, 900),
    seed=st.integers(0, 99),
    spread=st.floats(0.1, 5),
    at_once=st.integers(1, N_ROWS),
    waiting=st.integers(0, 60),
)
def test_gates_only_drop_what_could_not_have_been_kept(
    n: int, seed: int, spread: float, at_once: int, waiting: int
) -> None:
    """Taken in batch by batch, the lists cut again and again, maxima growing in between."""
    events = random_events(n, seed, spread=spread)
    accumulator = acc.Accumulator(N_FEATURES, seed)
    for low in range(0, N_ROWS, at_once):
        update(accumulator, events.of_rows(np.arange(low, low + at_once)))
        accumulator._compact(waiting)
    result, wanted = acc.tables(accumulator.accum()), naive(events, seed)
    for name, value in wanted.items():
        np.testing.assert_array_equal(result[name], value, err_msg=name)


@given(st.integers(1, 60), st.integers(0, 1000))
def test_numbers_too_large_for_one_sort_give_the_same_order(n: int, seed: int) -> None:
    """A batch of so many samples and features that place, value and token do not fit one number."""
    events = activations(random_events(n, seed))
    huge = by_sample(events, 1 << 40)
    for name, column, other in zip(huge._fields, huge, by_sample(events, N_FEATURES), strict=True):
        assert torch.equal(column, other), name


@given(st.integers(0, 40), st.integers(1, 3), st.integers(1, 4), st.integers(0, 1000))
def test_the_packed_order_is_that_of_all_four_keys(n: int, hashes: int, rows: int, seed: int) -> None:
    """Equal hashes too, which chance alone all but never gives."""
    rng = np.random.default_rng(seed)
    cell, row, bits = rng.integers(0, 3, n), rng.integers(0, rows, n), rng.permutation(n)
    value = torch.from_numpy(bits.astype(np.int16)).view(torch.float16)
    column = torch.zeros(n, dtype=torch.int64)
    subset = ent.Entries(column, value, torch.from_numpy(row), column.int(), column.int())
    for key in (torch.from_numpy(rng.integers(0, hashes, n)), ent.entry_hash(seed, subset)):
        expected = np.lexsort((-bits, row, key, cell))
        np.testing.assert_array_equal(ent.hashed_order(subset, torch.from_numpy(cell), key), expected)


@given(st.integers(0, 60), st.sampled_from([1, 1 << 40]), st.integers(0, 1000))
def test_the_strongest_are_ordered_by_group_value_and_row(n: int, stride: int, seed: int) -> None:
    """Row numbers too large for one number with the others too."""
    rng = np.random.default_rng(seed)
    group, bits, row = rng.integers(0, 3, n), rng.integers(1, 4, n), rng.permutation(n) * stride
    value = torch.from_numpy(bits.astype(np.int16)).view(torch.float16)
    none = torch.zeros(n, dtype=torch.int32)
    entries = ent.Entries(torch.from_numpy(group), value, torch.from_numpy(row), none, none)
    np.testing.assert_array_equal(ent.rank_entries(entries), np.lexsort((row, -bits, group)))
