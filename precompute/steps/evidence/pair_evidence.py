"""Whether a feature fires on both sides of the *same* pair more often than it would by chance (METHOD *Pair evidence*):
how many samples have it on text and image, against captions exchanged among pairs of one length.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy import optimize
from scipy.sparse import csr_matrix
from scipy.special import gammaln

from precompute.steps.cooccur import MAX_SAMPLES, chosen_rows
from precompute.steps.omega import K_PAIRED
from precompute.store.histogram import percentile
from precompute.store.making.unfinished import BLOCK, Collected
from precompute.store.schema import DELTA_SHARE, FALSE_DISCOVERY, IMAGE, TEXT
from precompute.utils.ragged import expand, offsets
from precompute.utils.stats import discoveries, poisson_interval
from precompute.utils.types import Array

MIN_LIFT, MIN_PHI, DENSE = 3.0, 0.3, 1 / 3
"""A feature on more than a third of the texts or images cannot reach a lift of 3; it needs a correlation of .3."""
MIN_STRATUM, MAX_STRATA, MAX_IMAGE_SIZES = 20, 32, 4
MAX_TILT, NEGLIGIBLE = 50.0, 1e-20

Block = tuple[int, csr_matrix, csr_matrix]
"""A stratum and, of some of its samples, which features are above δ on the text and on the image: bool [n, F]."""


class PairedSamples(NamedTuple):
    """The samples with both modalities that are counted."""

    row: Array
    """int64 [n], ascending."""
    stratum: Array
    """int64 [n]: samples whose captions are of about one length."""


class Counts(NamedTuple):
    """How many samples of each stratum have a feature above δ."""

    text_sf: Array
    """int64 [S, F]: on the text."""
    image_sf: Array
    """int64 [S, F]: on the image."""
    both_f: Array
    """int64 [F]: on both, in all strata."""
    n_s: Array
    """int64 [S]: samples."""


class Evidence(NamedTuple):
    """What the counts say of the features that are tested; NaN and False of others."""

    lift: Array
    """float64 [F]: samples with both over their number by chance."""
    low: Array
    """float64 [F]: 95 % interval of `lift`, for a Poisson count of samples with both."""
    high: Array
    """float64 [F]."""
    p: Array
    """float64 [F]: exact probability of so many or more by chance."""
    beyond_chance: Array
    """bool [F]: whether `p` holds among all that are tested."""
    is_strong: Array
    """bool [F]: whether the excess is large too."""


def thresholds(accum: dict[str, Array], unit: float) -> Array:
    """δ, float64 [F, 2] in z: 10 % of a feature's p99.9 within each modality.

    Args:
        accum: the pass's accumulators. unit: one stored unit in z.
    """
    return DELTA_SHARE * percentile(accum["hist"], 0.999, accum["max"].astype(np.float64)) * unit


def paired_samples(data: Collected) -> PairedSamples:
    """The samples with text and image, at most MAX_SAMPLES, and their strata."""
    text_n, image_n = data.sample["n_text"], data.sample["n_image"]
    row = np.flatnonzero((text_n > 0) & (image_n > 0))
    if len(row) > MAX_SAMPLES:
        row = row[chosen_rows(data.samples.values("sample_id", row))]
    return PairedSamples(row, strata(text_n[row], image_n[row]))


def strata(text_n: Array, image_n: Array) -> Array:
    """int64 [n]: samples of the same number of text tokens, and about the same number of image tokens, have the same
    number; groups of fewer than MIN_STRATUM are joined with their neighbour, and there are at most MAX_STRATA.

    Args:
        text_n, image_n: int64 [n], tokens of each sample.
    """
    size = levels(image_n, MAX_IMAGE_SIZES)
    number, n_before = np.zeros(len(text_n), np.int64), 0
    for level in range(int(size.max(initial=-1)) + 1):
        at = np.flatnonzero(size == level)
        number[at] = n_before + levels(text_n[at], MAX_STRATA // (int(size.max()) + 1))
        n_before = int(number[at].max()) + 1
    return number


def levels(value_n: Array, max_groups: int) -> Array:
    """int64 [n]: values from the smallest up in at most `max_groups` groups, equal values in one."""
    _, of_n, n_v = np.unique(value_n, return_inverse=True, return_counts=True)
    for min_size in (MIN_STRATUM, -(-len(value_n) // max_groups)):
        group_v, n_in_group, group = np.zeros(len(n_v), np.int64), 0, 0
        for at, n in enumerate(n_v.tolist()):
            if n_in_group >= min_size:
                group, n_in_group = group + 1, 0
            group_v[at], n_in_group = group, n_in_group + n
        if group and n_in_group < min_size:
            group_v[group_v == group] = group - 1
        if group_v.max(initial=0) < max_groups:
            break
    return group_v[of_n.ravel()]


def blocks(
    data: Collected, pairs: PairedSamples, delta_fm: Array, *, text_alone: bool = False, image_row: Array | None = None
) -> Iterator[Block]:
    """Which features are above δ on the samples, stratum by stratum, about BLOCK maxima at a time.

    Args:
        text_alone: take the texts that were run without their images.
        image_row: int64 [n], the sample whose image stands beside each text; default: its own.
    """
    images = pairs.row if image_row is None else image_row
    step = max(1, BLOCK * data.n_samples // max(1, len(data.max_feature)))
    for stratum in range(int(pairs.stratum.max(initial=-1)) + 1):
        members = np.flatnonzero(pairs.stratum == stratum)
        for low in range(0, len(members), step):
            at = members[low : low + step]
            rows = pairs.row[at]
            text = data.maxima_alone(rows) if text_alone else data.maxima_in(rows, TEXT)
            image = data.maxima_in(images[at], IMAGE)
            yield stratum, above_delta(text, delta_fm[:, TEXT]), above_delta(image, delta_fm[:, IMAGE])


def above_delta(maxima: csr_matrix, delta_f: Array) -> csr_matrix:
    """bool CSR [n, F]: where the maxima exceed δ."""
    result = csr_matrix((maxima.data > delta_f[maxima.indices], maxima.indices, maxima.indptr), shape=maxima.shape)
    result.eliminate_zeros()
    return result


def count_samples(samples: Iterable[Block], n_s: Array, n_features: int) -> Counts:
    """The counts of all blocks.

    Args:
        n_s: int64 [S]: samples of each stratum.
    """
    text_sf, image_sf = (np.zeros((len(n_s), n_features), np.int64) for _ in range(2))
    both_f = np.zeros(n_features, np.int64)
    for stratum, text, image in samples:
        text_sf[stratum] += np.bincount(text.indices, minlength=n_features)
        image_sf[stratum] += np.bincount(image.indices, minlength=n_features)
        both_f += np.bincount(text.multiply(image).tocsr().indices, minlength=n_features)
    return Counts(text_sf, image_sf, both_f, n_s)


def can_be_tested(counts: Counts) -> Array:
    """bool [F]: features with K samples on either side."""
    return (counts.text_sf.sum(0) >= K_PAIRED) & (counts.image_sf.sum(0) >= K_PAIRED)


def evidence_of(counts: Counts, is_tested: Array) -> Evidence:
    """The evidence of the features that are tested.

    Args:
        is_tested: bool [F].
    """
    text_f, image_f, n = counts.text_sf.sum(0), counts.image_sf.sum(0), int(counts.n_s.sum())
    by_chance_f = (counts.text_sf * counts.image_sf / np.maximum(counts.n_s, 1)[:, None]).sum(0)
    both_f = counts.both_f.astype(np.float64)
    p = np.full(len(both_f), np.nan)
    log_factorial = gammaln(np.arange(int(counts.n_s.max(initial=0)) + 1) + 1.0)
    for k in np.flatnonzero(is_tested):
        p[k] = upper_tail(counts.text_sf[:, k], counts.image_sf[:, k], counts.n_s, int(counts.both_f[k]), log_factorial)
    with np.errstate(divide="ignore", invalid="ignore"):
        lift, low, high = (
            np.where(is_tested & (by_chance_f > 0), count / by_chance_f, np.nan)
            for count in (both_f, *poisson_interval(counts.both_f))
        )
        margins = text_f * image_f * (n - text_f).astype(np.float64) * (n - image_f)
        phi = (both_f * n - text_f * image_f) / np.sqrt(margins)
    beyond = discoveries(p, FALSE_DISCOVERY)
    is_dense = np.maximum(text_f, image_f) > DENSE * n
    is_strong = beyond & (np.nan_to_num(lift) >= MIN_LIFT) | (beyond & is_dense & (np.nan_to_num(phi) >= MIN_PHI))
    return Evidence(lift, low, high, p, beyond, is_strong)


def upper_tail(text_s: Array, image_s: Array, n_s: Array, n_seen: int, log_factorial: Array) -> float:
    """P(samples with both ≥ observed) where each stratum's texts are exchanged at random: exact.

    A stratum's count is hypergeometric, the total their convolution. Far in the tail its terms would be lost beside the
    largest, so each distribution is first weighted by exp(θ · count), with θ such that the observed total is the
    expected one, and the weight is taken back at the end.

    Args:
        text_s, image_s, n_s: int64 [S], samples of each stratum with the text side, with the image side, and in all.
        log_factorial: float64, log n! from 0 to the largest of n_s.
    """
    has_both = (text_s > 0) & (image_s > 0)
    text, image, n = text_s[has_both], image_s[has_both], n_s[has_both]
    low, length = np.maximum(0, text + image - n), np.minimum(text, image) - np.maximum(0, text + image - n) + 1
    if n_seen <= low.sum():
        return 1.0
    x, s, lf = expand(low, length), np.repeat(np.arange(len(n)), length), log_factorial
    margins = lf[text] + lf[n - text] + lf[image] + lf[n - image] - lf[n]
    log_p = margins[s] - lf[x] - lf[text[s] - x] - lf[image[s] - x] - lf[(n - text - image)[s] + x]
    begin = offsets(length)[:-1]

    def tilt(theta: float) -> tuple[Array, float]:
        """Each stratum's distribution, and log of the product of what they summed to."""
        log_w = log_p + theta * x
        top = np.maximum.reduceat(log_w, begin)
        weight = np.exp(log_w - top[s])
        total = np.add.reduceat(weight, begin)
        return weight / total[s], float((top + np.log(total)).sum())

    def shortfall(theta: float) -> float:
        return float(tilt(theta)[0] @ x) - n_seen

    theta = 0.0
    if shortfall(0.0) < 0:
        theta = MAX_TILT if shortfall(MAX_TILT) < 0 else float(optimize.brentq(shortfall, 0.0, MAX_TILT, xtol=1e-3))
    p_x, log_total = tilt(theta)
    joint, first = np.ones(1), 0
    for at, stop, least_x in zip(begin.tolist(), (begin + length).tolist(), low.tolist(), strict=True):
        terms = np.flatnonzero(p_x[at:stop] > NEGLIGIBLE)  # one run: the distribution has one peak
        joint = np.convolve(joint, p_x[at + terms[0] : at + terms[-1] + 1])
        first += least_x + int(terms[0])
    beyond = np.arange(len(joint)) + first - n_seen
    tail = (joint * np.exp(-theta * np.maximum(beyond, 0)))[beyond >= 0].sum()
    return min(1.0, float(np.exp(log_total - theta * n_seen) * tail))


