"""Names of features, tested on captions and on what the scenes really hold; part `names` of evaluate_store."""

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sqlalchemy import select

from precompute.data.halves import halves
from precompute.steps.names.name_test import NameTest
from precompute.store.reader import Store
from precompute.store.schema import GOOD_NAME, HAS_FEATURE, IMAGE, LACKS_FEATURE, TEXT, features, samples
from precompute.store.sql import fetch
from precompute.utils.text import name_words
from precompute.utils.types import Array

HOLDS = 0.7
"""Score from which a name is counted, and share of a feature's strongest images that must hold the thing."""
N_LINES, N_IMAGES = 24, 16


def true_words(fields: dict[str, Any]) -> set[str]:
    """The nouns and colours of a scene, and its background's colour."""
    entities = fields["entities"]
    return {word for e in entities for word in (e["noun"], e["colour"]) if word} | {fields["background"]}


def names(store: Store) -> dict[str, Any]:
    """Share of the live features whose name tells their samples from others, by the captions and by the true words of
    the scenes, on samples that chose no name; and how many of the first lines of the list truly name different
    things."""
    rows = fetch(store.engine, select(samples.c.sample_id, samples.c.extra).order_by(samples.c.row))
    truth = [true_words(row.extra) for row in rows]
    c = features.c
    feature_rows = fetch(store.engine, select(c.id, c.label, c.label_score, c.verdict, c.p999).order_by(c.id))
    scoring = halves([row.sample_id for row in rows]).scoring
    vocabulary = {word: i for i, word in enumerate(sorted(set().union(*truth)))}
    trial = true_trial(store, scoring, [truth[row] for row in scoring.tolist()], vocabulary)
    words = [[vocabulary[word] for word in name_words(f.label) if word in vocabulary] for f in feature_rows]
    true_score = trial.accuracy(np.arange(len(feature_rows)), words)
    score = np.array([np.nan if f.label_score is None else f.label_score for f in feature_rows])
    verdict = np.array([f.verdict for f in feature_rows])
    shares = {
        name: {"n": int(mask.sum()), "captions": share(score[mask]), "truth": share(true_score[mask]),
               "shown": float((score[mask] >= GOOD_NAME).mean())}
        for name, mask in (("alive", verdict != "dead"), *((v, verdict == v) for v in sorted(set(verdict) - {"dead"})))
    }  # fmt: skip
    return {"names": {"by_verdict": shares, "first_lines": first_lines(store, truth)}}


def share(score: Array) -> float:
    """Share of the scores, float64 [n], that are at least `HOLDS`; none is not."""
    return float((score >= HOLDS).mean())


def true_trial(store: Store, rows: Array, truth: list[set[str]], vocabulary: dict[str, int]) -> NameTest:
    """The test of names on these rows, int64 [n], with the true words of each in place of its caption."""
    p999 = store.features.table["p999"]
    max_nf = np.zeros((len(rows), store.n_features))
    for i, row in enumerate(rows.tolist()):
        sample = store.events.of(row)
        is_token = sample.by_event(np.isin(sample.modality_t, (TEXT, IMAGE)))
        np.maximum.at(max_nf[i], sample.feature_e[is_token], sample.z_e[is_token])
    holds = np.zeros((len(rows), len(vocabulary)), np.int32)
    for i, words in enumerate(truth):
        holds[i, [vocabulary[word] for word in words]] = 1
    limit = np.nan_to_num(p999, nan=np.inf)
    on_fn, counted_fn = (csr_matrix((max_nf > share * limit).T) for share in (HAS_FEATURE, LACKS_FEATURE))
    return NameTest(on_fn, counted_fn, csr_matrix(holds))


def first_lines(store: Store, truth: list[set[str]]) -> dict[str, Any]:
    """Of the first lines of the list of features the names, and how many different ones are true: most of the feature's
    strongest images hold the thing."""
    lines = store.features.list(sort="evidence", order="desc", fold="names", limit=N_LINES).items
    examples_of = store.examples.strongest([line["id"] for line in lines], "image", N_IMAGES)
    row_of = {row.sample_id: row.row for row in fetch(store.engine, select(samples.c.sample_id, samples.c.row))}
    is_true: dict[str, bool] = {}
    for line in lines:
        word = (name_words(line["label"]) or [""])[0]
        has_word = [word in truth[row_of[example["sample_id"]]] for example in examples_of[line["id"]]]
        is_true.setdefault(word, bool(has_word) and float(np.mean(has_word)) >= HOLDS)
    return {"lines": len(lines), "distinct": len(is_true), "true": sum(is_true.values()), "names": list(is_true)}
