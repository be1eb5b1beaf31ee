"""Pair evidence against exact fractions, against every permutation, and against plain loops over the stored maxima."""

from collections import Counter
from fractions import Fraction
from itertools import permutations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln

from precompute.steps.evidence import pair_evidence as pe
from precompute.steps.evidence.places import places
from precompute.steps.evidence.verdicts import give_verdicts
from precompute.store.events import patches
from precompute.store.histogram import percentile
from precompute.store.making.unfinished import load_step
from precompute.store.schema import IMAGE, TEXT, VERDICTS
from precompute.utils.stats import derangement
from precompute.utils.types import Array
from tests.helpers.synthetic import CARRIED, CONCEPTS, DENSE, FIRST_LOOSE, N_FEATURES, N_LOOSE, word_feature
from tests.helpers.unfinished import Part

Stratum = tuple[int, int, int]
"""Samples with the text side, with the image side, and in all."""


def strata_of(most: int) -> st.SearchStrategy[list[Stratum]]:
    one = st.integers(1, most).flatmap(lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)))
    return st.lists(one, min_size=1, max_size=5)


def tail(strata: list[Stratum], observed: int) -> float:
    text, image, n = np.array(strata).T
    return pe.upper_tail(text, image, n, observed, gammaln(np.arange(n.max() + 1) + 1.0))


def exact_tail(strata: list[Stratum], observed: int) -> Fraction:
    """The convolution of the hypergeometric distributions, in fractions."""
    total = {0: Fraction(1)}
    for text, image, n in strata:
        one = {x: Fraction(comb(text, x) * comb(n - text, image - x), comb(n, image)) for x in range(image + 1)}
        joint: dict[int, Fraction] = {}
        for (a, p), (b, q) in product(total.items(), one.items()):
            joint[a + b] = joint.get(a + b, Fraction(0)) + p * q
        total = joint
    return sum((p for x, p in total.items() if x >= observed), Fraction(0))


@given(strata_of(25), st.data())
def test_the_tail_is_the_exact_convolution(strata: list[Stratum], data: st.DataObject) -> None:
    low = sum(max(0, text + image - n) for text, image, n in strata)
    observed = data.draw(st.integers(low, sum(min(text, image) for text, image, _ in strata)))
    assert tail(strata, observed) == pytest.approx(float(exact_tail(strata, observed)), rel=1e-9)


@given(strata_of(4).filter(lambda strata: len(strata) <= 2))
def test_the_tail_is_the_share_of_permutations(strata: list[Stratum]) -> None:
    """Exchange the texts of each stratum in every way, and count."""
    totals = []
    for orders in product(*(permutations(range(n)) for _, _, n in strata)):
        both = [
            sum(order[i] < text and i < image for i in range(n))
            for order, (text, image, n) in zip(orders, strata, strict=True)
        ]
        totals.append(sum(both))
    for observed in range(min(totals), max(totals) + 1):
        assert tail(strata, observed) == pytest.approx(np.mean(np.array(totals) >= observed))


def test_far_in_the_tail_nothing_is_lost() -> None:
    strata = [(40, 45, 400), (90, 70, 700), (3, 200, 250)]
    for observed in (100, 112, 113):  # of at most 113
        exact = exact_tail(strata, observed)
        assert exact < Fraction(1, 10**80)
        assert tail(strata, observed) == pytest.approx(float(exact), rel=1e-7)


@given(st.lists(st.integers(1, 60), max_size=400), st.integers(1, 3), st.integers(0, 99))
def test_strata_hold_samples_of_about_one_length(text: list[int], n_sizes: int, seed: int) -> None:
    text_n = np.array(text, np.int64)
    image_n = np.random.default_rng(seed).integers(0, n_sizes, len(text)) * 100
    stratum = pe.strata(text_n, image_n)
    count = np.bincount(stratum)
    assert (count > 0).all() and len(count) <= pe.MAX_STRATA
    for pair in set(zip(text, image_n.tolist(), strict=True)):  # equal samples are in one stratum
        assert len(set(stratum[(text_n == pair[0]) & (image_n == pair[1])])) == 1
    if n_sizes == 1:
        assert (count >= min(pe.MIN_STRATUM, max(len(text), 1))).all()
        order = np.argsort(text_n, kind="stable")
        assert (np.diff(stratum[order]) >= 0).all()


