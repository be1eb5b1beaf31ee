"""`store.hallucination`: which features tell right answers from hallucinated ones, from STORE.hallucination.json."""

from typing import NamedTuple

from precompute.store.companion_files import HALLUCINATION, companion_path, read_companion
from precompute.store.core import Core
from precompute.store.opening import Stamp
from precompute.utils.types import Item


class Content(NamedTuple):
    """What the file held when it was read last."""

    stamp: Stamp | None
    item: Item | None
    note: str | None
    """Why a file that is there is not shown."""
    separation: dict[int, float]


class Hallucination:
    """What `saevx experiment hallucination --attach` measured. The file may come or go while the store is open: it is
    read again when it has changed."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._path = companion_path(core.path, HALLUCINATION)
        self._content = Content(None, None, None, {})

    @property
    def stamp(self) -> Stamp | None:
        """Of the file; None where there is none."""
        return Stamp.from_file(self._path)

    def read(self) -> tuple[Item | None, str | None]:
        """The file's content, or None; and why a file that is there is not shown, in a sentence."""
        content = self._current()
        return content.item, content.note

    @property
    def separation(self) -> dict[int, float]:
        """id → P(active | right answer) − P(active | hallucinated), of the features that were active on any question;
        empty where nothing was measured."""
        return self._current().separation

    def _current(self) -> Content:
        stamp = self.stamp
        if stamp != self._content.stamp:
            item, note = read_companion(self._core.path, HALLUCINATION, self._core.manifest["content_id"])
            try:
                columns = item["separation"] if item is not None else {"ids": [], "values": []}
                separation = {int(k): float(v) for k, v in zip(columns["ids"], columns["values"], strict=True)}
            except (KeyError, TypeError, ValueError):
                item, separation = None, {}
                note = f"{self._path.name} cannot be read, so it is not shown."
            self._content = Content(stamp, item, note, separation)  # at once, as several threads read
        return self._content
