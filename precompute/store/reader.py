"""Opens a finished store for reading; it needs neither a GPU nor the model. docs/python.md shows its use.

Each noun has an object of its own: `store.features.list()`, `store.samples.get(sample_id)`, `store.events.of(row)`.
Answers are plain dicts named as the public API names its fields, or NumPy arrays. Features are integers 0…F−1, samples
have a row 0…N−1 and the user's own id, activations are real SAE units (z).
"""

import sqlite3
from functools import cached_property
from pathlib import Path
from typing import Self

from precompute.errors import SaevxError
from precompute.store import mapfile
from precompute.store import schema as s
from precompute.store.cooccurrence import Cooccurrence
from precompute.store.core import Core, Vocabulary
from precompute.store.directions.families import Families
from precompute.store.directions.vectors import Directions
from precompute.store.examples.counter import CounterExamples
from precompute.store.examples.listed import Examples
from precompute.store.examples.words import TopWords
from precompute.store.features import Features
from precompute.store.figures.hallucination import Hallucination
from precompute.store.figures.sae import SaeFigures
from precompute.store.lists.rejected import Rejected
from precompute.store.opening import (
    DATABASE,
    Stamp,
    StoreUnreadable,
    check_files,
    creation_time,
    damaged_error,
    read_manifest,
    read_run,
    without_images,
)
from precompute.store.places import Places
from precompute.store.quality import Quality
from precompute.store.samples import Samples
from precompute.store.search import Search
from precompute.store.selection.filters import Selection
from precompute.store.selection.nearest import Nearest
from precompute.store.sql import TIME_LIMIT_S, Page, fetch_plain, open_engine
from precompute.utils.types import Item

__all__ = ["Page", "Store"]


