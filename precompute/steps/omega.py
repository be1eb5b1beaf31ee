"""ω of a feature, and the controls without which it is no evidence (METHOD *Cross-modal weight ω*).

`omega_paired` is the paper's Algorithm 1, `omega_all_pairs` the variant of the authors' code. Both are computed over
D_s: the samples, by default 1,000, of which the pass writes down the residual vectors h.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy import stats
from tqdm import tqdm

from precompute.store.events import of_bits
from precompute.store.making.unfinished import Collected
from precompute.store.schema import IMAGE, OMEGA_FIELDS, TEXT
from precompute.utils import memory
from precompute.utils.ragged import rank_in_run, run_starts
from precompute.utils.stats import bootstrap_weights, unit
from precompute.utils.types import Array

K_PAIRED = 16
K_ALL_PAIRS, TOP_ALL_PAIRS = 5, 30
_BLOCK_BYTES = 1 << 27
PIECE_BYTES = 1 << 24
"""Of D_s's residuals as float64, at a time."""


class ActiveTokens(NamedTuple):
    """Tokens of D_s with z > δ, ordered by feature, modality, value falling, row, position."""

    feature: Array
    """int64 [e]."""
    modality: Array
    """int64 [e]: 0 text, 1 image."""
    value: Array
    """float64 [e], in stored units."""
    row: Array
    """int64 [e]: the sample."""
    resid: Array
    """int64 [e]: row of the residual map."""
    start: Array
    """int64 [2F + 1]: entries of (feature, modality) begin at feature · 2 + modality."""


def to_float(bits: Array) -> Array:
    """bf16 bits → float64, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def active_tokens(data: Collected, delta: Array, *, per_sample: int) -> ActiveTokens:
    """Tokens of D_s above δ, at most `per_sample` per (feature, modality, sample): the strongest, then the
    earliest.

    Args:
        delta: float64 [F] in z.
        per_sample: 1 is METHOD's; larger is the authors' way (`--repeat-samples`, `all-pairs`).
    """
    parts: list[tuple[Array, ...]] = []
    events = data.events
    bounds = np.searchsorted(data.resid_row, np.append(data.ds_rows, data.ds_rows[-1] + 1) if len(data.ds_rows) else [])
    for i, row in enumerate(data.ds_rows.tolist()):
        low, high = int(bounds[i]), int(bounds[i + 1])
        if low == high:
            continue
        sample = events.of(row)
        n_e = np.diff(sample.offset_t)
        resid_t = np.full(len(n_e), -1, dtype=np.int64)
        resid_t[data.resid_pos[low:high]] = np.arange(low, high)
        token_e = np.repeat(np.arange(len(n_e)), n_e)
        keep = (sample.z_e > delta[sample.feature_e]) & (resid_t[token_e] >= 0)
        token, bits = token_e[keep], (sample.z_e[keep] / data.unit).astype(np.float16).view(np.uint16)
        group = sample.feature_e[keep] * 2 + sample.modality_t[token]
        # A positive float16's bits rise with it: one sort of numbers for group, falling value and rising token.
        packed_key = np.sort(group << 40 | (0xFFFF - bits.astype(np.int64)) << 24 | token)
        packed_key = packed_key[rank_in_run(packed_key >> 40) < per_sample]
        value = of_bits(0xFFFF - (packed_key >> 24 & 0xFFFF)).astype(np.float64)
        parts.append((packed_key >> 40, value, np.full(len(packed_key), row, np.int64), resid_t[packed_key & 0xFFFFFF]))
    no_parts = [(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))]
    group, value, rows, resid = (np.concatenate(x) for x in zip(*(parts or no_parts), strict=True))
    order = np.lexsort((resid, rows, -value, group))  # resid rows of a sample lie in token order
    group = group[order]
    start = np.searchsorted(group, np.arange(2 * data.n_features + 1))
    return ActiveTokens(group // 2, group % 2, value[order], rows[order], resid[order], start)


class Means(NamedTuple):
    """D_s's common directions. Axis 0 of the pooled arrays follows `ds_rows`."""

    mu_md: Array
    """float64: mean h per modality."""
    unit_smd: Array
    """float64: mean unit vector of a sample's tokens per modality."""
    unit_centred_smd: Array
    """float64: the same on h − μ."""


