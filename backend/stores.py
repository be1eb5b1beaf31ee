"""The stores of a running server. A finished store never changes, but its folder may be deleted, moved or made again
while it is served: each request looks whether its files are the same; a store that took its place is opened anew."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from fastapi.concurrency import run_in_threadpool

from backend.live.recompute import Recomputed
from precompute.errors import SaevxError
from precompute.store.opening import DATABASE, MANIFEST, Stamp
from precompute.store.reader import Store

log = logging.getLogger(__name__)

RETRY_S = 2.0
"""A store that could not be opened is tried again after so many seconds, or at once when its manifest changes."""


class Watch:
    """Tells at the cost of a few looks at the file system whether the files of a store but its images are still those
    that were opened. A file takes another's place by renaming, which its folder shows: only then is each looked at."""

    def __init__(self, path: Path, stamps: Mapping[str, Stamp | None]) -> None:
        self.files = [(str(path / name), stamp) for name, stamp in stamps.items()]
        folders = {str((path / name).parent) for name in stamps}
        self.looked_at = [str(path / MANIFEST), str(path / DATABASE), *sorted(folders)]
        self.seen: list[Stamp | None] = []

    def unchanged(self) -> bool:
        now = [Stamp.from_file(path) for path in self.looked_at]
        if now != self.seen:
            if None in now or any(Stamp.from_file(path) != stamp for path, stamp in self.files):
                return False
            self.seen = now
        return True


@dataclass(frozen=True)
class OpenStore:
    """A store under the name that `store=` takes."""

    name: str
    path: Path
    store: Store
    recomputed: Recomputed
    """What the live model has computed anew of samples whose events the store has not kept."""
    watch: Watch

    @classmethod
    def at(cls, path: Path, name: str | None = None) -> OpenStore:
        """The store there, under `name` or that of its manifest. Raises SaevxError as `Store.open`."""
        manifest = Stamp.from_file(path / MANIFEST)  # before it is read: what is written later is another one
        store = Store.open(path)
        watch = Watch(path, {MANIFEST: manifest, **store.stamps})
        return cls(name or str(store.manifest["name"]) or path.name, path, store, Recomputed(store), watch)

    def is_current(self) -> bool:
        """Whether it still lies there, and no other store, or part of one, in its place."""
        return self.watch.unchanged()

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.store.manifest

    @property
    def content_id(self) -> str:
        return str(self.manifest["content_id"])


class StoreSlot:
    """The place of one store: what is open there, or in `reason` one sentence why nothing is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.opened: OpenStore | None = None
        self.reason: str | None = None
        self.on_change: Callable[[OpenStore], None] = lambda opened: None
        """Called on the event loop with a store of another content that was opened in place of the last one."""
        self.failed: Stamp | None = None
        """Of the manifest of what could not be opened, and when that was."""
        self.failed_at = 0.0
        self.lock = asyncio.Lock()

    def open(self) -> None:
        """At the start of the server. Never raises."""
        try:
            self.opened = OpenStore.at(self.path)
        except SaevxError as error:
            self.reason = str(error)

    def rename(self, name: str) -> None:
        self.name = name
        if self.opened is not None:
            self.opened = dataclasses.replace(self.opened, name=name)

    async def current(self) -> OpenStore:
        """The store that lies there now; where another took its place, that one, opened anew.

        Raises:
            HTTPException: 503 with the sentence why there is none.
        """
        if self.opened is not None and self.reason is None and self.opened.is_current():
            return self.opened
        async with self.lock:  # one request opens it, whoever else asks waits
            await self._renew()
        if self.reason is not None or self.opened is None:
            raise HTTPException(503, self.reason, {"Retry-After": "5"})
        return self.opened

    async def _renew(self) -> None:
        before, stamp = self.opened, Stamp.from_file(self.path / MANIFEST)
        if before is not None and before.is_current():
            self.reason = None  # it lay elsewhere for a while, or another request has opened it
            return
        if before is not None and stamp is None:
            gone = f"Store {self.name} is no longer at {self.path}"
            self.reason = f"{gone}: bring it back, or start the server without it."
            return
        if self.reason is not None and stamp == self.failed and time.monotonic() - self.failed_at < RETRY_S:
            return
        try:
            self.opened = await run_in_threadpool(OpenStore.at, self.path, self.name)
        except SaevxError as error:
            if self.reason != str(error):
                log.warning("%s", error)
            self.opened, self.reason = None, str(error)
            self.failed, self.failed_at = stamp, time.monotonic()
            return
        self.reason = None
        if before is None or before.content_id != self.opened.content_id:
            log.warning("Store %s was made again at %s: it was opened anew.", self.name, self.path)
            self.on_change(self.opened)


def open_stores(paths: list[Path]) -> list[StoreSlot]:
    """The stores in their order, each under the name in its manifest or, where it cannot be opened, of its folder; a
    second of the same name gets a number.

    Raises:
        SaevxError: none was named, or none can be opened.
    """
    if not paths:
        raise SaevxError("No store was named: give at least one finished store, as in `saevx serve demo/store`.")
    taken: set[str] = set()

    def unused(name: str) -> str:
        numbered = (f"{name or 'store'}{f'-{number}' if number > 1 else ''}" for number in count(1))
        free = next(one for one in numbered if one not in taken)
        taken.add(free)
        return free

    slots = [StoreSlot(path) for path in paths]
    for slot in slots:
        slot.open()
    damaged = [slot for slot in slots if slot.opened is None]
    if len(damaged) == len(slots):
        raise SaevxError(" ".join(str(slot.reason) for slot in slots))
    for slot in [*(slot for slot in slots if slot.opened), *damaged]:  # a damaged one takes no name from another
        slot.rename(unused(slot.opened.name if slot.opened else slot.name))
    return slots
