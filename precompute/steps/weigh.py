"""Step `weigh`: ω of every feature, its pair evidence and verdict, and where and how often it fires on either side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from precompute.steps.evidence.pair_evidence import pair_evidence
from precompute.steps.evidence.places import places
from precompute.steps.evidence.verdicts import give_verdicts
from precompute.steps.omega import (
    K_PAIRED,
    TOP_ALL_PAIRS,
    ActiveTokens,
    active_tokens,
    common_means,
    omega_all_pairs,
    omega_paired,
    rank_weights,
)
from precompute.store.histogram import percentile
from precompute.store.making.unfinished import Collected, save_step
from precompute.store.schema import DELTA_SHARE, IMAGE, KEPT_MAXIMA, OMEGA_FIELDS
from precompute.utils.files import new_array
from precompute.utils.ragged import offsets, strongest_in_runs
from precompute.utils.types import Array


def sample_counts(data: Collected) -> tuple[Array, Array]:
    """int64 [F, 2] samples in which a token of the modality activates the feature, and [F] with both."""
    n_fm, both_f = np.zeros((data.n_features, 2), np.int64), np.zeros(data.n_features, np.int64)
    for low, high in data.blocks():
        text, image = (m.astype(bool) for m in data.maxima(low, high))
        for m, matrix in enumerate((text, image)):
            n_fm[:, m] += np.bincount(matrix.indices, minlength=data.n_features)
        both_f += np.bincount(text.multiply(image).tocsr().indices, minlength=data.n_features)
    return n_fm, both_f


def cut_maxima(data: Collected, p999: Array) -> None:
    """Writes `events/max_*`: of each sample and modality the 256 maxima largest relative to p99.9, ids
    rising.
    """
    folder = data.part / "events"
    length = np.minimum(np.diff(data.max_offset), KEPT_MAXIMA)
    offset = offsets(length)
    np.save(folder / "max_offset.npy", offset)

    shape = (int(offset[-1]),)
    feature_out = new_array(folder / "max_feature.npy", data.max_feature.dtype, shape)
    value_out = new_array(folder / "max_value.npy", data.max_value.dtype, shape)
    for low, high in data.blocks():
        first, last = int(data.max_offset[2 * low]), int(data.max_offset[2 * high])
        feature, value = np.asarray(data.max_feature[first:last]), np.asarray(data.max_value[first:last])
        ratio = value.astype(np.float64) * data.unit / np.maximum(p999[feature], 1e-30)
        is_top = strongest_in_runs(ratio, np.asarray(data.max_offset[2 * low : 2 * high + 1]) - first, KEPT_MAXIMA)
        target = slice(int(offset[2 * low]), int(offset[2 * high]))
        feature_out[target], value_out[target] = feature[is_top], value[is_top]
    for array in (feature_out, value_out):
        array.flush()


def frequencies(data: Collected, count_fm: Array, n_tokens: Mapping[str, int]) -> dict[str, Array]:
    """How often each feature fires, by the names of the store's columns.

    Args:
        count_fm: int64 [F, 2]: active tokens. n_tokens: of the data, by modality.
    """
    n_fm, both_f = sample_counts(data)
    tokens_m = np.array([n_tokens["text"], n_tokens["image"]], dtype=np.float64)
    density_fm = count_fm / np.maximum(tokens_m, 1)
    n_either = n_fm.sum(1) - both_f
    with np.errstate(divide="ignore", invalid="ignore"):
        share = density_fm[:, IMAGE] / density_fm.sum(1)
        share_both = both_f / n_either
    return {
        "samples": n_fm,
        "n_samples": n_either,
        "density": density_fm,
        "modality_share": share,
        "same_sample_rate": share_both,
    }


def profile_tokens(tokens: ActiveTokens) -> Array:
    """The tokens behind each feature's profile (step `index`): int64 [F, 2, K_PAIRED], its strongest of D_s as rows of
    the residual map, −1 where there are fewer.

    Args:
        tokens: with one token a sample.
    """
    entry = tokens.start[:-1, None] + np.arange(K_PAIRED)
    is_valid = entry < tokens.start[1:, None]
    tops = np.where(is_valid, np.append(tokens.resid, -1)[np.minimum(entry, len(tokens.resid))], -1)
    return tops.reshape(-1, 2, K_PAIRED)


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `delta` (z, None = 10 % of p99.9), `omega`, `repeat_samples`, `resamples`, `seed`,
    `directions` (callable → float [F, d])."""
    data = Collected(part, manifest)
    count_fm, accum = data.accum["count"], data.accum
    largest_f = accum["max"].astype(np.float64).max(1)
    p999 = percentile(accum["hist"].sum(1), 0.999, largest_f) * data.unit
    fixed_delta = options.get("delta")
    delta = DELTA_SHARE * p999 if fixed_delta is None else np.full(data.n_features, float(fixed_delta))

    cut_maxima(data, p999)
    repeat = bool(options.get("repeat_samples", False))
    tokens = active_tokens(data, delta, per_sample=K_PAIRED if repeat else 1)
    one_per_sample = tokens if not repeat else active_tokens(data, delta, per_sample=1)
    samples_ds = np.diff(one_per_sample.start).reshape(-1, 2)
    testable = np.flatnonzero((samples_ds >= K_PAIRED).all(1))
    seed = int(options.get("seed", 0))
    result = {name: np.full(data.n_features, np.nan) for name in OMEGA_FIELDS}
    means = common_means(data)
    if len(testable):
        directions = np.asarray(options["directions"](), dtype=np.float32)
        draws = rank_weights(int(options.get("resamples", 1000)), seed)
        of_features = omega_paired(data, tokens, means, directions, testable, draws)
        for name, values in of_features.items():
            result[name][testable] = values
    kind = str(options.get("omega", "paired"))
    all_pairs_f = np.full(data.n_features, np.nan)
    if kind == "all-pairs":
        all_pairs_f = omega_all_pairs(data, active_tokens(data, delta, per_sample=TOP_ALL_PAIRS))

    pairs = pair_evidence(data)
    place = places(accum, data.unit, pairs.samples_fm[:, IMAGE] >= K_PAIRED)
    save_step(
        part,
        "weigh",
        **result,
        **pairs.columns,
        **place.columns(),
        top_resid=profile_tokens(one_per_sample),
        mu=means.mu_md,
        omega_all_pairs=all_pairs_f,
        p999=p999,
        delta=delta,
        verdict=give_verdicts(count_fm, pairs, result["lift_low"]),
        **frequencies(data, count_fm, manifest["tokens"]),
        samples_ds=samples_ds,
    )
    default = {"kind": "share-of-p999", "value": DELTA_SHARE}
    n_dead = {name: int((count_fm[:, m] == 0).sum()) for m, name in enumerate(("text", "image"))}
    return {
        "delta": default if fixed_delta is None else {"kind": "fixed", "value": float(fixed_delta)},
        "pair_evidence": {"n_samples": pairs.n_samples, "text_alone": data.has_alone},
        "omega": {"kind": kind, "k": K_PAIRED, "n_ds": len(data.ds_rows), "repeat_samples": repeat},
        "quality": {
            **manifest.get("quality", {}),
            "dead": {**n_dead, "both": int((count_fm.sum(1) == 0).sum())},
        },
    }
