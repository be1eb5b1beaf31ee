"""The place of one process among those of `saevx serve --workers`: its number, its socket, and the files by which all
of them know the state of the model and whether anybody wrote."""

import threading
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from backend.schemas.common import LiveStatus

FIRST = 1
"""Number of the worker that has the model, and the images that visitors upload."""


class ModelState(BaseModel):
    """What the first worker tells the others of the model."""

    states: dict[str, LiveStatus] = {}
    """By store."""
    waiting: int = 0


@dataclass(frozen=True)
class Worker:
    """One of `n` processes that serve the same stores. `folder` is theirs alone, and goes when they stop."""

    number: int
    n: int
    folder: Path
    secret: str
    """By which a worker knows the requests of another."""

    @property
    def has_model(self) -> bool:
        return self.number == FIRST

    def socket(self, number: int) -> str:
        """The path of a worker's own socket."""
        return str(self.folder / f"{number}.sock")

    @property
    def model_file(self) -> Path:
        """The model's state, as the first worker wrote it last; missing until it is up."""
        return self.folder / "model.json"

    @property
    def written_file(self) -> Path:
        """A byte for each change of annotations."""
        return self.folder / "written"


class SharedModelState:
    """The state of the model, in the file of the workers."""

    def __init__(self, worker: Worker) -> None:
        self.file = worker.model_file
        self._lock = threading.Lock()
        self._last: tuple[bytes, ModelState] = (b"", ModelState())

    def write(self, state: ModelState) -> None:
        """For all workers to read from now on. Called by the first alone, in any of its threads."""
        with self._lock:
            new_file = self.file.with_suffix(".new")
            new_file.write_text(state.model_dump_json(), encoding="utf-8")
            new_file.replace(self.file)

    def read(self) -> ModelState:
        """As it is now; without any store while the first worker starts."""
        try:
            text = self.file.read_bytes()
        except OSError:
            return ModelState()
        last_text, state = self._last
        if text != last_text:
            state = ModelState.model_validate_json(text)
            self._last = (text, state)
        return state


class SharedWrites:
    """Counts the changes of annotations by all workers: each adds a byte to one file, whose length is the count."""

    def __init__(self, worker: Worker) -> None:
        self.file = worker.written_file

    def add(self) -> None:
        """After a change is in the database, and before its writer hears of it."""
        with self.file.open("ab") as file:
            file.write(b".")

    def count(self) -> int:
        try:
            return self.file.stat().st_size
        except OSError:
            return 0
