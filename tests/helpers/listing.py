"""Lists of a store, page by page."""

from __future__ import annotations

from typing import Any


def walk(ask: Any, **options: Any) -> list[dict[str, Any]]:
    """All pages of a list."""
    items, cursor = [], None
    while True:
        page = ask(cursor=cursor, **options)
        items += page.items
        if page.next is None:
            assert page.total == len(items)
            return items
        assert page.items
        cursor = page.next