class Store:
    """A finished store, opened with `Store.open`."""

    def __init__(self, core: Core) -> None:
        self.path = core.path
        self.manifest = core.manifest
        """`manifest.json`, with `images` {n, bytes} in place of the entries of the image files."""
        self.engine = core.engine
        """Read-only SQLAlchemy engine over `store.sqlite`."""
        self.stamps = core.stamps
        """Inode, size and time of change of each file but the images, as they were when the store was opened."""
        self.n_features = core.n_features
        self.n_samples = core.n_samples
        self.scale_log2 = core.scale_log2
        """z = stored float16 value · 2^(−scale_log2)."""
        self.events = core.events
        """What fires on which token, as memory-mapped arrays: `events.Events`."""
        self.vocabulary = Vocabulary(core)
        self.quality = Quality(core)
        self.cooccurrence = Cooccurrence(core)
        self.hallucination = Hallucination(core)
        self.features = Features(core, self.cooccurrence, self.hallucination)
        self.examples = Examples(core, self.vocabulary)
        self.counterexamples = CounterExamples(core, self.features, self.examples)
        self.top_words = TopWords(core)
        self.places = Places(core, self.vocabulary, self.features)
        self.samples = Samples(core, self.features, self.quality, self.places)
        self.rejected = Rejected(core)
        self.sae = SaeFigures(core)
        self.search = Search(core, self.features, self.samples)
        self.selection = Selection(core, self.features, self.quality, self.samples)
        self.nearest = Nearest(core, self.features, self.samples, self.search)
        self.directions = Directions(core, self.search)
        self.families = Families(core, self.features)
        self._maps: dict[str, mapfile.FeatureMap] = {}
        self.file = core.file
        self.read = core.read

    @classmethod
    def open(cls, path: str | Path, time_limit_s: float = TIME_LIMIT_S) -> Self:
        """Opens a finished store: checks its manifest, files and tables, and maps its arrays; FAISS indices are read
        when first used.

        Args:
            time_limit_s: a query of the database that takes longer is stopped.

        Raises:
            SaevxError: not a store, unfinished, damaged, or made by another version.
        """
        path = Path(path)
        manifest = read_manifest(path)
        store = cls._open(path, manifest, check_files(path, manifest), time_limit_s)
        try:
            store._check_tables()
            store.events.map_all()
            store._check_shapes()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open_unchecked(cls, path: str | Path, time_limit_s: float = TIME_LIMIT_S) -> Self:
        """As `open`, for `verify`, which looks at every file itself: only the manifest is read.

        Raises:
            SaevxError: not a store, unfinished, made by another version, or with a damaged manifest.
        """
        path = Path(path)
        return cls._open(path, read_manifest(path), {}, time_limit_s)

    @classmethod
    def _open(cls, path: Path, manifest: Item, stamps: dict[str, Stamp], time_limit_s: float) -> Self:
        return cls(Core(path, without_images(manifest), open_engine(path / DATABASE, time_limit_s), stamps))

    def close(self) -> None:
        """Closes the connections to the database."""
        self.engine.dispose()

    @property
    def map(self) -> mapfile.FeatureMap:
        """Where each feature lies on the map of features, and its colours, as arrays [F].

        Raises:
            SaevxError: an older version made the store, without a map.
        """
        return self.map_of("decoder")

    def map_of(self, layout: str) -> mapfile.FeatureMap:
        """As `map`; by `decoder` directions or by `profile`, what features fire on."""
        if layout not in self._maps:
            self._maps[layout] = mapfile.read_map(self.file(mapfile.LAYOUTS[layout]))
        return self._maps[layout]

    @property
    def sample_map(self) -> mapfile.SampleMap:
        """Where each sample lies on the map of samples, as arrays [N].

        Raises:
            SaevxError: an older version made the store, without a map of samples.
        """
        return self.selection.map

    @cached_property
    def summary(self) -> Item:
        """The manifest's public fields."""
        m = self.manifest
        return {
            "name": m["name"],
            "model": m["model"]["name"],
            "layer": m["model"]["layer"],
            "d_model": m["model"]["d_model"],
            "n_features": self.n_features,
            "n_samples": self.n_samples,
            "n_text_tokens": m["tokens"]["text"],
            "n_image_tokens": m["tokens"]["image"],
            "sae": m["sae"]["name"],
            "dataset": m["data"]["name"],
            "created": creation_time(m, read_run(self.path)),
            "version": m["code_version"],
            "content_id": m["content_id"],
        }

    @cached_property
    def detail(self) -> Item:
        """`summary`, verdict counts, special and sink tokens, quality, and the manifest without its images."""
        counts = dict(fetch_plain(self.engine, "SELECT verdict, count(*) FROM features GROUP BY verdict"))
        m = self.manifest
        return {
            **self.summary,
            "verdicts": {name: counts.get(name, 0) for name in s.VERDICTS},
            "n_special_tokens": m["tokens"]["special"],
            "n_sink_tokens": m["tokens"]["sink"],
            "n_quarantined": m["data"]["n_quarantined"],
            "delta": m["delta"],
            "quality": m["quality"],
            "manifest": m,
        }

    def _check_tables(self) -> None:
        """Every table has its columns. Raises StoreUnreadable where not, or where the file is no database."""
        try:
            columns = s.columns_of(fetch_plain(self.engine, s.COLUMNS))
        except (StoreUnreadable, sqlite3.Error) as error:
            raise damaged_error(self.path, f"{DATABASE} is cut off or no database") from error
        for column in s.missing_columns(columns)[:1]:
            lack = f"{DATABASE} has no column {column.name!r} in a table {column.table.name!r}"
            if not column.nullable:
                raise damaged_error(self.path, lack)
            raise SaevxError(
                f"The store {self.path} was made by an older version of saevx ({lack}): run `saevx migrate {self.path} "
                "--out NEW` and open NEW."
            )
        if missing_tables := {"feature_fts", "sample_fts"} - columns.keys():
            raise damaged_error(self.path, f"{DATABASE} has no table {missing_tables.pop()!r}")

    def _check_shapes(self) -> None:
        """The arrays are of this store's size. Raises StoreUnreadable where not, or where one cannot be mapped."""
        arrays = [
            ("events/sample_token.npy", self.events.sample_token, self.n_samples + 1),
            ("index/neighbours.npy", self.features.neighbours, self.n_features),
            ("index/direction_scales.npy", self.directions.scales, self.n_features),
        ]
        for kind, pairs in self.cooccurrence.pairs.items():
            arrays.append((f"cooccurrence/{kind}_start.npy", pairs.start, self.n_features + 1))
        for name, array, n in arrays:
            if len(array) != n:
                raise damaged_error(self.path, f"{name} is of another store: it has {len(array)} entries, not {n}")
