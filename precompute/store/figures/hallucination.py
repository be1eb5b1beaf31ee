"""`store.hallucination`: which features tell right answers from hallucinated ones, from STORE.hallucination.json."""

from precompute.store.companion_files import HALLUCINATION, companion_path, read_companion
from precompute.store.core import Core
from precompute.store.opening import Stamp
from precompute.utils.types import Item


class Hallucination:
    """What `saevx experiment hallucination --attach` measured. The file may come or go while the store is open: it is
    read again when it has changed."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._path = companion_path(core.path, HALLUCINATION)
        self._content: tuple[Stamp | None, Item | None, str | None, dict[int, float]] = (None, None, None, {})

    @property
    def stamp(self) -> Stamp | None:
        """Of the file; None where there is none."""
        return Stamp.from_file(self._path)

    def read(self) -> tuple[Item | None, str | None]:
        """The file's content, or None; and why a file that is there is not shown, in a sentence."""
        return self._current()[1:3]

    @property
    def separation(self) -> dict[int, float]:
        """id → P(active | right answer) − P(active | hallucinated), of the features that were active on any question;
        empty where nothing was measured."""
        return self._current()[3]

    def _current(self) -> tuple[Stamp | None, Item | None, str | None, dict[int, float]]:
        stamp = self.stamp
        if stamp != self._content[0]:
            content, note = read_companion(self._core.path, HALLUCINATION, self._core.manifest["content_id"])
            try:
                columns = content["separation"] if content is not None else {"ids": [], "values": []}
                separation = {int(k): float(v) for k, v in zip(columns["ids"], columns["values"], strict=True)}
            except (KeyError, TypeError, ValueError):
                content, separation = None, {}
                note = f"{self._path.name} cannot be read, so it is not shown."
            self._content = stamp, content, note, separation  # at once, as several threads read
        return self._content
