"""Lists of a store: cursors, totals, words, and the database behind them."""

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.events import dense_values
from precompute.store.lists.keyset import KeysetList, keyset_page
from precompute.store.reader import Store
from precompute.store.sql import (
    decode_cursor,
    encode_cursor,
    fetch,
    fetch_plain,
    indexed_words,
    match_words,
    open_engine,
)
from tests.helpers.synthetic import write_store


def test_database_is_read_only(made_up: Store) -> None:
    with made_up.engine.connect() as conn, pytest.raises(Exception, match="readonly"):
        conn.execute(text("DELETE FROM samples"))


def test_slow_queries_are_stopped(made_up: Store) -> None:
    engine = open_engine(made_up.path / "store.sqlite", time_limit_s=0.05)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(SaevxError, match="took too long"):
        fetch(engine, text(endless))
    with pytest.raises(SaevxError, match="took too long"):
        fetch_plain(engine, endless)
    assert fetch(engine, text("SELECT 1"))[0][0] == 1  # and the connection lives on
    assert fetch_plain(engine, "SELECT 1") == [(1,)]


def test_a_list_is_the_same_sorted_or_walked(made_up: Store) -> None:
    """`n` says how long the table is, so a large one makes every filtered list a short one."""
    c = s.features.c
    for column, order in itertools.product((c.lift, c.label, c.label_score, c.n_samples), ("asc", "desc")):
        pages = []
        for n in (1, 10**9):
            listed = KeysetList(select(c.id, column), column, c.id, [c.verdict == "cross-modal"], "", n, None)
            cursor, ids = None, []
            while True:
                rows, total, cursor = keyset_page(made_up.engine, listed, order=order, limit=7, cursor=cursor)
                ids += [row.id for row in rows]
                if cursor is None:
                    break
            assert len(ids) == total > 7
            pages.append(ids)
        assert pages[0] == pages[1], (column.name, order)


def test_totals_known_beforehand_are_the_counted_ones(made_up: Store) -> None:
    assert made_up.features.list(limit=3).total == made_up.n_features
    assert made_up.samples.list(limit=3).total == made_up.n_samples
    for flag in made_up.quality.flags:
        at_its_own = made_up.samples.list(flag=flag["name"], limit=3)
        assert at_its_own == made_up.samples.list(flag=flag["name"], threshold=flag["threshold"], limit=3)


def test_one_feature_of_a_sample_is_read_alone(made_up: Store) -> None:
    for row in range(0, made_up.n_samples, 9):
        events = made_up.events.of(row)
        for feature in {0, *events.feature_e[:5].tolist()}:
            tokens, z_t = made_up.events.feature(row, feature)
            assert tokens.token_id_t.tolist() == events.token_id_t.tolist()
            assert z_t.tolist() == dense_values(events, [feature])[:, 0].tolist()


def test_partners_are_the_strongest_pairs(made_up: Store) -> None:
    for feature in range(0, made_up.n_features, 5):
        partners = made_up.features.get(feature)["cooccurring"]
        for name, side in (("text_to_image", "a"), ("image_to_text", "b")):
            pairs = made_up.cooccurrence.pairs["text-image"]
            measured = pairs.measures(pairs.of(feature, side))
            other = measured.b if side == "a" else measured.a
            order = np.lexsort((other, -measured.support, -measured.lift_low))
            strong = [i for i in order.tolist() if measured.lift[i] >= 1.5]
            concept = made_up.features.concept[other[strong]].tolist()
            own = made_up.features.concept[feature]
            first = [at for at, one in enumerate(concept) if one not in (*concept[:at], own)]
            order = np.array([strong[at] for at in first[:8]], int)
            assert [one["id"] for one in partners[name]] == other[order].tolist()
            assert [one["lift_low"] for one in partners[name]] == measured.lift_low[order].tolist()
            assert [one["lift_shuffled"] for one in partners[name]] == measured.lift_shuffled[order].tolist()


def test_cursor_round_trip() -> None:
    for value in (None, 0.1, 3, "a, “b”", -1e-300):
        assert decode_cursor("tag", encode_cursor("tag", value, 7)) == (value, 7)
    for wrong in (encode_cursor("other", 1, 7), encode_cursor("tag", [1], 7), "3", "W10", "[" * 400):
        with pytest.raises(SaevxError, match="start again without `cursor`"):
            decode_cursor("tag", wrong)


