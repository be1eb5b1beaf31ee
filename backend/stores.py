"""The stores of a running server and what lives as long as it does.

A finished store never changes, but its folder may be deleted, moved or replaced while the server runs. Each request
checks whether the files are still the same; if another store took the place, that store is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool

from backend.annotations.book import Annotations
from backend.annotations.carry import sketch
from backend.annotations.database import Database, default_url
from backend.live.engines import Engine
from backend.live.lru import Lru
from backend.live.model_worker import Live
from backend.live.uploads import UploadedImages
from backend.replies import MAX_PAGE_BYTES, RenderedPage
from backend.settings import Settings
from precompute.errors import SaevxError
from precompute.store.events import SampleEvents
from precompute.store.opening import DATABASE, MANIFEST, Stamp
from precompute.store.reader import Store

if TYPE_CHECKING:
    from backend.live.query import OwnPair, Query, Reading
    from precompute.live.originals import Originals

log = logging.getLogger(__name__)

RETRY_S = 2.0
"""Seconds after which a store that could not be opened is tried again; at once when its manifest changes."""


class Watch:
    """Checks with a few calls to the file system whether the files of a store, except its images, are still those that
    were opened. A file replaces another by renaming, which changes its folder's stamp: only then are all checked."""

    def __init__(self, path: Path, stamps: Mapping[str, Stamp | None]) -> None:
        self.files = [(str(path / name), stamp) for name, stamp in stamps.items()]
        folders = {str((path / name).parent) for name in stamps}
        self.paths = [str(path / MANIFEST), str(path / DATABASE), *sorted(folders)]
        self.last_stamps: list[Stamp | None] = []

    def is_current(self) -> bool:
        stamps = [Stamp.from_file(path) for path in self.paths]
        if stamps != self.last_stamps:
            if None in stamps or any(Stamp.from_file(path) != stamp for path, stamp in self.files):
                return False
            self.last_stamps = stamps
        return True


MAX_CACHED_SAMPLES = 256
"""Samples whose events are cached: hovering over one feature after the other computes a sample once."""
MAX_CACHED_EVENTS = 4_000_000
"""Events cached in all, at 16 bytes each; a sample counts as its share of MAX_CACHED_SAMPLES at least."""
MAX_CACHED_QUERIES = 16
"""Queries that are cached: Back, reload and a patch of the image do not run the model again."""
MAX_CACHED_EXPLANATIONS = 100
"""Answers, their explanations and tests that are cached: each word that one chooses asks the same again."""
QueryKey = tuple[str, str | None, str | None]
"""Words, hash of an uploaded image, sample id."""


class Recomputed:
    """What the live model computed for one store: events of samples, and queries, those used last."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.events: Lru[int, SampleEvents] = Lru(MAX_CACHED_EVENTS, size_in_cache)
        """By row of the store."""
        self.queries: Lru[QueryKey, Query] = Lru(MAX_CACHED_QUERIES)
        self.explanations: Lru[tuple[str | None, str], Any] = Lru(MAX_CACHED_EXPLANATIONS)
        """By hash of an uploaded image and of all that was asked (live/explain.py)."""
        self.readings: Lru[OwnPair, Reading] = Lru(MAX_CACHED_QUERIES)
        self._lock = threading.Lock()
        self._originals: Originals | None = None

    def missing_events(self, row: int) -> SampleEvents | None:
        """The cached events of a sample, but None if the store itself holds them."""
        return None if self.store.events.has(row) else self.events.get(row)

    def forget_image(self, hash: str) -> None:
        """Drop what was computed of an uploaded image."""
        self.queries.drop(lambda key: key[1] == hash)
        self.explanations.drop(lambda key: key[0] == hash)
        self.readings.drop(lambda pair: pair.image == hash)

    def originals(self) -> Originals:
        """The pairs as the model read them in the pass: from the data, not the store's thumbnails."""
        from precompute.live.originals import Originals

        with self._lock:
            self._originals = self._originals or Originals(self.store)
        return self._originals

    def compute(self, row: int, engine: Engine) -> SampleEvents:
        """In the live model's one worker. Raises SaevxError with the reason as a clause."""
        # Another request may have computed it while this one waited.
        return self.events.get_or_make(row, lambda: self.originals().events(row, engine.mllm, engine.sae))


