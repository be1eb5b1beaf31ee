"""What the other workers have in place of the model and of uploaded images: whatever needs one of the two raises
`InFirstWorker`, and `forward.Forward` lets the first worker answer the request."""

import asyncio
from collections.abc import Iterable
from typing import NoReturn

from backend.live.engines import ModelStore
from backend.live.model_worker import Live, Reservation
from backend.live.uploads import UploadedImage, UploadedImages
from backend.schemas.common import LiveStatus
from backend.settings import Settings
from backend.workers.forward import InFirstWorker, look_at_stores
from backend.workers.place import SharedModelState, Worker


class RemoteLive(Live):
    """The model of the first worker, as another worker knows it."""

    def __init__(self, settings: Settings, stores: Iterable[ModelStore], worker: Worker) -> None:
        self._worker, self._shared = worker, SharedModelState(worker)
        self._looks: set[asyncio.Task[None]] = set()
        super().__init__(settings, stores)

    @property
    def waiting(self) -> int:
        return self._shared.read().waiting

    def state_of(self, name: str) -> LiveStatus:
        return self._shared.read().states.get(name) or super().state_of(name)  # loading, or off

    def start(self) -> None:
        """The first worker loads it."""

    def replace(self, store: ModelStore) -> None:
        """Let the first worker see that another store is there."""
        self._announce(store)
        look = asyncio.ensure_future(look_at_stores(self._worker))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    def reserve(self, name: str) -> Reservation:
        raise InFirstWorker


class RemoteUploads(UploadedImages):
    """The images that the first worker holds."""

    def __init__(self) -> None:
        super().__init__(0)

    def add(self, data: bytes, settings: Settings) -> UploadedImage:
        raise InFirstWorker

    def get(self, hash: str) -> NoReturn:
        raise InFirstWorker

    def holds(self, hash: str) -> bool:
        raise InFirstWorker

    def remove(self, hash: str) -> None:
        raise InFirstWorker
