"""`store.rejected`: rows of the data that are not in the store, and why."""

from collections import Counter
from functools import cached_property

from sqlalchemy import ColumnElement, case, select

from precompute.data.rejections import KINDS, advice_of, by_frequency
from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.core import Core
from precompute.store.lists.keyset import KeysetList, keyset_page
from precompute.store.sql import Page, scalars
from precompute.utils.types import Items

_KIND: ColumnElement[str] = case(
    *((s.quarantine.c.reason.like(pattern), kind.name) for kind in KINDS for pattern in kind.patterns)
).label("kind")


class Rejected:
    """The rejected rows of a store's data."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def list(self, *, kind: str | None = None, limit: int = 50, cursor: str | None = None) -> Page:
        """One page of the rejected rows, in the data's order: {row, id, reason, kind}.

        Args:
            kind: only those with this kind of reason.

        Raises:
            SaevxError: no such kind, or the cursor of another list.
        """
        if kind is not None and kind not in {k.name for k in KINDS}:
            raise SaevxError(f"Unknown kind of reason {kind!r}: use one of {', '.join(k.name for k in KINDS)}.")
        c, n = s.quarantine.c, sum(self.counts.values())
        where, total = ([], n) if kind is None else ([_KIND.element == kind], self.counts.get(kind, 0))
        tag = self._core.list_tag("rejected", kind=kind)
        row_list = KeysetList(select(s.quarantine, _KIND), c.idx, c.idx, where, tag, n, total)
        rows, total, next_cursor = keyset_page(self._core.engine, row_list, order="asc", limit=limit, cursor=cursor)
        items = [{"row": r.idx, "id": r.sample_id, "reason": r.reason, "kind": r.kind} for r in rows]
        return Page(items, total, next_cursor)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows by kind of reason, the most frequent first."""
        return by_frequency(Counter(scalars(self._core.engine, select(_KIND))))

    @cached_property
    def kinds(self) -> Items:
        """Each kind of reason with its number of rows, a sentence, and what to do about it."""
        column = self._core.manifest.get("options", {}).get("id_column")
        return [
            {"kind": kind.name, "count": n, "sentence": kind.sentence(n), "advice": advice_of(kind, column)}
            for name, n in self.counts.items()
            for kind in KINDS
            if kind.name == name
        ]
