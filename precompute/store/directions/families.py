"""`store.families`: features that are near-copies of one another (METHOD, *Directions*)."""

from typing import Any

from sqlalchemy import select

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.core import Core
from precompute.store.features import Features
from precompute.store.lists.keyset import KeysetList, keyset_page
from precompute.store.sql import Page, fetch_plain

SORTS = ("evidence", "n_members", "id")
MAX_MEMBERS = 1000
"""Members of a family that `get` returns, those with most evidence."""
_FAMILY = ("id", "name", "n_members", "evidence")


class Families:
    """Families of at least two features, each numbered and named by its strongest member."""

    def __init__(self, core: Core, features: Features) -> None:
        self._core, self._features = core, features

    def list(self, *, sort: str = "evidence", order: str = "desc", limit: int = 50, cursor: str | None = None) -> Page:
        """One page of families (`GET /families`); those without evidence come last.

        Args:
            sort: "evidence", "n_members" or "id".

        Raises:
            SaevxError: a sort or order that does not exist, or the cursor of another list.
        """
        if sort not in SORTS:
            raise SaevxError(f"Cannot sort families by {sort!r}: use one of {', '.join(SORTS)}.")
        core, c = self._core, s.families.c
        tag = core.list_tag("families", sort=sort, order=order)
        family_list = KeysetList(select(*(c[name] for name in _FAMILY)), c[sort], c.id, [], tag, core.n_features, None)
        rows, total, next_cursor = keyset_page(core.engine, family_list, order=order, limit=limit, cursor=cursor)
        return Page([dict(r._mapping) for r in rows], total, next_cursor)

    def get(self, family: int) -> dict[str, Any]:
        """One family with its `members`, rows as `features.list` gives them, the strongest first
        (`GET /families/{id}`).

        Raises:
            SaevxError: no such family.
        """
        columns = ", ".join(_FAMILY)
        rows = fetch_plain(self._core.engine, f"SELECT {columns} FROM families WHERE id = ?", (int(family),))
        if not rows:
            raise SaevxError(f"There is no family {family}: a family has the number of its strongest feature.")
        item = dict(zip(_FAMILY, rows[0], strict=True))
        members = self._features.list(family=family, sort="evidence", order="desc", limit=MAX_MEMBERS).items
        members.sort(
            key=lambda member: (
                member["evidence"] is None,
                -(member["evidence"] or 0.0),
                -member["max_activation"],
                member["id"],
            )
        )
        return {**item, "members": members}