def naive_sets(part: Part, *, alone: bool = False) -> tuple[Array, Array, Array]:
    """(bool [n, F] text above δ, the image, stratum [n]) of the pairs, from the stored maxima one by one."""
    data = part.data
    pairs = pe.paired_samples(data)
    delta = 0.1 * data.unit * percentile(data.accum["hist"], 0.999, data.accum["max"].astype(float))
    offset, feature, value = (np.load(part.path / f"collect/alone_{n}.npy") for n in ("offset", "feature", "value"))
    sides = np.zeros((2, len(pairs.row), N_FEATURES), bool)
    for i, row in enumerate(pairs.row.tolist()):
        for m in (TEXT, IMAGE):
            low, high = data.max_offset[2 * row + m : 2 * row + m + 2]
            runs = data.max_feature[low:high], data.max_value[low:high]
            if alone and m == TEXT:
                runs = feature[offset[row] : offset[row + 1]], value[offset[row] : offset[row + 1]]
            for k, v in zip(*runs, strict=True):
                sides[m, i, k] = float(v) * data.unit > delta[k, m]
    return sides[0], sides[1], pairs.stratum


@pytest.mark.parametrize("alone", [False, True])
def test_counts_and_lift_are_those_of_plain_loops(part: Part, alone: bool) -> None:
    result = load_step(part.path, "weigh")
    text, image, stratum = naive_sets(part, alone=alone)
    first = naive_sets(part)[0]
    tested = (first.sum(0) >= 16) & (image.sum(0) >= 16)
    name = "_alone" if alone else ""
    assert (~np.isnan(result[f"pair_p{name}"]) == tested).all() and tested.sum() > 20
    both = (text & image).sum(0)
    assert alone or (result["n_both"] == both).all()
    for k in np.flatnonzero(tested):
        groups = [(int(text[at, k].sum()), int(image[at, k].sum()), len(at)) for at in by_stratum(stratum)]
        expected = sum(t * i / n for t, i, n in groups)
        assert result[f"pair_p{name}"][k] == pytest.approx(float(exact_tail(groups, int(both[k]))), rel=1e-7)
        if expected:
            assert result[f"pair_lift{name}"][k] == pytest.approx(both[k] / expected)
        if not alone and both[k]:
            low = stats.poisson.sf(both[k] - 1, result["pair_lift_low"][k] * expected)
            high = stats.poisson.cdf(both[k], result["pair_lift_high"][k] * expected)
            assert (low, high) == pytest.approx((0.025, 0.025))


def by_stratum(stratum: Array) -> list[Array]:
    return [np.flatnonzero(stratum == one) for one in np.unique(stratum)]


