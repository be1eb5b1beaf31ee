"""Co-occurrence against counting on dense sets."""

import hashlib

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from precompute.steps import cooccur
from precompute.store.making.unfinished import load_step
from precompute.store.relations.feature_pairs import COUNTS, SORTS, FeaturePairs
from precompute.store.schema import IMAGE, TEXT
from precompute.utils.stats import derangement
from tests.helpers.synthetic import word_feature
from tests.helpers.unfinished import Part


def dense_sets(part: Part) -> np.ndarray:
    e, n = part.data.events, part.data.n_samples
    sets = np.zeros((2, n, part.data.n_features), int)
    for row in range(n):
        for m in (TEXT, IMAGE):
            sets[m, row, e.maxima(row, m)[0]] = 1
    return sets


def test_counts_lift_npmi_and_control(part: Part) -> None:
    result, sets, n = load_step(part.path, "cooccur"), dense_sets(part), part.data.n_samples
    order = derangement(n, np.random.Generator(np.random.PCG64(part.options["seed"] + 3)))
    sides = {"text-image": (0, 1), "text-text": (0, 0), "image-image": (1, 1)}
    for kind, (x, y) in sides.items():
        first, second = sets[x], sets[y]
        support, shuffled = first.T @ second, first[order].T @ second
        n_a, n_b = first.sum(0), second.sum(0)
        a, b = result[f"{kind}/a"], result[f"{kind}/b"]
        assert len(a) > 20
        assert (result[f"{kind}/support"] == support[a, b]).all()
        assert (result[f"{kind}/shuffled"] == shuffled[a, b]).all()
        counts = (result[f"{kind}/{name}"] for name in COUNTS)
        pairs = FeaturePairs.from_counts(kind, counts, result["n_samples"].astype(np.uint32), n)
        report = pairs.measures(np.arange(len(a)))
        assert (report.n_a == n_a[a]).all() and (report.n_b == n_b[b]).all()
        lift = n * support[a, b] / (n_a[a] * n_b[b])
        np.testing.assert_allclose(report.lift, lift, rtol=1e-12)
        np.testing.assert_allclose(report.npmi, np.log(lift) / -np.log(support[a, b] / n), rtol=1e-12)
        np.testing.assert_allclose(report.lift_shuffled, n * shuffled[a, b] / (n_a[a] * n_b[b]), rtol=1e-12)
        if x == y:
            assert (a < b).all()


def test_the_strongest_partners_are_kept(part: Part) -> None:
    """Each feature keeps its 16 best of all features, not of a batch of them; both sides choose."""
    result, sets, n = load_step(part.path, "cooccur"), dense_sets(part), part.data.n_samples
    support = sets[0].T @ sets[1]
    n_a, n_b = sets[0].sum(0), sets[1].sum(0)
    expected = set()
    for matrix, mine, other, turn in ((support, n_a, n_b, False), (support.T, n_b, n_a, True)):
        for k in range(len(matrix)):
            partners = [j for j in range(len(matrix)) if matrix[k, j] >= cooccur.MIN_SUPPORT]
            value = {
                j: cooccur.npmi(matrix[k, j : j + 1], mine[k : k + 1], other[j : j + 1], n)[1][0] for j in partners
            }
            best = sorted(partners, key=lambda j: (-value[j], -matrix[k, j], j))[: cooccur.KEPT]
            expected |= {(j, k) if turn else (k, j) for j in best}
    got = set(zip(result["text-image/a"].tolist(), result["text-image/b"].tolist(), strict=True))
    assert got == expected


@pytest.mark.parametrize("entries", [64, 1 << 25])
def test_feature_blocks_change_nothing(part: Part, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [csr_matrix(x.astype(np.int32)) for x in dense_sets(part)]
    order = np.roll(np.arange(part.data.n_samples), 1)
    whole = cooccur.partner_pairs(*sets, same=False, order=order)
    monkeypatch.setattr(cooccur, "_BLOCK_ENTRIES", entries)
    for x, y in zip(whole, cooccur.partner_pairs(*sets, same=False, order=order), strict=True):
        assert np.array_equal(x, y)


def test_planted_partners(part: Part) -> None:
    """A word's text-only feature goes with its image-only one, well above the control."""
    result = load_step(part.path, "cooccur")
    k = word_feature("dog")
    hit = (result["text-image/a"] == k + 1) & (result["text-image/b"] == k + 2)
    assert hit.sum() == 1
    assert result["text-image/support"][hit][0] > 3 * result["text-image/shuffled"][hit][0]


def test_npmi_of_what_every_sample_has_is_zero() -> None:
    lift, value = cooccur.npmi(np.array([10]), np.array([10]), np.array([10]), 10)
    assert lift[0] == 1 and value[0] == 0


def test_rows_with_the_smallest_hash() -> None:
    ids = [f"s{i}" for i in range(50)]
    expected = sorted(sorted(range(50), key=lambda i: hashlib.sha256(ids[i].encode()).digest())[:7])
    assert cooccur.chosen_rows(ids, 7).tolist() == expected
    assert cooccur.chosen_rows(ids).tolist() == list(range(50))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("in_a_family", [1, 3])
def test_lists_of_pairs_in_every_order(part: Part, sort: str, in_a_family: int) -> None:
    """The ready orders, filtered and folded, against plain loops; a feature's pairs from both sides."""
    result, n = load_step(part.path, "cooccur"), part.data.n_samples
    family = np.arange(part.data.n_features) // in_a_family
    for kind in ("text-image", "image-image"):
        counts = (result[f"{kind}/{name}"] for name in COUNTS)
        pairs = FeaturePairs.from_counts(kind, counts, result["n_samples"].astype(np.uint32), n)
        report = pairs.measures(np.arange(len(pairs)))
        key = getattr(report, sort)
        ranked = sorted(range(len(pairs)), key=lambda i: (-key[i], -report.support[i], report.a[i], report.b[i]))
        order = pairs.by_support if sort == "support" else pairs.column(f"by_{sort}")
        assert order.tolist() == ranked
        for support, lift in ((0, 0.0), (7, 1.5), (12, 3.0), (n, 1.5)):
            supported = [i for i in ranked if report.support[i] >= support]
            strong = [i for i in supported if report.lift[i] >= lift]
            of_families: dict[tuple[int, ...], list[int]] = {}
            for i in strong:
                two = (int(family[report.a[i]]), int(family[report.b[i]]))
                if two[0] != two[1]:
                    of_families.setdefault(two if kind == "text-image" else tuple(sorted(two)), []).append(i)
            enough_lift = pairs.strong_pairs(order, family, lift)
            assert enough_lift.pair_list(support, True).order.tolist() == strong
            at, n_alike, hidden = enough_lift.pair_list(support, False)
            assert at.tolist() == [one[0] for one in of_families.values()]
            assert n_alike.tolist() == [len(one) - 1 for one in of_families.values()]
            assert sum(hidden.values()) + len(at) == len(supported) and hidden["alike"] == n_alike.sum()
        feature = int(report.b[0])
        assert pairs.of(feature, "a").tolist() == np.flatnonzero(report.a == feature).tolist()
        assert pairs.of(feature, "b").tolist() == np.flatnonzero(report.b == feature).tolist()
