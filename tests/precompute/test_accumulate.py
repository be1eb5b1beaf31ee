"""The accumulators against a few plain lines, and against every way of splitting the events."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from precompute import accumulate as acc
from precompute.accumulate import Accum, Entries

Array = np.ndarray
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
N_FEATURES = 5


def random_events(n: int, seed: int, *, spread: float = 3.0) -> Entries:
    """n distinct (row, position, feature), values of many octaves with ties and subnormals."""
    rng = np.random.default_rng(seed)
    flat = rng.choice(400 * 30 * N_FEATURES, size=n, replace=False)
    row, rest = np.divmod(flat, 30 * N_FEATURES)
    position, feature = np.divmod(rest, N_FEATURES)
    value = np.round(np.exp(rng.normal(0, spread, n)) * 8) / 8 + 2.0**-20
    group = feature * 2 + rng.integers(0, 2, n) * (position % 2)
    return entries(group, value.clip(2**-24, 60000).astype(np.float16), row, position)


def entries(group: Array, value: Array, row: Array, position: Array) -> Entries:
    """Tensors of the types that the pass has."""
    columns = (group.astype(np.int64), value.astype(np.float16), row.astype(np.int64), position.astype(np.int32))
    return Entries(*map(torch.from_numpy, columns))


def accumulate(events: Entries, seed: int, n_features: int = N_FEATURES, device: str = "cpu") -> Accum:
    running = acc.Running(n_features, seed, device)
    running.see(Entries(*(column.to(device) for column in events)))
    return running.accum()


def merged(parts: list[Accum], seed: int) -> Accum:
    """By way of files, as the pass merges them."""
    running = acc.Running(N_FEATURES, seed)
    for part in parts:
        running.take(acc.load(acc.save(part)))
    return running.accum()


def naive_hash(seed: int, feature: int, row: int, position: int) -> int:
    """splitmix64's finaliser over the three numbers, in Python's own integers."""
    x, whole = int.from_bytes(hashlib.sha256(f"saevx bands {seed}".encode()).digest()[:8], "big"), 2**64 - 1
    for number in (row, position, feature):
        x = ((x ^ number) + 0x9E3779B97F4A7C15) & whole
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & whole
        x = (x ^ x >> 27) * 0x94D049BB133111EB & whole
        x ^= x >> 31
    return x


def naive(events: Entries, seed: int) -> dict[str, np.ndarray]:
    """What is kept of a feature and modality, one group at a time."""
    found = acc.tables(acc.Running(N_FEATURES, seed).accum())
    for group in range(2 * N_FEATURES):
        k, m = divmod(group, 2)
        mine = events.take((events.group == group).nonzero().squeeze(1))
        rows = list(zip(mine.value.tolist(), mine.row.tolist(), mine.position.tolist(), strict=True))
        if not rows:
            continue
        found["count"][k, m] = len(rows)
        found["total"][k, m] = sum(int(v * 2**24) for v, _, _ in rows)
        found["max"][k, m] = max(v for v, _, _ in rows)
        for v, _, _ in rows:
            found["hist"][k, m, int(np.float16(v).view(np.uint16)) // 128] += 1
        for i, (v, r, p) in enumerate(sorted(rows, key=lambda e: (-e[0], e[1], e[2]))[:20]):
            found["top_value"][k, m, i], found["top_row"][k, m, i], found["top_pos"][k, m, i] = v, r, p
        highest = int(np.floor(np.log2(max(v for v, _, _ in rows))))
        for band in range(4):
            inside = [e for e in rows if min(3, highest - int(np.floor(np.log2(e[0])))) == band]
            inside.sort(key=lambda e, k=k: naive_hash(seed, k, e[1], e[2]))
            for i, (v, r, p) in enumerate(inside[:8]):
                found["band_value"][k, m, band, i] = v
                found["band_row"][k, m, band, i], found["band_pos"][k, m, band, i] = r, p
    return found


def same(a: Accum, b: Accum) -> None:
    left, right = acc.save(a), acc.save(b)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
        assert left[name].dtype == right[name].dtype, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("n", "spread"), [(0, 1.0), (1, 1.0), (40, 4.0), (6000, 0.3), (6000, 3.0)])
def test_naive_reference(n: int, spread: float, device: str) -> None:
    events = random_events(n, seed=n, spread=spread)
    found, right = acc.tables(accumulate(events, 3, device=device)), naive(events, 3)
    assert found.keys() == right.keys()
    for name in right:
        np.testing.assert_array_equal(found[name], right[name], err_msg=name)
        assert found[name].dtype == right[name].dtype, name


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 400), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 400), max_size=6), st.randoms()
)
def test_any_split_in_any_order_is_the_same(n: int, seed: int, cuts: list[int], random: object) -> None:
    events = random_events(n, seed)
    whole = accumulate(events, 1)
    order = np.random.default_rng(seed).permutation(n)
    pieces = np.split(order, sorted(min(c, n) for c in cuts))
    parts = [accumulate(events.take(torch.from_numpy(piece)), 1) for piece in pieces]
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
    """Each of many equal entries is as likely as any other to be shown."""
    n = 4000
    events = entries(np.zeros(n), np.full(n, 1.5), np.arange(n), np.zeros(n))
    rows = torch.cat([accumulate(events, seed, 1).band.row for seed in range(200)]).numpy()
    assert len(rows) == 200 * acc.BAND
    counts = np.histogram(rows, bins=10, range=(0, n))[0]
    assert counts.min() > 110 and counts.max() < 210  # 160 each; 5 standard deviations


def test_sums_of_huge_counts_stay_exact() -> None:
    n = 100_000
    events = entries(np.zeros(n), np.full(n, 31.984375), np.arange(n), np.zeros(n))
    assert accumulate(events, 0, 1).total[0] == n * int(31.984375 * 2**24)


@settings(max_examples=60)
@given(
    n=st.integers(1, 900),
    seed=st.integers(0, 99),
    spread=st.floats(0.1, 5),
    at_once=st.integers(1, 200),
    waiting=st.integers(0, 60),
)
def test_gates_only_drop_what_could_not_have_been_kept(
    n: int, seed: int, spread: float, at_once: int, waiting: int
) -> None:
    """Taken in piece by piece, the lists cut again and again, maxima growing in between."""
    events = random_events(n, seed, spread=spread)
    running = acc.Running(N_FEATURES, seed)
    for low in range(0, n, at_once):
        running.see(Entries(*(column[low : low + at_once] for column in events)))
        running._see_waiting()
        running._settle(waiting)
    found, wanted = acc.tables(running.accum()), naive(events, seed)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@given(st.integers(0, 40), st.integers(1, 3), st.integers(0, 1000))
def test_the_packed_order_is_that_of_all_four_keys(n: int, hashes: int, seed: int) -> None:
    """Equal hashes too, which chance alone all but never gives."""
    rng = np.random.default_rng(seed)
    events = random_events(n, seed)
    cell = rng.integers(0, 3, n)
    for key in (torch.from_numpy(rng.integers(0, hashes, n)), acc.event_hash(seed, events)):
        expected = np.lexsort((events.position, events.row, key, cell))
        np.testing.assert_array_equal(acc.hashed_order(events, torch.from_numpy(cell), key), expected)
