"""The panel with what people wrote about one feature or sample."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import Request

from backend.annotations.database import Entry, UnavailableError
from backend.api.annotations.common import author_name
from backend.links import sample_key
from backend.stores import OpenStore

MAX_VERSIONS = 20
FIELDS = {"label": "label", "note": "note", "tags": "tags", "reviewed": "reviewed"}
"""Fields and what the panel calls them."""


class HistoryRow(NamedTuple):
    """A version in the history."""

    version: int
    who: str
    when: str
    at: str
    what: str
    """What it changed."""


def when(at: str) -> str:
    """A time as people read it, in UTC."""
    try:
        return dt.datetime.fromisoformat(at).strftime("%-d %b %Y, %H:%M UTC")
    except ValueError:
        return at


def signature(one: Entry) -> dict[str, Any]:
    """Number, author and time of a version, as pages show them."""
    return {"version": one.version, "who": one.author or "unnamed", "when": when(one.at)}


def panel(
    request: Request, store: OpenStore, kind: str, key: str | int, typed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The values of annotations/panel.html.

    Args:
        typed: fields that were sent and not written, because of a conflict.
    """
    book = store.annotations
    now = book.get(kind, key)
    history, problem = [], book.why_read_only()
    try:
        history = book.history(kind, key)[: MAX_VERSIONS + 1] if now.version else []
    except UnavailableError as error:
        problem = str(error)
    body = {"label": "", "note": "", "tags": [], "reviewed": False, **(now.body or {})}
    members = "features" if kind == "feature" else "samples"
    own = int(key) if kind == "feature" else key
    return {
        "kind": kind,
        "key": str(key) if kind == "feature" else sample_key(str(key)),
        **signature(now),
        "body": body,
        "fields": typed or body,
        "theirs": differences(body, typed) if typed is not None else [],
        "conflict": typed is not None,
        "author": author_name(request),
        "history": changes(history)[:MAX_VERSIONS],
        "undo": history[1].version if len(history) > 1 else 0,
        "problem": problem,
        "tags": list(book.tags("feature") | book.tags("sample"))[:200],
        "lists": [(one.key, (one.body or {}).get("title") or one.key, own in (one.body or {}).get(members, ()))
                  for one in book.entries("list")[:100]],
    }  # fmt: skip


def differences(body: Mapping[str, Any], typed: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field, value that holds) where it is another than was typed."""
    return [(name, in_words(body.get(field))) for field, name in FIELDS.items() if body.get(field) != typed.get(field)]


def in_words(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) or "nothing"


def changes(history: list[Entry]) -> list[HistoryRow]:
    """Each version with what it changed, the newest first."""
    rows = []
    for i, one in enumerate(history):
        old: Mapping[str, Any] = (history[i + 1].body if i + 1 < len(history) else None) or {}
        new: Mapping[str, Any] = one.body or {}
        parts = [
            f"{name}: {in_words(new.get(field))}" for field, name in FIELDS.items()
            if (new.get(field) or None) != (old.get(field) or None)
        ]  # fmt: skip
        what = "deleted everything" if one.body is None else "; ".join(parts) or "nothing that shows here"
        rows.append(HistoryRow(**signature(one), at=one.at, what=what))
    return rows