def blocks(data: Collected) -> Iterator[list[slice]]:
    """D_s's residuals in blocks of _BLOCK_BYTES, by which sums are rounded, each in pieces of about PIECE_BYTES (one
    sample at least) that cut none of the block's samples."""
    n, d = data.resid.shape
    n_block, n_piece = (max(1, size // (8 * d)) for size in (_BLOCK_BYTES, PIECE_BYTES))
    starts = np.flatnonzero(np.diff(data.resid_row)) + 1
    for begin in range(0, n, n_block):
        end = min(begin + n_block, n)
        cuts = np.r_[begin, starts[(starts > begin) & (starts < end)], end]
        pieces, at = [], 0
        while at + 1 < len(cuts):
            stop = max(at + 1, int(np.searchsorted(cuts, cuts[at] + n_piece, "right")) - 1)
            pieces.append(slice(int(cuts[at]), int(cuts[stop])))
            at = stop
        yield pieces


def common_means(data: Collected) -> Means:
    """μ_m and the mean unit vectors ū_m(a), raw and centred, over D_s's non-special tokens."""
    d = data.resid.shape[1]
    modality = data.resid_modality.astype(np.int64)
    total_md = np.zeros((2, d))
    for block in blocks(data):
        part_md = np.zeros((2, d))
        for piece in block:
            h_td = to_float(data.resid[piece])
            for m in (TEXT, IMAGE):  # row after row, wherever it is cut
                part_md[m] = np.concatenate([part_md[m : m + 1], h_td[modality[piece] == m]]).sum(0)
            memory.release(data.resid)
        total_md += part_md
    n_m = np.bincount(modality, minlength=2)[:2]
    mu_md = total_md / np.maximum(n_m, 1)[:, None]

    n_rows = len(data.ds_rows)
    sums = np.zeros((2, n_rows * 2, d))  # raw, centred
    group = np.searchsorted(data.ds_rows, data.resid_row) * 2 + modality
    for piece in (piece for block in blocks(data) for piece in block):
        h_td = to_float(data.resid[piece])
        groups = group[piece]
        order = np.argsort(groups, kind="stable")
        first = run_starts(groups[order])
        mu = mu_md[modality[piece]]
        for kind, shift in enumerate((0.0, mu)):
            sums[kind][groups[order][first]] += np.add.reduceat(unit(h_td - shift)[order], first, axis=0)
        memory.release(data.resid)
    n_g = np.maximum(np.bincount(group, minlength=n_rows * 2), 1)[:, None]
    raw_g2d, centred_g2d = (p.reshape(n_rows, 2, d) for p in (sums[0] / n_g, sums[1] / n_g))
    return Means(mu_md, raw_g2d, centred_g2d)


def rank_weights(resamples: int, seed: int) -> Array:
    """float64 [resamples, K_PAIRED]: the share of each rank in seeded bootstrap draws of the ranks."""
    return np.concatenate(list(bootstrap_weights(K_PAIRED, resamples, seed))) / K_PAIRED


def omega_paired(
    data: Collected,
    tokens: ActiveTokens,
    means: Means,
    directions_fd: Array,
    features: Array,
    weight_bk: Array,
) -> dict[str, Array]:
    """ω `paired` and its controls: ω_k = 1/K · Σ_r cos(h_text(k, r), h_image(k, r)). Here h_text(k, r) is h of the text
    token on which feature k is r-th strongest, with one token a sample; h_image(k, r) likewise.

    Args:
        directions_fd: d_k, float [F, d], in units of h.
        features: int64 [n], each with at least K samples in both modalities.
        weight_bk: float64 [b, K], of `rank_weights`; one set of draws serves all features.

    Returns:
        float64 [n] by each name of `OMEGA_FIELDS`.
    """
    k, d = K_PAIRED, data.resid.shape[1]
    result = {name: np.full(len(features), np.nan) for name in OMEGA_FIELDS}
    step = max(1, _BLOCK_BYTES // (8 * 8 * k * d))
    for low in tqdm(range(0, len(features), step), desc="weigh", unit="block", disable=None):
        block = features[low : low + step]
        at = slice(low, low + len(block))
        sides = []
        for m in (TEXT, IMAGE):
            entry_fk = tokens.start[block * 2 + m][:, None] + np.arange(k)
            h_fkd = to_float(data.resid[tokens.resid[entry_fk]])
            own_fkd = (tokens.value[entry_fk] * data.unit)[..., None] * directions_fd[block].astype(np.float64)[:, None]
            sample_fk = np.searchsorted(data.ds_rows, tokens.row[entry_fk])
            sides.append((h_fkd, h_fkd - means.mu_md[m], own_fkd, sample_fk))
        (h_t, c_t, own_t, s_t), (h_i, c_i, own_i, s_i) = sides

        def dot(a: Array, b: Array) -> Array:
            return np.einsum("fkd,fkd->fk", a, b)

        cosine_fk = dot(unit(h_t), unit(h_i))
        base_fk = dot(means.unit_smd[s_t, TEXT], means.unit_smd[s_i, IMAGE])
        base_centred_fk = dot(means.unit_centred_smd[s_t, TEXT], means.unit_centred_smd[s_i, IMAGE])
        alone_fk = dot(unit(c_t - own_t), unit(c_i - own_i))
        lift_fk, lift_alone_fk = cosine_fk - base_fk, alone_fk - base_centred_fk
        low_f, high_f = np.percentile(lift_fk @ weight_bk.T, [2.5, 97.5], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            p_f = stats.ttest_1samp(lift_alone_fk, 0.0, axis=1, alternative="greater").pvalue
        result["omega"][at] = cosine_fk.mean(1)
        result["omega_baseline"][at] = base_fk.mean(1)
        result["omega_centred"][at] = dot(unit(c_t), unit(c_i)).mean(1)
        result["omega_without_self"][at] = alone_fk.mean(1)
        result["lift"][at] = lift_fk.mean(1)
        result["lift_low"][at], result["lift_high"][at] = low_f, high_f
        result["lift_without_self"][at] = lift_alone_fk.mean(1)
        # No spread at all gives no t: certain if the mean is above 0, else no evidence.
        result["p_value"][at] = np.where(np.isnan(p_f), np.where(lift_alone_fk.mean(1) > 0, 0.0, 1.0), p_f)
    return result


def omega_all_pairs(data: Collected, tokens: ActiveTokens) -> Array:
    """ω `all-pairs`, float64 [F]: the mean of all cosines between h of text tokens and h of image tokens, the five
    strongest of each among the feature's thirty strongest. This is the dot product of two mean unit vectors.

    NaN where the thirty lack a modality. `tokens` must hold repeated samples.
    """
    order = np.lexsort((tokens.resid, tokens.row, -tokens.value, tokens.feature))
    feature = tokens.feature[order]
    order = order[rank_in_run(feature) < TOP_ALL_PAIRS]
    group = tokens.feature[order] * 2 + tokens.modality[order]
    by_group = np.argsort(group, kind="stable")  # keeps the order of strength
    order, group = order[by_group], group[by_group]
    is_chosen = rank_in_run(group) < K_ALL_PAIRS
    order, group = order[is_chosen], group[is_chosen]
    omega = np.full(data.n_features, np.nan)
    count = np.bincount(group, minlength=2 * data.n_features).reshape(-1, 2)
    features = np.flatnonzero(count.all(1))
    start = np.searchsorted(group, np.arange(2 * data.n_features + 1))
    step = max(1, _BLOCK_BYTES // (8 * 4 * K_ALL_PAIRS * data.resid.shape[1]))
    for low in range(0, len(features), step):
        block = features[low : low + step]
        sides = []
        for m in (TEXT, IMAGE):
            first, n = start[block * 2 + m], count[block, m]
            entry = np.minimum(first[:, None] + np.arange(K_ALL_PAIRS), (first + n - 1)[:, None])
            mask = (np.arange(K_ALL_PAIRS) < n[:, None])[..., None]
            sides.append((unit(to_float(data.resid[tokens.resid[order[entry]]])) * mask).sum(1) / n[:, None])
        omega[block] = np.einsum("fd,fd->f", *sides)
    return omega