def size_in_cache(events: SampleEvents) -> int:
    """What the events of a sample count of MAX_CACHED_EVENTS."""
    return max(len(events.z_e), MAX_CACHED_EVENTS // MAX_CACHED_SAMPLES)


DatabaseOf = Callable[[Path], Database]


def local_database(store: Path) -> Database:
    """The database of annotations in a file beside the store."""
    return Database(default_url(store))


@dataclass(frozen=True)
class OpenStore:
    """A store under the name that `store=` takes."""

    name: str
    path: Path
    reader: Store
    recomputed: Recomputed
    """Events of samples that the store does not hold, computed by the live model."""
    watch: Watch
    annotations: Annotations
    """What people wrote about it."""
    pages: Lru[str, RenderedPage]
    """The pages rendered last, by validator (deps.page_tag)."""

    @classmethod
    def at(cls, path: Path, name: str | None = None, database_of: DatabaseOf = local_database) -> OpenStore:
        """The store at `path`, under `name` or the name in its manifest. Raises SaevxError as `Store.open`.

        Args:
            database_of: the database of annotations of a store's folder.
        """
        manifest = Stamp.from_file(path / MANIFEST)  # before it is read, so that a manifest written later is noticed
        store = Store.open(path)
        watch = Watch(path, {MANIFEST: manifest, **store.stamps})
        content_id = str(store.manifest["content_id"])
        annotations = Annotations(database_of(path), content_id, partial(sketch, store))
        annotations.refresh()
        pages = Lru[str, RenderedPage](MAX_PAGE_BYTES, lambda page: page.size)
        name = name or str(store.manifest["name"]) or path.name
        return cls(name, path, store, Recomputed(store), watch, annotations, pages)

    def is_current(self) -> bool:
        """Whether it is still there, and not another store or part of one in its place."""
        return self.watch.is_current()

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.reader.manifest

    @property
    def content_id(self) -> str:
        return str(self.manifest["content_id"])

    @property
    def has_images(self) -> bool:
        """Whether any of its samples has an image token; otherwise pages leave out what only images can have."""
        return bool(self.manifest["tokens"]["image"])


class StoreSlot:
    """The place of one store: the open store, or in `reason` one sentence why there is none."""

    def __init__(self, path: Path, database_of: DatabaseOf = local_database) -> None:
        self.path, self.database_of = path, database_of
        self.name = path.name
        self.store: OpenStore | None = None
        self.reason: str | None = None
        self.on_change: Callable[[OpenStore], None] = lambda store: None
        """Called on the event loop with a store of different content that was opened in place of the previous one."""
        self.failed_stamp: Stamp | None = None
        """Of the manifest of a store that could not be opened."""
        self.failed_at = 0.0
        self.lock = asyncio.Lock()

    def open(self) -> None:
        """At the start of the server. Never raises."""
        try:
            self.store = OpenStore.at(self.path, database_of=self.database_of)
        except SaevxError as error:
            self.reason = str(error)

    def rename(self, name: str) -> None:
        self.name = name
        if self.store is not None:
            self.store = dataclasses.replace(self.store, name=name)

    async def current(self) -> OpenStore:
        """The store that is there now, opened first if it replaced the previous one.

        Raises:
            HTTPException: 503 with one sentence why there is none.
        """
        if self.store is not None and self.reason is None and self.store.is_current():
            return self.store
        async with self.lock:  # one request opens it, the others wait
            await self._renew()
        if self.reason is not None or self.store is None:
            raise HTTPException(503, self.reason, {"Retry-After": "5"})
        return self.store

    async def _renew(self) -> None:
        old_store, stamp = self.store, Stamp.from_file(self.path / MANIFEST)
        if old_store is not None and old_store.is_current():
            self.reason = None  # it was moved away for a while, or another request has opened it
            return
        if old_store is not None and stamp is None:
            self.reason = f"Store {self.name} is no longer at {self.path}: put it back, or start the server without it."
            return
        if self.reason is not None and stamp == self.failed_stamp and time.monotonic() - self.failed_at < RETRY_S:
            return
        try:
            self.store = await run_in_threadpool(OpenStore.at, self.path, self.name, self.database_of)
        except SaevxError as error:
            if self.reason != str(error):
                log.warning("%s", error)
            self.store, self.reason = None, str(error)
            self.failed_stamp, self.failed_at = stamp, time.monotonic()
            return
        self.reason = None
        if old_store is None or old_store.content_id != self.store.content_id:
            log.warning("Store %s at %s was replaced by another store, which is now open.", self.name, self.path)
            self.on_change(self.store)


def open_stores(paths: list[Path], database_of: DatabaseOf = local_database) -> list[StoreSlot]:
    """The stores in their order, each under the name in its manifest or, if it cannot be opened, that of its folder; a
    second store of the same name gets a number.

    Args:
        database_of: the database of annotations of each folder.

    Raises:
        SaevxError: there is no path, or no store can be opened.
    """
    if not paths:
        raise SaevxError("No store was named: give at least one finished store, as in `saevx serve demo/store`.")
    names: set[str] = set()

    def free_name(name: str) -> str:
        candidates = (f"{name or 'store'}{f'-{number}' if number > 1 else ''}" for number in count(1))
        unused_name = next(candidate for candidate in candidates if candidate not in names)
        names.add(unused_name)
        return unused_name

    slots = [StoreSlot(path, database_of) for path in paths]
    for slot in slots:
        slot.open()
    damaged_slots = [slot for slot in slots if slot.store is None]
    if len(damaged_slots) == len(slots):
        raise SaevxError(" ".join(str(slot.reason) for slot in slots))
    # Damaged stores come last, so that they never take the name of a good one.
    for slot in [*(slot for slot in slots if slot.store), *damaged_slots]:
        slot.rename(free_name(slot.store.name if slot.store else slot.name))
    return slots


@dataclass(frozen=True)
class State:
    """Everything that lives as long as the server; `app.state.saevx`."""

    settings: Settings
    slots: list[StoreSlot]
    live: Live
    default_name: str
    """Name of the store for requests without `store=`: the first that could be opened when the server started."""
    uploads: UploadedImages

    @property
    def default(self) -> OpenStore:
        return self.stores[self.default_name]

    @property
    def stores(self) -> dict[str, OpenStore]:
        """The stores that could be opened at their last request, by name."""
        return {slot.name: slot.store for slot in self.slots if slot.store and not slot.reason}

    def remove_upload(self, hash: str) -> None:
        """Forget an uploaded image and what was computed of it. Raises HTTPException: 404 if it is not held."""
        self.uploads.remove(hash)
        for store in self.stores.values():
            store.recomputed.forget_image(hash)

    @property
    def unavailable(self) -> dict[str, str]:
        """The other stores, each with one sentence why."""
        return {slot.name: slot.reason for slot in self.slots if slot.reason}

    async def check_stores(self) -> None:
        """Check every store now, so that `stores` and `unavailable` are up to date."""
        for slot in self.slots:
            with contextlib.suppress(HTTPException):
                await slot.current()
