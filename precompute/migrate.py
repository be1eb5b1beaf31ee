"""`saevx migrate STORE --out NEW`: a copy of an older store of this schema, with all that this version stores.

What can be computed from the store itself is computed by the code of the pass. Columns whose values only the pass knows
stay null. Stores of schemas 1 to 3 are refused: their verdicts and directions rest on activations that they lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import URL, Column, Connection, create_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateColumn, CreateTable

from precompute.errors import SaevxError
from precompute.steps import feature_map, sample_map
from precompute.steps.label import tokens_of_words, words_and_descriptions
from precompute.steps.label_words import read_words
from precompute.store import mapfile
from precompute.store import schema as s
from precompute.store.core import feature_columns
from precompute.store.making.family_rows import namesakes
from precompute.store.making.sealing import checksums, seal, seal_run
from precompute.store.making.unfinished import Collected
from precompute.store.making.verify import verify_or_raise
from precompute.store.making.writer import fill, top_word_rows
from precompute.store.opening import DATABASE, damaged_error, read_manifest
from precompute.store.reader import Store
from precompute.store.sql import fetch_plain
from precompute.utils.files import atomic_folder, copy_folder
from precompute.utils.ownership import creating
from precompute.utils.stats import histogram
from precompute.utils.types import Array

NO_VALUES = histogram(np.zeros(0))


class Changes(NamedTuple):
    """What a store lacks."""

    made: list[str]
    """Names of what can be computed from it."""
    null: list[str]
    """Columns that stay null, as TABLE.COLUMN."""


def migrate(store: Path, out: Path) -> str:
    """Copies a finished store to `out` and adds what this version stores.

    Returns:
        what was added, and what only the pass could add, in lines for the user.

    Raises:
        SaevxError: the store is no store, damaged, of another schema, or up to date; or `out` cannot be made.
    """
    manifest = read_manifest(store)
    if _is_complete(store, manifest):
        raise SaevxError(f"{store} has all that this version stores: serve it as it is.")
    with creating(out, "and a store never changes"), atomic_folder(out) as part:
        copy_folder(store, part)
        if checksums(part) != manifest["files"]:
            raise damaged_error(store, "a file is not the one that its manifest names, so it is not migrated")
        changes = _change(part, manifest)
        seal(part, {**manifest, "migrated": changes._asdict()})
        seal_run(part)
        verify_or_raise(part)
    lines = [f"{out}: {', '.join(changes.made) or 'checksums'} added."]
    if changes.null:
        lines.append(f"Only `saevx precompute` can add {', '.join(changes.null)}: null here.")
    lines.append(f"To keep what people wrote: rename it to {store}, then run `saevx annotations carry {store}`.")
    return "\n".join(lines)


def _is_complete(path: Path, manifest: dict[str, Any]) -> bool:
    store = Store.open_unchecked(path)
    try:
        tables = s.columns_of(fetch_plain(store.engine, s.COLUMNS))
    finally:
        store.close()
    files = [path / file for file in (*mapfile.LAYOUTS.values(), mapfile.SAMPLES_NAME)]
    is_sealed = manifest.get("sealed") and "sizes" in manifest
    return bool(is_sealed and tables.keys() >= s.LATER_TABLES and not s.missing_columns(tables)) and all(
        file.exists() for file in files
    )


def _change(part: Path, manifest: dict[str, Any]) -> Changes:
    """Adds to the copy `part` and its manifest what they lack."""
    changes = Changes([], [])
    engine = create_engine(URL.create("sqlite", database=str(part / DATABASE)), poolclass=NullPool)
    with engine.connect() as conn:
        tables = s.columns_of(conn.exec_driver_sql(s.COLUMNS))
        columns = s.missing_columns(tables)
        for column in columns:
            if not column.nullable:
                lack = f"{DATABASE} has no column {column.name!r} in a table {column.table.name!r}"
                raise damaged_error(part, lack)
            _add_column(conn, column)
        conn.commit()
        data = _Finished(Store.open_unchecked(part))
        try:
            if "top_words" not in tables:
                _add_top_words(conn, data)
                changes.made.append("top words")
            if s.features.c.namesake in columns:
                _add_namesakes(conn, data)
                changes.made.append("namesakes")
            changes.made.extend(_add_maps(part, manifest, data))
        finally:
            data.store.close()
        changes.null.extend(f"{c.table.name}.{c.name}" for c in columns if c is not s.features.c.namesake)
        conn.commit()
        for statement in ("ANALYZE", "VACUUM"):
            conn.exec_driver_sql(statement)
            conn.commit()
    engine.dispose()
    return changes


def _add_column(conn: Connection, column: Column[Any]) -> None:
    """An empty column with its indices; a score also gets its line in `scores`."""
    definition = CreateColumn(column).compile(dialect=conn.dialect)
    conn.exec_driver_sql(f"ALTER TABLE {column.table.name} ADD COLUMN {definition}")
    for index in column.table.indexes:
        if column.name in index.columns:
            index.create(conn)
    for name, description in s.SCORES.items():
        if column is s.samples.c[s.score_column(name)]:
            conn.execute(s.scores.insert().values(name=name, description=description, quantiles=[], hist=NO_VALUES))


def _add_top_words(conn: Connection, data: _Finished) -> None:
    words = read_words(data.captions)
    tokens_fw, _ = tokens_of_words(data, words)
    places = np.full(data.n_features, "")  # only descriptions name them, and those are stored
    step = {"verdict": data.verdict_f, "place": places}
    of_features, _ = words_and_descriptions(data, words, [None] * data.n_features, tokens_fw, step)
    conn.execute(CreateTable(s.top_words))
    fill(conn, s.top_words, top_word_rows(of_features))


def _add_namesakes(conn: Connection, data: _Finished) -> None:
    score, evidence, max_activation = (data.column(name) for name in ("label_score", "evidence", "max_activation"))
    of_f = namesakes(data.texts("label"), score, evidence, max_activation)
    rows = [(int(of_f[k]), int(k)) for k in np.flatnonzero(np.isfinite(of_f))]
    if rows:
        conn.exec_driver_sql("UPDATE features SET namesake = ? WHERE id = ?", rows)


def _add_maps(part: Path, manifest: dict[str, Any], data: _Finished) -> Iterator[str]:
    """Writes the maps that the store lacks, and gives their names; the manifest gains how well each does."""
    density_f2 = np.stack([data.column("density_text"), data.column("density_image")], axis=1)
    weigh = {"verdict": data.verdict_f, "omega": data.column("omega"), "density": density_f2}
    for space, name in (("decoder", "map of features"), ("profile", "map by profile")):
        if (part / mapfile.LAYOUTS[space]).exists():
            continue
        index = data.store.search.index(space)
        vectors_fd = index.reconstruct_n(0, index.ntotal)
        other_fk = data.store.features.neighbours["other"][:, s.NEIGHBOUR_SPACES.index(space)].astype(np.int64)
        on_map_f = np.any(vectors_fd, axis=1) if space == "profile" else None
        summary = feature_map.write(part / mapfile.LAYOUTS[space], vectors_fd, other_fk, weigh, on_map_f)
        map_entry = manifest.get("map", {})
        manifest["map"] = {**map_entry, "profile": summary} if space == "profile" else {**map_entry, **summary}
        yield name
    if not (part / mapfile.SAMPLES_NAME).exists():
        sides = [data.store.search.index(f"sample_{modality}") for modality in s.MODALITIES]
        manifest["sample_map"] = sample_map.write(part / mapfile.SAMPLES_NAME, sides)
        yield "map of samples"


class _Finished(Collected):
    """A finished store, as the steps read an unfinished one: only what they need of it here."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.part = self.folder = store.path
        self.manifest, self.events = store.manifest, store.events
        self.n_features, self.scale_log2, self.unit = store.n_features, store.scale_log2, 2.0**-store.scale_log2

    @property
    def n_samples(self) -> int:
        return self.store.n_samples

    @cached_property
    def captions(self) -> list[str]:
        return [item["text"] for item in self.store.samples.items(range(self.n_samples)).values()]

    @cached_property
    def vocabulary(self) -> list[str]:
        return self.store.vocabulary.words

    def texts(self, name: str) -> list[Any]:
        """A column of the table `features`, in id order."""
        return [value for (value,) in fetch_plain(self.store.engine, f"SELECT {name} FROM features ORDER BY id")]

    def column(self, name: str) -> Array:
        """As `texts`, of numbers: float64 [F], NaN for null."""
        return feature_columns(self.store.engine, name)[:, 0]

    @cached_property
    def verdict_f(self) -> Array:
        """uint8 [F], indices into `VERDICTS`."""
        return np.array([s.VERDICTS.index(name) for name in self.texts("verdict")], np.uint8)

    @cached_property
    def examples(self) -> dict[str, Array]:
        """`top_row` and `top_position`, int64 [F, 2, SHOWN], −1 beyond the end of a list."""
        sql = "SELECT feature, modality, rank, row, position FROM examples WHERE band = -1"
        at = np.array(fetch_plain(self.store.engine, sql), np.int64).reshape(-1, 5).T
        lists = {name: np.full((self.n_features, 2, s.SHOWN), -1, np.int64) for name in ("row", "position")}
        for name, values in zip(lists, at[3:], strict=True):
            lists[name][tuple(at[:3])] = values
        return {f"top_{name}": values for name, values in lists.items()}