class PairEvidence(NamedTuple):
    """What `pair_evidence` leaves."""

    columns: dict[str, Array]
    """Each float64 or int64 [F], by the names of the store's columns."""
    samples_fm: Array
    """int64 [F, 2]: samples above δ per modality."""
    evidence: Evidence
    of_text_alone: Evidence | None
    """With the texts run without their images; None where they were not."""
    n_samples: int
    """Samples with both modalities that were counted."""


def pair_evidence(data: Collected) -> PairEvidence:
    """How often features fire on both sides of one pair, against chance."""
    pairs, delta_fm = paired_samples(data), thresholds(data.accum, data.unit)
    n_s = np.bincount(pairs.stratum)
    counts = count_samples(blocks(data, pairs, delta_fm), n_s, data.n_features)
    is_tested = can_be_tested(counts)
    evidence, of_text_alone = evidence_of(counts, is_tested), None
    columns = {
        "pair_lift": evidence.lift,
        "pair_lift_low": evidence.low,
        "pair_lift_high": evidence.high,
        "pair_p": evidence.p,
        "n_both": counts.both_f,
    }
    if data.has_alone:
        of_texts = count_samples(blocks(data, pairs, delta_fm, text_alone=True), n_s, data.n_features)
        of_text_alone = evidence_of(of_texts, is_tested)
        columns |= {"pair_lift_alone": of_text_alone.lift, "pair_p_alone": of_text_alone.p}
    samples_fm = np.stack([counts.text_sf.sum(0), counts.image_sf.sum(0)], axis=1)
    return PairEvidence(columns, samples_fm, evidence, of_text_alone, len(pairs.row))
