"""The folder `cooccurrence/`: pairs of features that share samples, as memory-mapped columns.

A table of a database would need an index for each order and each side, four times the pairs themselves; here an order
is one uint32 a pair, and lift and NPMI are computed from the counts when a query needs them (docs/store.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from precompute.store.events import map_array
from precompute.store.schema import COOCCURRENCE_KINDS, IMAGE, TEXT
from precompute.utils.stats import poisson_interval
from precompute.utils.types import Array, Item

FOLDER = "cooccurrence"
COLUMNS = ("b", "support", "shuffled", "by_b", "by_npmi", "by_lift", "by_lift_low")
COUNTS = ("a", "b", "support", "shuffled")
SORTS = ("lift_low", "lift", "npmi", "support")
MIN_LIFT = 1.5
"""Below it a list hides pairs, unless told otherwise: 1 is chance."""
MEASURES = ("support", "lift", "lift_low", "lift_high", "npmi", "lift_shuffled")
SIDES = {"text-image": (TEXT, IMAGE), "text-text": (TEXT, TEXT), "image-image": (IMAGE, IMAGE)}


class PairCounts(NamedTuple):
    """Pairs and their counts, each int64 [p]."""

    a: Array
    """The first feature."""
    b: Array
    """The second feature."""
    support: Array
    """Samples that have both."""
    n_a: Array
    """Samples that have a on its side."""
    n_b: Array
    """Samples that have b on its side."""
    shuffled: Array
    """`support` after one derangement of the first side's samples."""


class PairMeasures(NamedTuple):
    """Pairs and all that follows from their counts, each [p]: the first five as in `PairCounts`."""

    a: Array
    """int64: feature of the first side."""
    b: Array
    """int64: feature of the second side."""
    support: Array
    """int64: samples with both."""
    n_a: Array
    """int64: samples with a on its side."""
    n_b: Array
    """int64: samples with b on its side."""
    lift: Array
    """float64: N · support / (n_a · n_b)."""
    lift_low: Array
    """float64: the lift at the lower end of the exact 95 % Poisson interval of `support`."""
    lift_high: Array
    """float64: at its upper end."""
    npmi: Array
    """float64, −1 to 1."""
    lift_shuffled: Array
    """float64: `lift` of the shuffled samples, the control."""


