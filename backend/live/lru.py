"""What the server holds in memory of what it has read and computed: the entries used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Entries up to a limit; those that were not used for longest go first. Safe for several threads.

    Args:
        capacity: sum of the sizes of all entries at most; the newest entry is held in any case.
        size_of: the size of an entry; by default each counts 1.
    """

    def __init__(self, capacity: int, size_of: Callable[[V], int] = lambda _: 1) -> None:
        self.capacity, self.size_of, self.size = capacity, size_of, 0
        self.entries: OrderedDict[K, V] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """The entry, which then counts as used now."""
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
            return self.entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Hold an entry, in place of the one that has this key."""
        with self.lock:
            if key in self.entries:
                self.size -= self.size_of(self.entries.pop(key))
            self.entries[key] = value
            self.size += self.size_of(value)
            while self.size > self.capacity and len(self.entries) > 1:
                self.size -= self.size_of(self.entries.popitem(last=False)[1])
