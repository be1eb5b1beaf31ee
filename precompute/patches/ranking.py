"""Patch filtering (METHOD, *Patch filtering*): which image tokens of a sample matter, the image that is left of the
best of them, and what a model's answers say of that. Arithmetic only; run.py runs the model.

A patch is an image token: p counts those of a sample, in the model's order.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from precompute.model.batch import TEXT
from precompute.scoring.scores import Weights
from precompute.store.core import feature_columns
from precompute.store.reader import Store
from precompute.utils.ragged import run_starts
from precompute.utils.stats import bootstrap_weights, interval
from precompute.utils.types import Array

Variant = tuple[str, float, str]
"""A patch score, the percent of the patches kept by it, and what becomes of the others (`--removed`)."""

SCORES = {
    "l0": "active features of the patch",
    "l1": "sum of z over its active features",
    "cooccurring-l0": "its active features that any text token of the sample activates too",
    "cosine": "sum of ω over its active features; a feature without ω counts 0",
    "cosine-cross-modal": "as cosine, over features with the verdict cross-modal",
    "cosine-family": "as cosine-cross-modal, each family once, with the largest ω of its active members",
}
CONTROLS = {
    "random": "chance, from the seed and the sample's id",
    "vision-norm": "norm of the vision tower's own feature (vision_norm says where it was read)",
}
FULL: Variant = ("full", 100.0, "")
NONE = "none"
"""The score of the variants that keep no patch."""
WITHOUT = "without "
"""Before the score of the variants that leave out the best so many percent."""


class FeatureWeights(NamedTuple):
    """What patch scores know of each feature."""

    omega_f: Array
    """float64 [F], 0 where a feature has none."""
    cross_modal_f: Array
    """bool [F]: the verdict."""
    family_f: Array
    """int64 [F]: number of the feature's family, its own number where it has none."""

    @classmethod
    def from_store(cls, store: Store) -> Self:
        is_cross_modal = feature_columns(store.engine, "verdict = 'cross-modal'", dtype=bool)[:, 0]
        omega_f = np.nan_to_num(Weights.from_store(store).omega_f)
        return cls(omega_f, is_cross_modal, store.features.family)


# ---- scores


def patch_scores(
    offset_t: Array, feature_e: Array, z_e: Array, modality_t: Array, patch_p: Array, features: FeatureWeights
) -> dict[str, Array]:
    """SCORES of a sample's patches, float64 [p]; a patch without events, as an attention sink, has 0.

    Args:
        offset_t, feature_e, z_e: events of the sample's tokens, CSR: int64 [t+1], int64 [e], z in the SAE's units [e].
        modality_t: uint8 [t].
        patch_p: positions of the patches among the t tokens.
    """
    n_tokens = len(modality_t)
    token_e = np.repeat(np.arange(n_tokens), np.diff(offset_t))
    omega_e, cross_modal_e = features.omega_f[feature_e], features.cross_modal_f[feature_e]
    on_text_f = np.zeros(len(features.omega_f))
    on_text_f[feature_e[modality_t[token_e] == TEXT]] = 1.0
    weight_e = {
        "l0": np.ones(len(feature_e)),
        "l1": z_e.astype(np.float64),
        "cooccurring-l0": on_text_f[feature_e],
        "cosine": omega_e,
        "cosine-cross-modal": omega_e * cross_modal_e,
        "cosine-family": omega_e * largest_of_family(token_e, features.family_f[feature_e], omega_e, cross_modal_e),
    }
    return {name: np.bincount(token_e, weight_e[name], n_tokens)[patch_p] for name in SCORES}


def largest_of_family(token_e: Array, family_e: Array, omega_e: Array, counted_e: Array) -> Array:
    """bool [e]: of the events of one token and family that count, the one with the largest ω; ties go to the first."""
    order = np.lexsort((-omega_e, family_e, token_e))
    order = order[counted_e[order]]
    first_e = np.zeros(len(token_e), dtype=bool)
    first_e[order[run_starts(token_e[order], family_e[order])]] = True
    return first_e