def test_the_blocks_do_not_matter(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pe.pair_evidence(part.data)
    monkeypatch.setattr(pe, "BLOCK", 100)
    again = pe.pair_evidence(part.data)
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(again.columns[name], column, err_msg=name)


def test_exchanged_captions_pass_nothing(part: Part) -> None:
    data, rng = part.data, np.random.default_rng(0)
    pairs, delta = pe.paired_samples(data), pe.thresholds(data.accum, data.unit)
    n_s = np.bincount(pairs.stratum)

    def passing(image_row: Array | None) -> int:
        counts = pe.count_samples(pe.blocks(data, pairs, delta, image_row=image_row), n_s, N_FEATURES)
        return int(pe.evidence_of(counts, pe.can_be_tested(counts)).is_strong.sum())

    assert passing(None) >= len(CONCEPTS) / 2
    assert [passing(pairs.row[derangement(len(pairs.row), rng)]) for _ in range(20)] == [0] * 20


def test_planted_verdicts(part: Part) -> None:
    verdict = [VERDICTS[v] for v in load_step(part.path, "weigh")["verdict"]]
    for word in CONCEPTS:
        k = word_feature(word)
        assert verdict[k + 1 : k + 3] == ["text-only", "image-only"]
        assert verdict[k] in ("in-context",) if k == CARRIED else ("cross-modal", "mostly-text", "mostly-image", "rare")
    assert [verdict[word_feature(w)] for w in CONCEPTS].count("cross-modal") > len(CONCEPTS) / 2
    assert set(verdict[FIRST_LOOSE + N_LOOSE :]) == {"dead"}
    # What fires anywhere is on both sides of many pairs, and no more so than by chance: at 5 % false discoveries.
    loose = verdict[DENSE : FIRST_LOOSE + N_LOOSE]
    assert set(loose) <= {"unpaired", "weakly-paired"} and loose.count("weakly-paired") <= 2


def test_the_first_verdict_that_fits() -> None:
    n = 12
    count, samples = np.full((n, 2), 50), np.full((n, 2), 20)
    count[0], count[1], count[2] = 0, (5, 0), (0, 5)
    samples[3], samples[4], samples[5] = (20, 15), (15, 20), (15, 15)
    none = np.full(n, np.nan)
    beyond = np.arange(n) < 11
    strong = beyond & ~np.isin(np.arange(n), [10])
    evidence = pe.Evidence(none, none, none, none, beyond, strong)
    alone = evidence._replace(is_strong=strong & (np.arange(n) != 7))
    low = np.full(n, 0.1)
    low[8], low[9] = np.nan, -0.1

    def names(alone: pe.Evidence | None) -> list[str]:
        return [VERDICTS[v] for v in give_verdicts(count, pe.PairEvidence({}, samples, evidence, alone, n), low)]

    first = ["dead", "text-only", "image-only", "mostly-text", "mostly-image", "rare", "cross-modal"]
    last = ["cross-modal", "weakly-paired", "weakly-paired", "unpaired"]
    assert names(alone) == [*first, "in-context", *last] and names(None) == [*first, "cross-modal", *last]


def test_agreement_is_that_of_the_listed_examples(part: Part) -> None:
    data, result = part.data, load_step(part.path, "label")
    captions = [Counter(one["text"].split()) for one in (data.samples[i] for i in range(data.n_samples))]
    checked = 0
    for k in range(N_FEATURES):
        (rows, positions), images = data_lists(part, k)
        if len(images) < 16 or not rows:
            assert np.isnan(result["agreement"][k])
            continue
        tokens = [data.token(row, at).strip() for row, at in zip(rows, positions, strict=True)]
        count = Counter({"umb": "umbrella", "rella": "umbrella"}.get(token, token) for token in tokens)
        del count["."]
        top = [word for word, n in count.items() if 2 * n >= max(count.values())]
        has = np.array([any(word in caption for word in top) for caption in captions])
        share, base = has[images[:16]].mean(), has.mean()
        interval = stats.binomtest(int(has[images[:16]].sum()), 16).proportion_ci(method="wilson")
        for name, value in (("agreement", share), ("agreement_low", interval.low), ("agreement_high", interval.high)):
            assert result[name][k] == pytest.approx((value - base) / (1 - base)), (k, name)
        checked += 1
    assert checked > 20


def data_lists(part: Part, k: int) -> tuple[tuple[list[int], list[int]], list[int]]:
    """Rows and positions of a feature's listed text tokens; rows of its listed images."""
    lists = part.data.examples["top_row"][k], part.data.examples["top_position"][k]
    at = lists[0] >= 0
    return (lists[0][TEXT][at[TEXT]].tolist(), lists[1][TEXT][at[TEXT]].tolist()), lists[0][IMAGE][at[IMAGE]].tolist()


def test_places_are_those_of_the_events(part: Part) -> None:
    data, result = part.data, load_step(part.path, "weigh")
    total, n_tokens = np.zeros((N_FEATURES, 4, 4)), np.zeros((4, 4))
    for row in range(data.n_samples):
        sample, where = data.events.of(row), patches(data.events.of(row), data.samples[row]["views"])
        for at, y, x in zip(where.position, where.row, where.col, strict=True):
            n_tokens[y, x] += sample.modality_t[at] == IMAGE
            for e in range(sample.offset_t[at], sample.offset_t[at + 1]):
                total[sample.feature_e[e], y, x] += sample.z_e[e]
    np.testing.assert_allclose(result["place_map"], total / n_tokens)
    fires = total.sum((1, 2)) > 0
    share = np.maximum(total.sum(1).max(1), total.sum(2).max(1))[fires] / total.sum((1, 2))[fires]
    np.testing.assert_allclose(result["place_share"][fires], share)
    assert np.isnan(result["place_share"][~fires]).all() and set(result["place"]) == {""}


def test_a_feature_is_tied_to_the_smallest_place_that_has_most_of_it() -> None:
    place = np.zeros((6, 7, 7), np.int64)
    place[0, 2, 4], place[0, 6, 6] = 8, 2
    place[1, 4, :6] = 10
    place[2, [0, 2, 4], 2], place[2, 6, 6] = 10, 8
    place[3, [0, 2, 4, 6], [0, 2, 4, 6]] = 5
    place[5, 2, 4] = 1
    cells = np.zeros((7, 7), np.int64)
    cells[np.ix_([0, 2, 4, 6], range(7))] = 5
    result = places({"place": place, "cells": cells}, 1.0, np.arange(6) != 5)
    assert result.name.tolist() == ["patch 1,4", "row 2", "column 2", "", "", ""]
    assert result.share[:4].tolist() == pytest.approx([0.8, 1, 30 / 38, 0.25]) and np.isnan(result.share[4])
    assert result.mean_frc.shape == (6, 4, 7)
