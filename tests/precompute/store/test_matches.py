"""The order of the features of a word, against a plain sort."""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from precompute.store.lists.marked import Marked
from precompute.store.reader import Store
from precompute.utils.text import words_of
from tests.helpers import synthetic

WORD = "dog"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up store in which a feature named after two words fires on the other one, with the most evidence."""
    root = tmp_path_factory.mktemp("matches") / "store"
    shutil.copytree(synthetic.small_store(tmp_path_factory), root)
    with sqlite3.connect(root / "store.sqlite") as db:
        ids = [id for (id,) in db.execute("SELECT rowid FROM feature_fts WHERE feature_fts MATCH 'label : dog'")]
        other = '{"word": "cup", "n": 20, "of": 20}'
        db.execute("UPDATE top_words SET text = ?, image = ? WHERE id = ?", (other, other, ids[0]))
        db.execute("UPDATE features SET evidence = .99, label_score = 1 WHERE id = ?", (ids[0],))
        weaker = '{"word": "dog", "n": 3, "of": 5}'
        db.execute("UPDATE top_words SET text = ?, image = ? WHERE id = ?", (weaker, other, ids[1]))
    db.close()
    return root


@pytest.fixture(scope="module")
def store(path: Path) -> Store:
    return Store.open(path)


def in_plain_order(store: Store, held: bool = True) -> list[int]:
    """All features with the word, sorted by a key in words."""
    items = [*store.features.list(q=WORD, limit=1000).items]
    words = store.top_words.of_all(one["id"] for one in items)

    def key(one: dict[str, Any]) -> tuple[float, ...]:
        sides = [side for side in words[one["id"]].values() if side]
        most = max((side["n"] for side in sides), default=0)
        label = words_of(one["label"] or "")
        exact = any(side["word"] == WORD for side in sides if side["n"] == most) if held else one["label"] == WORD
        tier = 0 if exact else 1 if WORD in label else 2 if any(word.startswith(WORD) for word in label) else 3
        evidence, score = (-9.0 if one[name] is None else one[name] for name in ("evidence", "label_score"))
        return tier, -evidence, -score, one["id"]

    return [one["id"] for one in sorted(items, key=key)]


def test_the_strongest_word_comes_before_the_name_and_the_evidence(store: Store) -> None:
    order = in_plain_order(store)
    listed = store.features.list(q=WORD, sort="match", order="desc", limit=1000).items
    assert [one["id"] for one in listed] == order and len(order) > 3
    assert [one["id"] for one in store.search.words(WORD, 1000)["features"]] == order
    assert "cup" not in str(store.top_words.of(order[0]))
    assert listed[0]["evidence"] is None or listed[0]["evidence"] < 0.99
    rising = store.features.list(q=WORD, sort="match", order="asc", limit=1000).items
    assert [one["id"] for one in rising] == order[::-1]


def test_pages_of_matches_and_of_what_people_wrote_go_on(store: Store) -> None:
    order = in_plain_order(store)
    noted = next(k for k in range(store.n_features) if k not in order)
    with_note = Marked(word_matches=[noted])
    for marked, expected in ((None, order), (with_note, [noted, *order]), (Marked("tag", order), order)):
        ids: list[int] = []
        cursor: str | None = None
        while True:
            page = store.features.list(q=WORD, sort="match", order="desc", limit=2, cursor=cursor, marked=marked)
            ids += [one["id"] for one in page.items]
            if (cursor := page.next) is None:
                break
        assert ids == expected


def test_without_words_it_is_the_order_of_evidence(store: Store) -> None:
    by = [store.features.list(sort=sort, order="desc", limit=1000).items for sort in ("match", "evidence")]
    assert by[0] == by[1]


def test_of_several_words_those_with_all_come_first(store: Store) -> None:
    every = [one["id"] for one in store.features.list(q="dog red", sort="match", order="desc", limit=1000).items]
    hits = [one["id"] for one in store.search.words("dog red", 1000)["features"]]
    assert hits[: len(every)] == every and set(in_plain_order(store)) < set(hits)


def test_a_store_without_top_words_goes_by_the_label(path: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(path, old)
    with sqlite3.connect(old / "store.sqlite") as db:
        db.execute("DROP TABLE top_words")
    db.close()
    store = Store.open(old)
    listed = store.features.list(q=WORD, sort="match", order="desc", limit=1000).items
    assert [one["id"] for one in listed] == in_plain_order(store, held=False)
