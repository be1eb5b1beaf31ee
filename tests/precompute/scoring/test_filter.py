"""Keeping the best pairs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from precompute.errors import SaevxError
from precompute.scoring.filter import filter_file, filter_store, kept_rows
from precompute.store.reader import Store
from tests.helpers.stores import sql


@pytest.mark.parametrize("keep", [0, 12.5, 50, 100])
def test_keeps_the_best(made_up: Store, keep: float) -> None:
    score = made_up.quality.score_values("pooled-cosine")
    rows = made_up.quality.best_rows(by="pooled-cosine", keep=keep)
    assert len(rows) == round(200 * keep / 100) and (np.diff(rows) > 0).all()
    rest = np.setdiff1d(np.arange(200), rows)
    if len(rows) and len(rest):
        assert score[rows].min() >= score[rest].max()


def test_flagged_pairs_go_first(made_up: Store) -> None:
    rows = made_up.quality.best_rows(by="random", keep=100, flags=["mismatch", "empty-text"])
    bad = {i["row"] for flag in ("mismatch", "empty-text") for i in made_up.samples.list(flag=flag, limit=200).items}
    assert bad and set(rows.tolist()) == set(range(200)) - bad
    half = made_up.quality.best_rows(by="random", keep=50, flags=["mismatch", "empty-text"])
    assert len(half) == int(np.floor(len(rows) / 2 + 0.5)) and set(half.tolist()) <= set(rows.tolist())


def test_a_flag_with_its_own_threshold(made_up: Store) -> None:
    strict = made_up.quality.best_rows(by="random", keep=100, flags=["mismatch:0.3"])
    bad = {i["row"] for i in made_up.samples.list(flag="mismatch", threshold=0.3, limit=1000).items}
    assert set(strict.tolist()) == set(range(200)) - bad
    low, high = (made_up.samples.list(flag="mismatch", threshold=one, limit=1).total for one in (0.3, 0.8))
    assert len(bad) == low > high


def test_samples_without_the_score_go_first(made_up: Store) -> None:
    missing = np.flatnonzero(np.isnan(made_up.quality.score_values("caption-nll")))
    assert len(missing)
    rows = made_up.quality.best_rows(by="caption-nll", keep=90)
    assert not set(rows) & set(missing.tolist())


def test_jsonl_loads_back_with_its_fields(made_up: Store, tmp_path: Path) -> None:
    import datasets

    file = tmp_path / "kept.jsonl"
    file.write_text("".join(filter_store(made_up, by="pooled-cosine", keep=30, flags=["mismatch"])))
    table = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    rows = made_up.quality.best_rows(by="pooled-cosine", keep=30, flags=["mismatch"])
    assert table["id"][:] == [f"s{row:05d}" for row in rows]
    assert {"text", "planted", "drawn", "pooled-cosine"} <= set(table.column_names)
    np.testing.assert_allclose(table["pooled-cosine"][:], made_up.quality.score_values("pooled-cosine")[rows])


def test_a_set_that_stands_for_all(made_up: Store, tmp_path: Path) -> None:
    """It covers the samples better than the best by any score do; flags count; a file of scores has no vectors."""
    vectors = made_up.search.vectors_of(np.arange(200))
    rows = kept_rows(made_up, by="facility-location", keep=20, flags=["mismatch"])
    allowed = made_up.quality.best_rows(by="random", keep=100, flags=["mismatch"])
    assert len(rows) == round(len(allowed) * 0.2) and set(rows.tolist()) <= set(allowed.tolist())

    def covered(chosen: np.ndarray) -> float:
        return float(np.maximum(vectors[allowed] @ vectors[chosen].T, 0).max(1).sum())

    others = [made_up.quality.best_rows(by=by, keep=20, flags=["mismatch"]) for by in ("random", "pooled-cosine")]
    assert all(covered(rows) > covered(other) for other in others)
    lines = [json.loads(line) for line in filter_store(made_up, by="facility-location", keep=20, flags=["mismatch"])]
    assert [line["id"] for line in lines] == [f"s{row:05d}" for row in rows] and "facility-location" not in lines[0]
    (tmp_path / "scores.jsonl").write_text("{}\n")
    with pytest.raises(SaevxError, match="give a store"):
        list(filter_file(tmp_path / "scores.jsonl", by="facility-location", keep=20))


def test_ids(made_up: Store) -> None:
    lines = list(filter_store(made_up, by="cosine", keep=10, format="ids"))
    assert len(lines) == 20 and all(line.startswith("s") and line.endswith("\n") for line in lines)
    item = json.loads(next(filter_store(made_up, by="cosine", keep=10)))
    assert item["id"] == lines[0].strip()


def changed(store: Store, folder: Path, statement: str) -> Store:
    """A copy of a store with a value changed in its database."""
    shutil.copytree(store.path, folder)
    sql(statement)(folder)
    return Store.open(folder)


def test_id_and_text_are_the_samples(made_up: Store, tmp_path: Path) -> None:
    """Where --id-column and --text-column name other fields, a row may have an `id` and a `text` that are not."""
    extra = json.dumps({"id": "the row's", "text": "the row's", "planted": "x"}).replace("'", "''")
    store = changed(made_up, tmp_path / "store", f"UPDATE samples SET extra = '{extra}' WHERE row = 0")
    line = json.loads(next(filter_store(store, by="pooled-cosine", keep=100)))
    assert (line["id"], line["planted"]) == ("s00000", "x") and line["text"] == made_up.samples.get("s00000")["text"]
    (tmp_path / "scores.jsonl").write_text(
        json.dumps({"id": "a", "score_cosine": 1.0, "flags": [], "fields": {"text": "two dogs", "id": "the row's"}})
        + "\n"
    )
    line = json.loads(next(filter_file(tmp_path / "scores.jsonl", by="cosine", keep=100)))
    assert (line["id"], line["text"]) == ("a", "two dogs")


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028"])
def test_an_id_with_a_line_break_is_refused_as_a_line(made_up: Store, tmp_path: Path, end: str) -> None:
    """Python and other programs end a line at each of these."""
    statement = f"UPDATE samples SET sample_id = 'a{end}b' WHERE row = 0"
    store = changed(made_up, tmp_path / "store", statement)
    with pytest.raises(SaevxError, match="has a line break"):
        list(filter_store(store, by="pooled-cosine", keep=100, format="ids"))
    line = {"id": f"a{end}b", "score_cosine": 1.0, "flags": [], "fields": {}}
    (tmp_path / "scores.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(SaevxError, match="has a line break"):
        list(filter_file(tmp_path / "scores.jsonl", by="cosine", keep=100, format="ids"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "beauty", "keep": 10}, "Unknown score"),
        ({"by": "cosine", "keep": 101}, "percentage"),
        ({"by": "cosine", "keep": float("nan")}, "percentage"),
        ({"by": "cosine", "keep": 10, "flags": ["ugly"]}, "Unknown flag"),
        ({"by": "cosine", "keep": 10, "flags": ["tiny:x"]}, "tiny:0.9"),
    ],
)
def test_wrong_options(made_up: Store, options: dict, words: str) -> None:
    with pytest.raises(SaevxError, match=words):
        made_up.quality.best_rows(**options)
