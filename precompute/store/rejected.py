"""The reader's questions about rows of the data that are not in the store, and why."""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, case, select

from precompute.data.rejections import KINDS, advice_of, by_frequency
from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.base import StoreBase
from precompute.store.sql import Page, keyset_page, scalars

Item = dict[str, Any]

_KIND: ColumnElement[str] = case(
    *((s.quarantine.c.reason.like(pattern), kind.name) for kind in KINDS for pattern in kind.patterns)
).label("kind")


class RejectedQueries(StoreBase):
    """Answers about rejected rows."""

    @cached_property
    def rejected_counts(self) -> dict[str, int]:
        """Rows by kind of reason, the most frequent first."""
        return by_frequency(Counter(scalars(self.engine, select(_KIND))))

    @cached_property
    def rejected_kinds(self) -> list[Item]:
        """Each kind of reason with its number of rows, in words, and what to do about it."""
        column = self.manifest.get("options", {}).get("id_column")
        return [
            {"kind": kind.name, "count": n, "sentence": kind.sentence(n), "advice": advice_of(kind, column)}
            for name, n in self.rejected_counts.items()
            for kind in KINDS
            if kind.name == name
        ]

    def rejected(self, *, kind: str | None = None, limit: int = 50, cursor: str | None = None) -> Page:
        """One page of the rejected rows, in the data's order; `kind` keeps those of one kind of reason."""
        if kind is not None and kind not in {one.name for one in KINDS}:
            raise SaevxError(f"Unknown kind of reason {kind!r}: use one of {', '.join(one.name for one in KINDS)}.")
        c, counts = s.quarantine.c, self.rejected_counts
        n = sum(counts.values())
        where, total = ([], n) if kind is None else ([_KIND.element == kind], counts.get(kind, 0))
        rows, total, after = keyset_page(
            self.engine, select(s.quarantine, _KIND), by=c.idx, key=c.idx, order="asc", limit=limit, cursor=cursor,
            tag=self.list_tag("rejected", kind=kind), where=where, n=n, total=total,
        )  # fmt: skip
        return Page([{"row": r.idx, "id": r.sample_id, "reason": r.reason, "kind": r.kind} for r in rows], total, after)
