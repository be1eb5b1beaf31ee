"""`store.cooccurrence` and the folder `cooccurrence/`: pairs of features that share samples, as memory-mapped columns.

A table of a database would need an index for each order and each side, four times the pairs themselves; here an order
is one uint32 a pair, and lift and NPMI are computed from the counts when a query needs them (docs/store.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.errors import SaevxError
from precompute.store.core import Core, feature_ref
from precompute.store.events import mapped
from precompute.store.schema import COOCCURRENCE_KINDS, IMAGE, MODALITIES, TEXT
from precompute.store.sql import Page, encode_cursor, page_start
from precompute.utils.types import Array

Item = dict[str, Any]
Items = list[Item]

FOLDER = "cooccurrence"
COLUMNS = ("b", "support", "shuffled", "by_b", "by_npmi", "by_lift")
COUNTED = ("a", "b", "support", "shuffled")
SORTS = ("npmi", "lift", "support")
SIDES = {"text-image": (TEXT, IMAGE), "text-text": (TEXT, TEXT), "image-image": (IMAGE, IMAGE)}
_WALK = 1 << 16


class Counted(NamedTuple):
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


class Measured(NamedTuple):
    """Pairs and all that follows from their counts, each [p]: the first five as in `Counted`."""

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
    npmi: Array
    """float64, −1 to 1."""
    lift_shuffled: Array
    """float64: `lift` of the shuffled samples, the control."""


def npmi(n_ab: Array, n_a: Array, n_b: Array, n: int) -> tuple[Array, Array]:
    """(lift, NPMI), float64 [p]: lift = N·n_ab / (n_a·n_b), NPMI = log(lift) / −log(n_ab / N), 1 when n_ab = N
    (METHOD *Co-occurrence*).

    Args:
        n_ab, n_a, n_b: int64 [p], samples that have both, a, and b. n: samples looked at.
    """
    lift = n * n_ab / (n_a.astype(np.float64) * n_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(n_ab == n, 1.0, np.log(lift) / -np.log(n_ab / n))
    return lift, value


def measured(pairs: Counted, n: int) -> Measured:
    """What follows from the counts in `n` samples."""
    a, b, support, n_a, n_b, shuffled = pairs
    lift, value = npmi(support, n_a, n_b, n)
    return Measured(a, b, support, n_a, n_b, lift, value, npmi(shuffled, n_a, n_b, n)[0])


class Pairs:
    """The pairs of one kind.

    Args:
        start: int64 [F+1]: the pairs of an `a` lie together, ascending by b.
        table: uint32 [6, P], a row for each of `COLUMNS`.
        n_mf: uint32 [2, F], samples in whose set the feature is, by modality.
        n: samples looked at.
    """

    def __init__(self, kind: str, start: Array, table: Array, n_mf: Array, n: int) -> None:
        self.kind, self.start, self.table, self.n_mf, self.n = kind, start, table, n_mf, n

    @classmethod
    def from_counts(cls, kind: str, counted: Iterable[Array], n_mf: Array, n: int) -> Pairs:
        """Pairs with every order computed.

        Args:
            counted: int [p] of each of `COUNTED`, ascending by (a, b).
        """
        a, b, support, shuffled = counted
        table = np.zeros((len(COLUMNS), len(a)), np.uint32)
        table[:3] = b, support, shuffled
        pairs = cls(kind, np.searchsorted(a, np.arange(n_mf.shape[1] + 1)), table, n_mf, n)
        table[COLUMNS.index("by_b")] = np.argsort(b, kind="stable")
        measured = pairs.measured(np.arange(len(a)))
        for name in ("npmi", "lift"):
            table[COLUMNS.index(f"by_{name}")] = pairs.sorted(measured, name)
        return pairs

    def __len__(self) -> int:
        return int(self.table.shape[1])

    def column(self, name: str) -> Array:
        """uint32 [P]: one of `COLUMNS`."""
        column: Array = self.table[COLUMNS.index(name)]
        return column

    def counted(self, at: Array) -> Counted:
        """The pairs with these numbers, int [p]."""
        a = np.searchsorted(self.start, at, "right") - 1
        b, support, shuffled = (self.column(name)[at].astype(np.int64) for name in COLUMNS[:3])
        first, second = SIDES[self.kind]
        n_a, n_b = self.n_mf[first][a].astype(np.int64), self.n_mf[second][b].astype(np.int64)
        return Counted(a, b, support, n_a, n_b, shuffled)

    def measured(self, at: Array) -> Measured:
        """As `counted`, with lift and NPMI."""
        return measured(self.counted(at), self.n)

    @staticmethod
    def sorted(pairs: Measured, sort: str) -> Array:
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

    @cached_property
    def by_support(self) -> Array:
        """int64 [P], the numbers of all pairs, largest support first. Counts sort fast, so no file holds this order."""
        return np.argsort(-self.column("support").astype(np.int64), kind="stable")

    @cached_property
    def sorted_b(self) -> Array:
        """uint32 [P]: `b` in the order `by_b`."""
        b: Array = self.column("b")[self.column("by_b")]
        return b

    def page(self, sort: str, min_support: int, start: int, limit: int) -> tuple[Array, int]:
        """One page of the pairs with that support: the numbers, int64 [≤ limit], of those at start…start+limit−1 in the
        order, and how many pairs have the support.

        The order is walked block by block until the page is full, so that a deep filter does not sort all pairs."""
        support = self.column("support")
        order = self.by_support if sort == "support" else self.column(f"by_{sort}")
        total = int(np.count_nonzero(support >= max(min_support, 0)))
        blocks: list[Array] = []
        passed, end = 0, min(start + limit, total)
        for low in range(0, len(order), _WALK):
            if passed >= end:
                break
            block = order[low : low + _WALK]
            block = block[support[block] >= max(min_support, 0)]
            blocks.append(block[max(0, start - passed) : max(0, end - passed)])
            passed += len(block)
        return (np.concatenate(blocks) if blocks else np.zeros(0, np.uint32)).astype(np.int64), total


def save(part: Path, pairs: list[Pairs]) -> None:
    """Writes the folder: two files for each kind, and the samples per feature."""
    folder = part / FOLDER
    folder.mkdir(exist_ok=True)
    for one in pairs:
        np.save(folder / f"{one.kind}.npy", one.table)
        np.save(folder / f"{one.kind}_start.npy", one.start)
    np.save(folder / "n_samples.npy", pairs[0].n_mf)


def load(store: Path, n: int) -> dict[str, Pairs]:
    """Every kind, memory-mapped. Raises StoreUnreadable as `mapped`."""
    folder = store / FOLDER
    n_mf = np.array(mapped(folder / "n_samples.npy"))
    starts = {kind: np.array(mapped(folder / f"{kind}_start.npy")) for kind in COOCCURRENCE_KINDS}
    return {kind: Pairs(kind, starts[kind], mapped(folder / f"{kind}.npy"), n_mf, n) for kind in COOCCURRENCE_KINDS}


class Cooccurrence:
    """Features that share samples: of each feature its strongest partners."""

    def __init__(self, core: Core) -> None:
        self._core = core

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        """The stored pairs by kind, `text-image`, `text-text` and `image-image`, as arrays."""
        return load(self._core.path, int(self._core.manifest["cooccurrence"]["n_samples"]))

    def list(
        self, *, kind: str = "text-image", sort: str = "npmi", min_support: int = 1,
        feature: int | None = None, limit: int = 50, cursor: str | None = None,
    ) -> Page:  # fmt: skip
        """One page of the strongest pairs (`GET /cooccurrence`).

        Args:
            kind: "text-image" (a on text, b on the image), "text-text" or "image-image".
            sort: "npmi", "lift" or "support", the largest first.
            min_support: only pairs that share so many samples.
            feature: only pairs with this feature.

        Raises:
            SaevxError: a kind or sort that does not exist, or the cursor of another list.
        """
        if sort not in SORTS:
            raise SaevxError(f"Cannot sort co-occurrence by {sort!r}: use npmi, lift or support.")
        if kind not in COOCCURRENCE_KINDS:
            raise SaevxError(f"Unknown kind {kind!r}: use one of {', '.join(COOCCURRENCE_KINDS)}.")
        core, pairs = self._core, self.pairs[kind]
        tag = core.list_tag("cooccurrence", kind=kind, sort=sort, min_support=min_support, feature=feature)
        start = page_start(tag, cursor)
        if feature is None:
            at, total = pairs.page(sort, min_support, start, limit)
        else:
            at = np.union1d(pairs.of(feature, "a"), pairs.of(feature, "b"))
            at = at[pairs.column("support")[at] >= max(min_support, 0)]
            total, at = len(at), at[pairs.sorted(pairs.measured(at), sort)][start : start + limit]
        page = pairs.measured(at)
        refs = core.feature_refs([*page.a.tolist(), *page.b.tolist()])
        rows = zip(*(column.tolist() for column in page), strict=True)
        items = [{"kind": kind, **dict(zip(page._fields, row, strict=True))} for row in rows]
        items = [{**item, "a": feature_ref(refs[item["a"]]), "b": feature_ref(refs[item["b"]])} for item in items]
        return Page(items, total, encode_cursor(tag, None, start + limit) if start + limit < total else None)

    def partners(self, feature: int, limit: int) -> dict[str, Items]:
        """Other features that share samples with this one, strongest NPMI first.

        The feature with itself is in `list`, and in its `same_sample_rate`.

        Returns:
            at most `limit` of `text_to_image`, `image_to_text` and `same` (both on text or both on the image), each
            {id, support, lift, npmi, lift_shuffled, modality}.
        """
        parts = [
            ("text_to_image", "text-image", "a", "image"),
            ("image_to_text", "text-image", "b", "text"),
            *(("same", f"{m}-{m}", side, m) for m in MODALITIES for side in ("a", "b")),
        ]
        # All parts together: with a few pairs each, it is the number of NumPy calls that takes the time.
        counted = [self.pairs[kind].counted(self.pairs[kind].of(feature, side)) for _, kind, side, _ in parts]
        others = [one.b if side == "a" else one.a for one, (_, _, side, _) in zip(counted, parts, strict=True)]
        pairs = measured(Counted(*map(np.concatenate, zip(*counted, strict=True))), self.pairs["text-image"].n)
        other = np.concatenate(others)
        part_of = np.repeat(np.arange(len(parts)), [len(one) for one in others])
        order = np.lexsort((other, -pairs.support, -pairs.npmi, part_of))
        order = order[other[order] != feature]
        ends = np.searchsorted(part_of[order], np.arange(len(parts) + 1))
        columns = {"id": other} | {name: getattr(pairs, name) for name in ("support", "lift", "npmi", "lift_shuffled")}
        groups: dict[str, Items] = {"text_to_image": [], "image_to_text": [], "same": []}
        for i, (group, _, _, modality) in enumerate(parts):
            first = order[ends[i] : min(ends[i + 1], ends[i] + limit)]
            rows = zip(*(column[first].tolist() for column in columns.values()), strict=True)
            groups[group] += [{**dict(zip(columns, row, strict=True)), "modality": modality} for row in rows]
        groups["same"] = sorted(groups["same"], key=lambda x: (-x["npmi"], -x["support"], x["id"]))[:limit]
        return groups
