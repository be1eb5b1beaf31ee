"""`Annotations`: what people wrote about one store, in memory as it is now; every change goes to the database first.

Lists and searches look at the memory. A change by another process of the same server is seen at once, one by another
program within `FRESH_S`; whether a change conflicts with another is decided in the database alone.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy.exc import IntegrityError

from backend.annotations.database import (
    Database,
    Entry,
    ReadOnlyError,
    UnavailableError,
    append,
    newest_entry,
    time_now,
)
from precompute.errors import SaevxError
from precompute.utils.text import query_words, search_units

KINDS = ("feature", "sample", "list", "filter", "mark")
"""What can be written about, or by itself."""
FRESH_S = 1.0
Change = Callable[[Entry], Mapping[str, Any] | None]


class ConflictError(SaevxError):
    """Somebody else changed it since it was read: `current` is what holds now, `yours` what was to be written."""

    def __init__(self, current: Entry, sent_body: Mapping[str, Any] | None) -> None:
        author = current.author or "Somebody"
        did = "deleted" if current.body is None else "changed"
        super().__init__(f"{author} {did} this after you opened it: look at both versions, then save yours again.")
        self.current, self.yours = current, sent_body


class Annotations:
    """The annotations of one store.

    Args:
        store: content id of the store.
        sketch_of: the decoder direction of a feature as `tables.directions` holds it, for features written about.
    """

    def __init__(self, database: Database, store: str, sketch_of: Callable[[int], bytes] | None = None) -> None:
        self.database, self.store, self._sketch_of = database, store, sketch_of
        self._lock = threading.RLock()
        self._current: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        self._units: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self._sketch_numbers: set[int] = set()
        self._labels: tuple[int, dict[int, str]] = (0, {})
        self._tags: dict[str, tuple[int, dict[str, int]]] = {}
        self._deleted_entries: dict[tuple[str, str], Entry] = {}
        self._read_at = -FRESH_S
        self._n_writes = 0
        self.revision = 0
        """Rises with every change."""
        self.problem: str | None = None
        """One sentence where the database cannot be read now."""

    # ---- as it is now

    def is_stale(self) -> bool:
        return time.monotonic() - self._read_at > FRESH_S or self._n_writes != self._count_writes()

    def _count_writes(self) -> int:
        return self.database.writes.count() if self.database.writes else 0

    def refresh(self) -> None:
        """Read what was written since the last time. Never raises: `problem` says why where it could not."""
        with self._lock:
            self._read_at, self._n_writes = time.monotonic(), self._count_writes()  # before it reads, or one is missed
            try:
                entries = self.database.since(self.store, self.revision) if self.database.exists() else []
            except SaevxError as error:
                self.problem = str(error)
                return
            self.problem = None
            for entry in entries:
                self.revision = max(self.revision, entry.id)
                if entry.kind not in self._current:  # written by a newer version of saevx
                    continue
                self._current[entry.kind].pop(entry.key, None)  # so that the last written is last
                if entry.body is None:
                    self._deleted_entries[entry.kind, entry.key] = entry
                else:
                    self._current[entry.kind][entry.key] = entry

    def why_read_only(self) -> str | None:
        """One sentence where nothing can be written."""
        return self.problem or self.database.why_read_only()

    def entries(self, kind: str) -> list[Entry]:
        """All things of a kind that are not deleted, the last written first."""
        return list(self._current[kind].values())[::-1]  # a copy at once: another thread may refresh meanwhile

    def get(self, kind: str, key: str | int) -> Entry:
        """One thing as it is now; where there is none, with the number of the version that deleted it, or 0."""
        last_entry = self._deleted_entries.get((kind, str(key)), Entry(kind, str(key)))
        return self._current[kind].get(str(key), last_entry)

    def body(self, kind: str, key: str | int) -> Mapping[str, Any]:
        """What holds of one thing, empty where there is none: for pages, without a look at the database."""
        entry = self._current[kind].get(str(key))
        return entry.body or {} if entry else {}

    def list_titles(self) -> list[tuple[str, str]]:
        """Name and title of each list, the last written first; the name stands for a title that is empty."""
        return [(entry.key, (entry.body or {}).get("title") or entry.key) for entry in self.entries("list")]

    @property
    def labels(self) -> Mapping[int, str]:
        """The own label of each feature that has one, by its number."""
        if self._labels[0] != self.revision:
            labels = {
                int(key): entry.body["label"]
                for key, entry in list(self._current["feature"].items())
                if entry.body and entry.body.get("label")
            }
            self._labels = (self.revision, labels)
        return self._labels[1]

    def list_fields(self, kind: str, key: str | int) -> dict[str, Any]:
        """What lists show of a feature or sample: `own_label`, `tags`, `reviewed`; empty where nothing is written."""
        body = self.body(kind, key)
        names = {"label": "own_label", "tags": "tags", "reviewed": "reviewed"}
        return {name: body[field] for field, name in names.items() if body.get(field)}

    def history(self, kind: str, key: str | int) -> list[Entry]:
        """Every version, the newest first. Raises UnavailableError."""
        return self.database.history(self.store, kind, str(key)) if self.database.exists() else []

    def tags(self, kind: str) -> dict[str, int]:
        """Each tag of features or samples with their number, the most frequent first."""
        if self._tags.get(kind, (-1,))[0] != self.revision:
            entries = list(self._current[kind].values())
            counts = Counter(tag for entry in entries for tag in (entry.body or {}).get("tags", ()))
            by_count = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0].casefold())))
            self._tags[kind] = (self.revision, by_count)
        return self._tags[kind][1]

    def keys(self, kind: str, *, tag: str | None = None, reviewed: bool | None = None) -> list[str]:
        """Keys of the features or samples that have the tag, whatever its case, and are reviewed."""
        return [
            key
            for key, entry in list(self._current[kind].items())
            if entry.body
            and (tag is None or tag.casefold() in (own_tag.casefold() for own_tag in entry.body.get("tags", ())))
            and (reviewed is None or bool(entry.body.get("reviewed")) == reviewed)
        ]

    def search(self, kind: str, q: str) -> list[str]:
        """Keys of the features or samples whose label, note or tags together have all the words of `q`, the last one
        also as a beginning."""
        words = query_words(q)
        return [key for key in list(self._current[kind]) if words and self._has(kind, key, words)]

    def _has(self, kind: str, key: str, words: list[list[list[str]]]) -> bool:
        entry = self._current[kind].get(key)
        if entry is None or not entry.body:
            return False
        memo = self._units.get((kind, key))
        if memo is None or memo[0] != entry.id:
            texts = [str(entry.body.get("label", "")), str(entry.body.get("note", "")), *entry.body.get("tags", ())]
            memo = self._units[kind, key] = (entry.id, [unit for text in texts for unit in [*search_units(text), ""]])
        units = memo[1]
        return all(
            any(_contains(units, string, is_last) for string in word)
            for word, is_last in zip(words, [False] * (len(words) - 1) + [True], strict=True)
        )

    # ---- changes

    def put(
        self, kind: str, key: str | int, body: Mapping[str, Any] | None, *, author: str, version: int | None
    ) -> Entry:
        """Write a new version; `body` None deletes. Nothing is written where nothing changes.

        Args:
            version: the one that the writer has seen, 0 for none; None writes whatever holds.

        Raises:
            ConflictError: another one holds by now.
            UnavailableError: the database cannot be written.
        """
        return self.change(kind, key, lambda current: body, author=author, version=version)

    def change(self, kind: str, key: str | int, make: Change, *, author: str, version: int | None = None) -> Entry:
        """As `put`, with the new body made from what holds, in the same transaction."""
        self._check_writable()
        for _ in range(20):
            try:
                with self.database.writing() as conn:
                    current = newest_entry(conn, self.store, kind, str(key))
                    body = make(current)
                    if body == current.body:
                        return current
                    if version is not None and current.version != version:
                        raise ConflictError(current, body)
                    entry = Entry(kind, str(key), current.version + 1, author, time_now(), body)
                    append(conn, self.store, [entry])
                break
            except IntegrityError:  # another process wrote this version first
                continue
        else:
            raise UnavailableError("Too many people write this at once: save again.")
        self._tell_others()
        self.refresh()
        self._remember_directions([entry])
        return self.get(kind, key) if body is not None else entry

    def write_all(self, entries: Iterable[Entry]) -> int:
        """Write the bodies of these, each as the next version of its thing, with its author and time; those that hold
        already are left out. Returns how many were written."""
        self._check_writable()
        versions: list[Entry] = []
        with self.database.writing() as conn:
            for e in entries:
                current = newest_entry(conn, self.store, e.kind, e.key)
                if current.body != e.body:
                    versions.append(Entry(e.kind, e.key, current.version + 1, e.author, e.at or time_now(), e.body))
                    append(conn, self.store, versions[-1:])
        self._tell_others()
        self.refresh()
        self._remember_directions(versions)
        return len(versions)

    def _tell_others(self) -> None:
        if self.database.writes:
            self.database.writes.add()

    def _check_writable(self) -> None:
        if reason := self.database.why_read_only():
            raise ReadOnlyError(reason)

    def _remember_directions(self, entries: Sequence[Entry]) -> None:
        """Keep the decoder directions of the features that are named, so that they are known in a later store."""
        if self._sketch_of is None:
            return
        numbers = {number for entry in entries for number in features_of(entry)}
        if new_ones := numbers - self._sketch_numbers:
            with contextlib.suppress(SaevxError):  # what was written is written, even if the store is gone by now
                self.database.remember(self.store, {number: self._sketch_of(number) for number in new_ones})
                self._sketch_numbers |= new_ones


def features_of(entry: Entry) -> list[int]:
    """The features that something is written about."""
    if entry.kind == "feature":
        return [int(entry.key)]
    return [int(number) for number in (entry.body or {}).get("features", ())] if entry.kind == "list" else []


def _contains(units: list[str], string: Sequence[str], prefix: bool) -> bool:
    """Whether these units stand one after the other, the last as a beginning with `prefix`."""
    n = len(string)
    for at in range(len(units) - n + 1):
        part = units[at : at + n]
        if part == list(string) or (prefix and part[:-1] == list(string[:-1]) and part[-1].startswith(string[-1])):
            return True
    return False