def npmi(n_ab: Array, n_a: Array, n_b: Array, n: int) -> tuple[Array, Array]:
    """(lift, NPMI), float64 [p]: lift = N·n_ab / (n_a·n_b), NPMI = log(lift) / −log(n_ab / N), 0 when n_ab = N,
    which any two features in every sample have (METHOD *Co-occurrence*).

    Args:
        n_ab, n_a, n_b: int64 [p], samples that have both, a, and b. n: samples looked at.
    """
    lift = n * n_ab / (n_a.astype(np.float64) * n_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(n_ab == n, 0.0, np.log(lift) / -np.log(n_ab / n))
    return lift, value


def measures_of(pairs: PairCounts, n: int) -> PairMeasures:
    """What follows from the counts in `n` samples."""
    a, b, support, n_a, n_b, support_shuffled = pairs
    lift, value = npmi(support, n_a, n_b, n)
    # Many pairs have the same support, and an interval takes longer than to find that.
    distinct_support, of_pair = np.unique(support, return_inverse=True)
    low, high = (end[of_pair] * n / (n_a.astype(np.float64) * n_b) for end in poisson_interval(distinct_support))
    return PairMeasures(a, b, support, n_a, n_b, lift, low, high, value, npmi(support_shuffled, n_a, n_b, n)[0])


class FeaturePairs:
    """The pairs of one kind.

    Args:
        start: int64 [F+1]: the pairs of an `a` lie together, ascending by b.
        table: uint32 [7, P], a row for each of `COLUMNS`.
        n_mf: uint32 [2, F], samples in whose set the feature is, by modality.
        n: samples looked at.
    """

    def __init__(self, kind: str, start: Array, table: Array, n_mf: Array, n: int) -> None:
        self.kind, self.start, self.table, self.n_mf, self.n = kind, start, table, n_mf, n

    @classmethod
    def from_counts(cls, kind: str, columns: Iterable[Array], n_mf: Array, n: int) -> FeaturePairs:
        """Pairs with every order computed.

        Args:
            columns: int [p] of each of `COUNTS`, ascending by (a, b).
        """
        a, b, support, support_shuffled = columns
        table = np.zeros((len(COLUMNS), len(a)), np.uint32)
        table[:3] = b, support, support_shuffled
        pairs = cls(kind, np.searchsorted(a, np.arange(n_mf.shape[1] + 1)), table, n_mf, n)
        table[COLUMNS.index("by_b")] = np.argsort(b, kind="stable")
        measures = pairs.measures(np.arange(len(a)))
        for name in ("npmi", "lift", "lift_low"):
            table[COLUMNS.index(f"by_{name}")] = pairs.sorted(measures, name)
        return pairs

    def __len__(self) -> int:
        return int(self.table.shape[1])

    def column(self, name: str) -> Array:
        """uint32 [P]: one of `COLUMNS`."""
        return self.table[COLUMNS.index(name)]

    def counts(self, at: Array) -> PairCounts:
        """The pairs with these numbers, int [p]."""
        is_long = len(at) * 10 > len(self)
        a = self.first[at].astype(np.int64) if is_long else np.searchsorted(self.start, at, "right") - 1
        b, support, support_shuffled = (self.column(name)[at].astype(np.int64) for name in COLUMNS[:3])
        first, second_side = SIDES[self.kind]
        n_a, n_b = self.n_mf[first][a].astype(np.int64), self.n_mf[second_side][b].astype(np.int64)
        return PairCounts(a, b, support, n_a, n_b, support_shuffled)

    def measures(self, at: Array) -> PairMeasures:
        """As `counts`, with lift and NPMI."""
        return measures_of(self.counts(at), self.n)

    @staticmethod
    def sorted(pairs: PairMeasures, sort: str) -> Array:
        """int64 [p], the order of pairs: largest `sort` first, then larger support, then smaller a and b."""
        return np.lexsort((pairs.b, pairs.a, -pairs.support, -getattr(pairs, sort)))

    def of(self, feature: int, side: str) -> Array:
        """int64 [p], the numbers of the pairs that have `feature` on that side, "a" or "b"."""
        if side == "a":
            return np.arange(self.start[feature], self.start[feature + 1])
        by_b = self.column("by_b")
        edges = np.array([feature, feature + 1], np.uint32)  # of another type, the whole column would be copied to it
        low, high = np.searchsorted(self.sorted_b, edges)
        return by_b[low:high].astype(np.int64)

    def numbers_between(self, a: Array, b: Array) -> Array:
        """int64 [p], ascending: the numbers of the pairs of a feature of `a` with one of `b`, both int64 [k]."""
        numbers = []
        for features_a, features_b in ((a, b),) if self.kind == "text-image" else ((a, b), (b, a)):
            at = np.concatenate([self.of(int(feature), "a") for feature in features_a])
            numbers.append(at[np.isin(self.column("b")[at], features_b)])
        return np.unique(np.concatenate(numbers))

    @cached_property
    def first(self) -> Array:
        """uint32 [P]: `a` of each pair."""
        return np.repeat(np.arange(len(self.start) - 1, dtype=np.uint32), np.diff(self.start))

    @cached_property
    def by_support(self) -> Array:
        """int64 [P], the numbers of all pairs, largest support first. Counts sort fast, so no file holds this order."""
        return np.argsort(-self.column("support").astype(np.int64), kind="stable")

    @cached_property
    def sorted_b(self) -> Array:
        """uint32 [P]: `b` in the order `by_b`."""
        return self.column("b")[self.column("by_b")]

    def strong_pairs(self, order: Array, concept: Array, min_lift: float) -> StrongPairs:
        """Those of some pairs whose lift is at least `min_lift`.

        Args:
            order: int [p], numbers of pairs in their order. concept: int64 [F].
        """
        counts = self.counts(order)
        is_strong = npmi(counts.support, counts.n_a, counts.n_b, self.n)[0] >= min_lift
        a, b = concept[counts.a[is_strong]], concept[counts.b[is_strong]]
        if self.kind != "text-image":
            a, b = np.minimum(a, b), np.maximum(a, b)
        two = np.unique(np.where(a == b, -1, a * len(concept) + b), return_inverse=True)[1]
        if (a == b).any():  # −1 comes first
            two -= 1
        weak_support, n_weak = np.unique(counts.support[~is_strong], return_counts=True)
        numbers, support = (column[is_strong].astype(np.int32) for column in (order, counts.support))
        return StrongPairs(numbers, two.astype(np.int32), support, weak_support, np.cumsum(n_weak[::-1])[::-1])


class StrongPairs(NamedTuple):
    """What a list takes its pairs from: those with enough lift, in their order. Three int32 [p], then two int64 [w]."""

    order: Array
    """Numbers of the pairs."""
    two: Array
    """Which two concepts it is a pair of, counted from 0; −1 where both features are of one concept."""
    support: Array
    """As in `PairCounts`."""
    weak: Array
    """The different supports of the pairs left out, rising."""
    n_weak: Array
    """How many of those pairs have at least that support."""

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self)

    def pair_list(self, min_support: int, alike: bool) -> ListedPairs:
        """The pairs that a list shows: of the same two concepts only the first, unless `alike`."""
        is_frequent = self.support >= min_support
        order, two = self.order[is_frequent], self.two[is_frequent]
        n_weak = self.n_weak[np.searchsorted(self.weak, min_support) :]
        n_hidden = {"weak": int(n_weak[0]) if len(n_weak) else 0, "same_concept": 0, "alike": 0}
        if alike:
            return ListedPairs(order, np.zeros(len(order), np.int32), n_hidden)
        differ = two >= 0
        n_hidden["same_concept"] = len(order) - int(differ.sum())
        order, two = order[differ], two[differ]
        n_pairs = np.bincount(two, minlength=1)
        first = np.zeros(len(n_pairs), np.int32)
        # Of several values for one place the last one stays, so the first pair must come last.
        first[two[::-1]] = np.arange(len(two), dtype=np.int32)[::-1]
        first = np.sort(first[n_pairs > 0])
        n_hidden["alike"] = len(order) - len(first)
        return ListedPairs(order[first], (n_pairs[two[first]] - 1).astype(np.int32), n_hidden)


