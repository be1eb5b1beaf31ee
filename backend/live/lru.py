"""What the server holds in memory of what it has read and computed: the entries used last."""

import hashlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache
from pydantic import BaseModel

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Entries up to a limit; those that were not used for longest go first. Safe for several threads.

    Args:
        capacity: sum of the sizes of all entries at most; the newest entry is held in any case.
        size_of: the size of an entry; by default each counts 1.
    """

    def __init__(self, capacity: int, size_of: Callable[[V], int] = lambda _: 1) -> None:
        size_limit = max(capacity, 1)
        # `LRUCache` refuses an entry that is larger than the whole: it counts as that, so that it is held alone.
        self.entries: LRUCache[K, V] = LRUCache(size_limit, getsizeof=lambda value: min(size_of(value), size_limit))
        self.lock = threading.Lock()
        self.n_puts = 0
        """How often an entry was put: whatever was made of the entries before is old once it has grown."""

    def get(self, key: K) -> V | None:
        """The entry, which then counts as used now."""
        with self.lock:
            return self.entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Hold an entry, in place of the one that has this key."""
        with self.lock:
            self.entries.pop(key, None)  # or others might go for the sum of both sizes
            self.entries[key] = value
            self.n_puts += 1

    def get_or_make(self, key: K, make: Callable[[], V]) -> V:
        """The entry; where there is none, what `make` returns, which is then held."""
        if (value := self.get(key)) is None:
            value = make()
            self.put(key, value)
        return value

    @property
    def size(self) -> int:
        """Sum of the sizes of all entries."""
        with self.lock:
            return int(self.entries.currsize)

    def drop(self, is_unwanted: Callable[[K], bool]) -> None:
        """Hold the entries of these keys no longer."""
        with self.lock:
            for key in [key for key in self.entries if is_unwanted(key)]:
                del self.entries[key]


def request_key(body: BaseModel, kind: str = "") -> tuple[str | None, str]:
    """The place in a cache of the reply to a request, or of `kind` it needs; first the hash of its uploaded image."""
    text = f"{kind} {type(body).__name__} {body.model_dump_json()}"
    return getattr(body, "image_hash", None), hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
