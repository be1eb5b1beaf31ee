"""Samples by several filters at once, against a plain loop over all samples."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from precompute.errors import SaevxError
from precompute.store import schema as s
from precompute.store.reader import Store
from precompute.store.selection.filters import SIDES
from tests.helpers import synthetic
from tests.helpers.stores import walk
from tests.helpers.synthetic import word_feature

RED = word_feature("red")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(synthetic.small_store(tmp_path_factory))


@pytest.fixture(scope="module")
def samples(store: Store) -> list[dict[str, Any]]:
    return [store.samples.get(store.samples.sample_id(row)) for row in range(store.n_samples)]


def passes(store: Store, one: dict[str, Any], given: dict[str, Any]) -> bool:
    """Whether a sample passes the filters, one after the other."""
    limits = {flag["name"]: flag["threshold"] for flag in store.quality.flags}
    scores = one["flag_scores"]
    raised = [scores[name] is not None and scores[name] > limits[name] for name in given.get("flags", ())]
    if raised and not (any(raised) if given.get("match") == "any" else all(raised)):
        return False
    if given.get("feature") is not None:
        for m, wanted in enumerate(SIDES[given.get("side") or "image"]):
            k, z = store.events.maxima(one["row"], m)
            is_on = dict(zip(k.tolist(), z.tolist(), strict=True)).get(given["feature"], 0.0) >= (
                s.DELTA_SHARE * store.features.table["p999"][given["feature"]]
            )
            if wanted is not None and is_on != wanted:
                return False
    value = one["scores"][given["by"]] if "by" in given else None
    if (low := given.get("min_score")) is not None and (value is None or value < low):
        return False
    if (high := given.get("max_score")) is not None and (value is None or value > high):
        return False
    return bool(given.get("min_length", 0) <= one["n_text"] <= given.get("max_length", 10**9))


FILTERS = st.fixed_dictionaries(
    {"by": st.sampled_from(["pooled-cosine", "cosine", "caption-nll"])},
    optional={
        "flags": st.lists(st.sampled_from(list(s.FLAGS)), min_size=1, max_size=3, unique=True),
        "match": st.sampled_from(["any", "all"]),
        "feature": st.sampled_from([RED, RED + 1, RED + 2, word_feature("dog"), synthetic.DENSE]),
        "side": st.sampled_from(list(SIDES)),
        "min_score": st.floats(-1, 3),
        "max_score": st.floats(-1, 3),
        "min_length": st.integers(0, 12),
        "max_length": st.integers(3, 20),
    },
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILTERS, st.sampled_from(["row", "pooled-cosine", "mismatch", "caption-nll"]), st.sampled_from(["asc", "desc"]))
def test_filters_are_those_of_a_plain_loop(
    store: Store, samples: list[dict[str, Any]], filters: dict[str, Any], sort: str, order: str
) -> None:
    expected = [one for one in samples if passes(store, one, filters)]

    def value(one: dict[str, Any]) -> float | None:
        return one["row"] if sort == "row" else one["scores"].get(sort, one["flag_scores"].get(sort))

    known = sorted((one for one in expected if value(one) is not None), key=lambda one: (value(one), one["row"]))
    ids = [one["sample_id"] for one in (known if order == "asc" else known[::-1])]
    ids += [one["sample_id"] for one in expected if value(one) is None]
    pages = walk(store.selection.list, sort=sort, order=order, limit=7, **filters)
    assert [one["sample_id"] for one in pages] == ids


def test_the_filters_do_choose(store: Store, samples: list[dict[str, Any]]) -> None:
    """That the loop above compares lists that are neither empty nor whole."""
    for filters in (
        {"feature": RED, "side": "image-only"}, {"feature": RED, "side": "both"}, {"flags": ["mismatch"]},
        {"flags": ["mismatch", "blank"], "match": "any"}, {"min_length": 8}, {"by": "pooled-cosine", "min_score": 0.6},
    ):  # fmt: skip
        assert 0 < len(store.selection.ordered_rows(**filters)) < len(samples), filters


def test_words_and_the_lists_own_filters_give_the_lists_own_answer(store: Store) -> None:
    for filters in ({"q": "red"}, {"q": "a"}, {"flag": "mismatch"}, {"q": "red", "flag": "blank"}):
        own = walk(store.samples.list, sort="cosine", limit=9, **filters)
        assert walk(store.selection.list, sort="cosine", limit=9, **filters) == own
    moved = store.selection.ordered_rows(flag="mismatch:0.5")
    assert len(moved) == store.samples.list(flag="mismatch", threshold=0.5).total
    assert np.array_equal(store.selection.ordered_rows(q="…"), [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 0.5}, "A range needs the name of its score in `by`: use one of cosine"),
        ({"by": "goodness", "max_score": 0.5}, "Unknown score 'goodness'"),
        ({"feature": RED, "side": "left"}, "Unknown side 'left': use one of image-only"),
        ({"feature": 10**6}, "No feature 1000000"),
        ({"flags": ["bad"]}, "Unknown flag 'bad'"),
        ({"sort": "size"}, "Cannot sort samples by 'size'"),
        ({"order": "up"}, "Unknown order 'up': use asc or desc"),
    ],
)
def test_wrong_filters_are_one_sentence(store: Store, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SaevxError, match=message):
        store.selection.list(**options)


def test_a_cursor_of_another_list_is_refused(store: Store) -> None:
    cursor = store.selection.list(limit=2, min_length=1).next
    with pytest.raises(SaevxError, match="cursor"):
        store.selection.list(limit=2, min_length=2, cursor=cursor)