class ListedPairs(NamedTuple):
    """The pairs of a list."""

    order: Array
    """int32 [n]: numbers of pairs."""
    n_alike: Array
    """int32 [n]: further pairs of the same two concepts."""
    hidden: Item
    """As `PairPage.hidden`."""

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return int(self.order.nbytes + self.n_alike.nbytes)


def save(part: Path, pairs: list[FeaturePairs]) -> None:
    """Writes the folder: two files for each kind, and the samples per feature."""
    folder = part / FOLDER
    folder.mkdir(exist_ok=True)
    for kind_pairs in pairs:
        np.save(folder / f"{kind_pairs.kind}.npy", kind_pairs.table)
        np.save(folder / f"{kind_pairs.kind}_start.npy", kind_pairs.start)
    np.save(folder / "n_samples.npy", pairs[0].n_mf)


def load(store: Path, n: int) -> dict[str, FeaturePairs]:
    """Every kind, memory-mapped. Raises StoreUnreadable as `map_array`."""
    folder = store / FOLDER
    n_mf = np.array(map_array(folder / "n_samples.npy"))
    starts = {kind: np.array(map_array(folder / f"{kind}_start.npy")) for kind in COOCCURRENCE_KINDS}
    tables = {kind: map_array(folder / f"{kind}.npy") for kind in COOCCURRENCE_KINDS}
    return {kind: FeaturePairs(kind, starts[kind], table, n_mf, n) for kind, table in tables.items()}


class PairFilters(TypedDict, total=False):
    """Which pairs a list has, as in `GET /cooccurrence` (docs/api.md); each filter may be left out."""

    min_support: int
    """Samples that they share at least."""
    feature: int | None
    """Only pairs with this feature."""
    min_lift: float
    """1.5 where it is left out."""
    alike: bool
    """Also pairs of one family or name, and every pair of the same two, of which otherwise the first is listed."""
    like: tuple[int, int] | None
    """Only pairs of the same two families or names as these two features, every one of them."""
