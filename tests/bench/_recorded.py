"""The pass without its model: each batch of the data stands for one of as many rows that ran before.

The first batch of each number of rows is decoded, tokenised and run; its activations are recorded. Every later batch of
as many rows has these, with its own rows, and thumbnails that are links to the recorded ones. All that comes after the
model (the SAE, the accumulators, shards, merge, every step) is what it is in a real run.
"""

from dataclasses import replace
from typing import ClassVar

from precompute.collect.collector import Collector, thumb_path
from precompute.collect.session import Session
from precompute.data.records import Row
from precompute.model.loader import LoadedBatch
from precompute.utils.files import hardlink


class Recorded(Collector):
    """Recordings are shared by all collectors of the process."""

    recordings: ClassVar[dict[int, LoadedBatch]] = {}
    n_recorded: ClassVar[int] = 0
    """Rows that were really run."""

    def load(self, rows: list[Row]) -> list[LoadedBatch]:
        before = self.recordings.get(len(rows))
        if before is None or not self._thumbnails(before.rows, rows):
            loaded = super().load(rows)
            one = loaded[0]
            if len(loaded) == 1 and len(one.rows) == len(rows) and one.batch is not None:
                one.hidden = self.mllm.hidden(one.batch)
                if one.alone is not None:
                    one.alone_hidden = self.mllm.hidden(one.alone)
                self.recordings[len(rows)] = replace(one)
                Recorded.n_recorded += len(rows)
            return loaded
        return [replace(before, rows=rows)]

    def _thumbnails(self, before: list[Row], rows: list[Row]) -> bool:
        """Links them; False where the recorded ones belong to another run."""
        for old, new in zip(before, rows, strict=True):
            for i in range(len(old.images)):
                source, target = (thumb_path(self.part, row.index, i) for row in (old, new))
                if not source.exists():
                    return False
                target.parent.mkdir(parents=True, exist_ok=True)
                hardlink(source, target)
        return True


class RecordedSession(Session):
    """A run whose pass is `Recorded`."""

    def collector(self) -> Collector:
        return Recorded(**vars(super().collector()))
