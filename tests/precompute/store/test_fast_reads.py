"""The fast ways to read a store, next to the plain ones: filters by columns in memory, the events of one sample."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from precompute.store import core
from precompute.store import schema as s
from precompute.store.lists.filters import RANGED, conditions
from precompute.store.lists.matches import best_matches
from precompute.store.opening import StoreUnreadable
from precompute.store.reader import Store
from precompute.store.sql import fetch, fetch_plain, match_words
from precompute.utils.types import Array

RANGES = st.dictionaries(
    st.sampled_from([f"{end}_{name}" for end in ("min", "max") for name in RANGED]),
    st.one_of(st.floats(-2, 60, allow_nan=False), st.integers(-1, 60)),
    max_size=4,
)
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "verdict": st.lists(st.sampled_from(s.VERDICTS), min_size=1, unique=True),
        "max_density": st.floats(0, 0.2),
        "place": st.sampled_from([*s.PLACES, "any", "none"]),
        "has_label": st.booleans(),
        "q": st.sampled_from(["dog", "red", "nothing-like-it"]),
    },
)


def passing_by_sqlite(store: Store, ranges: dict[str, Any], others: dict[str, Any]) -> Array:
    """bool [F], with no column in memory."""
    c, where = s.features.c, conditions(others)
    for name, limit in ranges.items():
        column = c[name[4:]]
        where.append(column >= limit if name.startswith("min_") else column <= limit)
    if "verdict" in others:
        where.append(c.verdict.in_(others["verdict"]))
    passes_f = np.zeros(store.n_features, bool)
    passes_f[[row.id for row in fetch(store.engine, select(c.id).where(*where))]] = True
    return passes_f


@given(RANGES, OTHERS)
def test_columns_in_memory_pass_the_features_that_sqlite_passes(
    made_up: Store, ranges: dict[str, Any], others: dict[str, Any]
) -> None:
    passes_f = made_up.features._lists._mask({**ranges, **others})
    np.testing.assert_array_equal(passes_f, passing_by_sqlite(made_up, ranges, others))


@pytest.mark.parametrize("q", ["dog", "red d", "a t-shirt", "dog nothing-like-it", "?", ""])
@pytest.mark.parametrize("every_word", [True, False])
def test_words_found_one_by_one_are_those_of_one_query(made_up: Store, q: str, every_word: bool) -> None:
    core, match = made_up.features._core, match_words(q, join=" AND " if every_word else " OR ")
    query = "SELECT rowid FROM feature_fts WHERE feature_fts MATCH ?"
    expected = {id for (id,) in fetch_plain(core.engine, query, [match])} if match else set()
    ids = best_matches(core, q, every_word=every_word).tolist()
    assert set(ids) == expected and len(ids) == len(expected)


def test_a_sample_is_read_as_it_is_mapped(made_up: Store) -> None:
    events = made_up.events
    for row in (0, 1, made_up.n_samples // 2, made_up.n_samples - 1):
        first, last = events.sample_token[row : row + 2].tolist()
        offset = events.token_event[first : last + 1]
        read = events.of(row)
        np.testing.assert_array_equal(read.token_id_t, events.token_id[first:last])
        np.testing.assert_array_equal(read.modality_t, events.token_modality[first:last])
        np.testing.assert_array_equal(read.offset_t, offset - offset[0])
        np.testing.assert_array_equal(read.feature_e, events.event_feature[offset[0] : offset[-1]])
        np.testing.assert_array_equal(read.z_e, events.event_value[offset[0] : offset[-1]].astype(float) * events.unit)
        for feature in np.unique(read.feature_e)[:5].tolist():
            expected = np.zeros(last - first)
            for token in range(last - first):
                for e in range(read.offset_t[token], read.offset_t[token + 1]):
                    if read.feature_e[e] == feature:
                        expected[token] = read.z_e[e]
            np.testing.assert_array_equal(events.feature(row, feature)[1], expected)


def test_events_that_are_cut_off_while_the_store_is_open_are_refused(made_up: Store, tmp_path: Path) -> None:
    """A mapped file would end the process with SIGBUS."""
    copy = tmp_path / "store"
    shutil.copytree(made_up.path, copy)
    store = Store.open(copy)
    os.truncate(copy / "events" / "token_id.npy", 200)
    with pytest.raises(StoreUnreadable, match=r"token_id\.npy is cut off"):
        store.events.of(store.n_samples - 1)
    store.close()


def test_offsets_of_events_that_lead_outside_are_refused(made_up: Store, tmp_path: Path) -> None:
    """A flipped bit makes an offset negative or huge, for which the system has no file position."""
    copy = tmp_path / "store"
    shutil.copytree(made_up.path, copy)
    offsets = np.lib.format.open_memmap(copy / "events" / "sample_token.npy", mode="r+")
    for wrong in (-1, int(offsets[1]) ^ (1 << 62)):
        offsets[1] = wrong
        offsets.flush()
        with (
            contextlib.closing(Store.open(copy)) as store,
            pytest.raises(StoreUnreadable, match="offsets in events/ lead outside"),
        ):
            store.events.of(0)


def test_a_text_of_the_database_with_damaged_bytes_is_refused(made_up: Store, tmp_path: Path) -> None:
    """SQLite itself sees nothing wrong: the driver fails on it, and its error has no code."""
    copy = tmp_path / "store"
    shutil.copytree(made_up.path, copy)
    with contextlib.closing(sqlite3.connect(copy / "store.sqlite")) as base:
        base.execute("UPDATE features SET verdict = CAST(x'63726f7373ff' AS TEXT) WHERE id = 0")
        base.commit()
    with contextlib.closing(Store.open(copy)) as store, pytest.raises(StoreUnreadable, match="cannot be read"):
        fetch_plain(store.engine, "SELECT verdict FROM features")


def test_names_are_held_within_bounds_and_stay_those_of_the_store(
    made_up: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "MAX_REFS", 4)
    with contextlib.closing(Store.open(made_up.path)) as store:
        labels = dict(fetch_plain(store.engine, "SELECT id, label FROM features"))
        for ids in ([3, 1, 1], [1, 2, 3, 4], [9, 8, 7, 6, 5], [1, store.n_features, 9]):
            refs = store.features.refs(ids)
            assert list(refs) == sorted({*ids} & labels.keys())
            assert all(refs[id]["id"] == id and refs[id]["label"] == labels[id] for id in refs)
            refs[min(refs)]["label"] = "of the caller"
        assert len(store.features._core._refs) <= 5


def test_a_connection_serves_one_reader_at_a_time_and_ends_with_the_store(made_up: Store) -> None:
    store = Store.open(made_up.path)
    plain = store.engine.get_execution_options()["plain"]
    with plain.borrow() as one, plain.borrow() as other:
        assert one is not other and [*one.execute("SELECT 1")] == [*other.execute("SELECT 1")]
    with pytest.raises(sqlite3.OperationalError), plain.borrow() as raw:
        raw.execute("SELECT no_such_column")
    assert fetch_plain(store.engine, "SELECT count(*) FROM features") == [(store.n_features,)]
    store.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        one.execute("SELECT 1")
