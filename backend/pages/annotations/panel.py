"""The panel with what people wrote about one feature or sample."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, NamedTuple

from backend.annotations.database import Entry, UnavailableError
from backend.api.annotations.common import author_name
from backend.links import sample_key
from backend.pages.visit import PageVisit

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


def signature(entry: Entry) -> dict[str, Any]:
    """Number, author and time of a version, as pages show them."""
    return {"version": entry.version, "who": entry.author or "unnamed", "when": when(entry.at)}


def panel(visit: PageVisit, kind: str, key: str | int, fields_sent: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The values of annotations/panel.html.

    Args:
        fields_sent: fields that were sent and not written, because of a conflict.
    """
    book = visit.store.annotations
    entry = book.get(kind, key)
    history, problem = [], book.why_read_only()
    try:
        history = book.history(kind, key)[: MAX_VERSIONS + 1] if entry.version else []
    except UnavailableError as error:
        problem = str(error)
    body = {"label": "", "note": "", "tags": [], "reviewed": False, **(entry.body or {})}
    members = "features" if kind == "feature" else "samples"
    member = int(key) if kind == "feature" else key
    return {
        "kind": kind,
        "key": str(key) if kind == "feature" else sample_key(str(key)),
        **signature(entry),
        "body": body,
        "fields": fields_sent or body,
        "theirs": differences(body, fields_sent) if fields_sent is not None else [],
        "conflict": fields_sent is not None,
        "author": author_name(visit.request),
        "history": changes(history)[:MAX_VERSIONS],
        "undo": history[1].version if len(history) > 1 else 0,
        "problem": problem,
        "tags": list(book.tags("feature") | book.tags("sample"))[:200],
        "lists": [
            (name, title, member in book.body("list", name).get(members, ()))
            for name, title in book.list_titles()[:100]
        ],
    }


def differences(body: Mapping[str, Any], fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field, value that holds) where it is another than was typed."""
    return [(name, in_words(body.get(field))) for field, name in FIELDS.items() if body.get(field) != fields.get(field)]


def in_words(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value) or "nothing"


def changes(history: list[Entry]) -> list[HistoryRow]:
    """Each version with what it changed, the newest first."""
    rows = []
    for i, entry in enumerate(history):
        old_body: Mapping[str, Any] = (history[i + 1].body if i + 1 < len(history) else None) or {}
        new_body: Mapping[str, Any] = entry.body or {}
        parts = [
            f"{name}: {in_words(new_body.get(field))}"
            for field, name in FIELDS.items()
            if (new_body.get(field) or None) != (old_body.get(field) or None)
        ]
        summary = "deleted everything" if entry.body is None else "; ".join(parts) or "nothing that shows here"
        rows.append(HistoryRow(**signature(entry), at=entry.at, what=summary))
    return rows