def test_a_cursor_belongs_to_its_list_order_filter_and_store(made_up: Store, tmp_path: Path) -> None:
    write_store(tmp_path / "other", 60, seed=7)
    other = Store.open(tmp_path / "other")
    lists: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("features", {}, {"sort": "lift"}),
        ("features", {}, {"order": "desc"}),
        ("features", {"verdict": ["cross-modal"]}, {"verdict": ["dead"]}),
        ("features", {"max_density": 0.5}, {"max_density": 0.4}),
        ("samples", {}, {"sort": "cosine"}),
        ("samples", {"q": "dog"}, {"q": "cat"}),
        ("cooccurrence", {}, {"kind": "image-image"}),
        ("cooccurrence", {}, {"min_support": 3}),
        ("cooccurrence", {}, {"alike": True}),
    ]
    for noun, options, changed in lists:
        ask, elsewhere = getattr(made_up, noun).list, getattr(other, noun).list
        cursor = ask(**options, limit=1).next
        assert cursor and ask(**options, limit=3, cursor=cursor).items, "the page's length may change"
        for another, with_options in ((ask, options | changed), (elsewhere, options)):
            with pytest.raises(SaevxError, match="belongs to another list"):
                another(**with_options, limit=1, cursor=cursor)
    sample = made_up.events.of(0)
    first, second = np.flatnonzero((sample.modality_t <= s.IMAGE) & (np.diff(sample.offset_t) > 1))[:2].tolist()
    cursor = made_up.samples.features_at("s00000", position=first, limit=1)["next"]
    with pytest.raises(SaevxError, match="belongs to another list"):
        made_up.samples.features_at("s00000", position=second, limit=1, cursor=cursor)
    with pytest.raises(SaevxError, match="belongs to another list"):
        made_up.features.list(cursor=made_up.samples.list(limit=1).next)


def test_words_as_query() -> None:
    assert match_words("red dog") == '"red" AND "dog"*'
    assert match_words("red dog", join=" OR ", prefix=False) == '"red" OR "dog"'
    assert match_words('say "t-shirt') == '"say" AND ("t - shirt"* OR "t shirt"*)'
    assert match_words('"') == '""""*'
    assert match_words("\0") == match_words("\u200b \ud800") == ""


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("bus", {"a bus", "two buses", "open for business"}),  # the stem of bus is bu
        ("red bus", {"the red bus"}),
        ("cars", {"a car", "cars"}),
        ("car", {"a car", "cars", "a carrot"}),
        ("glas", {"a glass"}),
        ("orange", {"an orange", "oranges"}),
        ("butterf", {"butterflies"}),
        ("butterfly", {"butterflies"}),
        ("t-shirts", {"a t-shirt"}),
        ("лис", {"лисы"}),
    ],
)
def test_the_last_word_may_be_a_beginning_and_not_more(q: str, expected: set[str]) -> None:
    """The full-text tables hold stems, and so does FTS5 search for the beginning of a stem, not of the word."""
    captions = ["a bus", "two buses", "open for business", "butterflies", "a car", "cars", "a carrot", "a glass"]
    captions += ["an orange", "oranges", "an orangutan", "a t-shirt", "glad", "bud", "лисы"]
    if q == "red bus":
        captions = ["the red bus", "a red butterfly", "a bus"]
    with closing(sqlite3.connect(":memory:")) as db:
        for table in s.FTS:
            db.execute(table)
        rows = enumerate(indexed_words(caption) for caption in captions)
        db.executemany("INSERT INTO sample_fts (rowid, text) VALUES (?, ?)", rows)
        matches = db.execute("SELECT rowid FROM sample_fts WHERE sample_fts MATCH ?", (match_words(q),))
        assert {captions[row] for (row,) in matches} == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters() | st.sampled_from('"*()^+-:{}\0 ANDORT猫🙂')) | st.just("a " * 5000))
def test_no_words_can_break_a_search(made_up: Store, q: str) -> None:
    made_up.samples.list(q=q)
    made_up.features.list(q=q)
    made_up.search.words(q)