def chances(sample_id: str, n: int, seed: int) -> Array:
    """Control `random`, float64 [n]: from the id alone, so that a sample has the same wherever it stands."""
    digest = hashlib.sha256(f"patches {seed} {sample_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8])).random(n)


def best_patches(score_p: Array, keep: float) -> Array:
    """bool [p]: the `keep` percent with the highest score, their number rounded to the nearest and at least one; ties
    go to the earlier token."""
    n_best = max(1, math.floor(len(score_p) * keep / 100 + 0.5))
    best_p = np.zeros(len(score_p), dtype=bool)
    best_p[np.argsort(-score_p, kind="stable")[:n_best]] = True
    return best_p


# ---- figures


def figures(
    hits: Mapping[Variant, Array],
    pixels: Mapping[Variant, Array],
    kinds: Sequence[str | None],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """What the command writes of its answers.

    Args:
        hits: of every variant, among them `full`, and `none` and all of `random` of each `removed`: bool [n], which of
            the n questions are answered right.
        pixels: share of the images' pixels that stayed, float64 [n].
        kinds: [n] kind of each question, where its row has one.
        resamples: bootstrap resamples of the questions, the same for every variant, so that differences are paired.
    """
    variants, n = list(hits), len(kinds)
    hit_nv = np.stack([hits[v] for v in variants], axis=1).astype(np.float64)
    draws_wv = np.concatenate([weight_wn @ hit_nv / n for weight_wn in bootstrap_weights(n, resamples, seed)])
    draws = dict(zip(variants, draws_wv.T, strict=True))
    accuracy = {v: float(hits[v].mean()) for v in variants}

    def summary(v: Variant) -> dict[str, Any]:
        limits = rounded_interval(accuracy[v], draws[v])
        by_kind = {
            kind: count_hits(hits[v][[i for i, k in enumerate(kinds) if k == kind]])
            for kind in sorted({kind for kind in kinds if kind is not None})
        }
        counts = {**count_hits(hits[v]), "low": limits["low"], "high": limits["high"]}
        return {**counts, **({"kinds": by_kind} if by_kind else {})}

    items: list[dict[str, Any]] = []
    knocked_out: list[dict[str, Any]] = []
    with_none = {}
    for v in variants:
        if v[0] == NONE:
            with_none[v[2]] = summary(v)
        if v == FULL or v[0] == NONE:
            continue
        is_knock_out = v[0].startswith(WITHOUT)
        chance = (WITHOUT * is_knock_out + "random", *v[1:])
        key = {"score": v[0].removeprefix(WITHOUT), "knock_out" if is_knock_out else "keep": v[1], "removed": v[2]}
        item = {**key, "pixels": round_value(pixels[v].mean()), **summary(v)}
        item["of_full"] = ratio(accuracy[v], accuracy[FULL], draws[v], draws[FULL])
        if v != chance:
            item["over_random"] = rounded_interval(accuracy[v] - accuracy[chance], draws[v] - draws[chance])
        (knocked_out if is_knock_out else items).append(item)
    ends = {"full": summary(FULL), "none": next(iter(with_none.values())), "none_by_removed": with_none}
    return {**ends, "kept": items, **({"knocked_out": knocked_out} if knocked_out else {})}


def count_hits(hit_n: Array) -> dict[str, Any]:
    """Right answers of bool [n], with their share."""
    hits, n = int(hit_n.sum()), len(hit_n)
    return {"hits": hits, "n": n, "accuracy": round_value(hits / n)}


def ratio(value: float, accuracy_full: float, draws: Array, full_draws: Array) -> dict[str, float] | None:
    """Value over that of the full image, with its 95 % interval; None where the latter, or a draw of it, is 0."""
    if not accuracy_full or not full_draws.all():
        return None
    return rounded_interval(value / accuracy_full, draws / full_draws)


def rounded_interval(value: float, draws: Array) -> dict[str, float]:
    """A finite figure with the 95 % interval of its bootstrap draws, to four digits."""
    limits = interval(value, draws)
    assert limits is not None
    return {name: round_value(number) for name, number in limits.items()}


def round_value(value: Any) -> float:
    return round(float(value), 4)
