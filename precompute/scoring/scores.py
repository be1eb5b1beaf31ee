"""Every score of METHOD *Scoring and ranking data*, by its name: one implementation for stored, new and live pairs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.sparse import csr_matrix

from precompute.scoring.pairs import Pairs
from precompute.store.reader import Store
from precompute.utils.ragged import offsets, strongest_in_runs
from precompute.utils.stats import ratio
from precompute.utils.types import Array

TOP_WEIGHTED = 32

FROM_LIKELIHOOD = ("caption-nll", "image-gain")
"""Scores that need the whole model and no SAE."""


class Weights(NamedTuple):
    """Per feature: ω and the weight of `supported-share`."""

    omega_f: Array
    """float64 [F], NaN where a feature has none."""
    support_f: Array
    """float64 [F] ≥ 0: rarity on text times centred ω."""

    @classmethod
    def from_features(cls, omega: Array, omega_centred: Array, samples_text: Array, n_samples: int) -> Self:
        """
        Args:
            omega, omega_centred: float64 [F]. samples_text: int [F] samples with the feature on text.
        """
        rarity_f = np.maximum(np.log(n_samples / (1 + samples_text)), 0)
        return cls(omega, rarity_f * np.maximum(np.nan_to_num(omega_centred), 0))

    @classmethod
    def from_step(cls, weigh: Mapping[str, Array], manifest: Mapping[str, Any], n_samples: int) -> Self:
        """The weights of a store in the making, from the arrays of step `weigh`."""
        return cls.from_features(
            weigh[_omega_name(manifest)], weigh["omega_centred"], weigh["samples"][:, 0], n_samples
        )

    @classmethod
    def from_store(cls, store: Store) -> Self:
        """The weights of a finished store: any number of new pairs can be scored with them."""
        table = store.features.table
        return cls.from_features(
            table[_omega_name(store.manifest)], table["omega_centred"], table["samples_text"], store.n_samples
        )


def _omega_name(manifest: Mapping[str, Any]) -> str:
    return "omega_all_pairs" if manifest["omega"]["kind"] == "all-pairs" else "omega"


def pair_scores(pairs: Pairs, weights: Weights, seed: int = 0) -> dict[str, Array]:
    """Every score by its name, float64 [n]; NaN where it does not apply, as `random` where pairs have no id."""
    scores = score_maxima(*pairs.maxima, weights)
    n_tokens_n = pairs.n_tokens_nm.sum(1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores["l0"] = pairs.n_events_n / n_tokens_n
    scores["caption-nll"] = -pairs.nll_n
    scores["image-gain"] = pairs.nll_alone_n - pairs.nll_n
    ids = pairs.sample_ids
    scores["random"] = np.full(len(n_tokens_n), np.nan) if ids is None else chance(ids, seed)
    return scores


def score_maxima(text: csr_matrix, image: csr_matrix, weights: Weights) -> dict[str, Array]:
    """The scores that follow from maxima, float64 [n] each; NaN where a mean has no member.

    Args:
        text, image: largest z per feature, CSR [n, F] with features ascending in a row.
    """
    omega = np.nan_to_num(weights.omega_f)
    has_omega = (~np.isnan(weights.omega_f)).astype(np.float64)
    any_nf = text.maximum(image).tocsr()
    any_nf.sort_indices()
    on_any, on_both = _ones(any_nf), _ones(text).multiply(_ones(image)).tocsr()
    total = on_any @ omega
    n_with = on_any @ has_omega
    top = _keep_strongest(any_nf, TOP_WEIGHTED)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "cosine": total,
            "cosine-weighted": (top @ omega) / (top @ has_omega),
            "cosine-cooccurring": on_both @ omega,
            "cosine-mean": total / n_with,
            "pooled-cosine": pooled_cosine(text, image),
            "supported-share": supported_share(text, image, weights.support_f),
            "cooccurring-l0": np.diff(on_both.indptr).astype(np.float64),
        }


def _ones(matrix: csr_matrix) -> csr_matrix:
    return csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)


def _keep_strongest(matrix: csr_matrix, k: int) -> csr_matrix:
    """Keeps each row's k largest values; ties go to the smaller feature."""
    is_top = strongest_in_runs(matrix.data, matrix.indptr, k)
    indptr = offsets(np.minimum(np.diff(matrix.indptr), k))
    return csr_matrix((matrix.data[is_top], matrix.indices[is_top], indptr), shape=matrix.shape)


def _squares(matrix: csr_matrix) -> Array:
    return matrix.power(2) @ np.ones(matrix.shape[1])


def pooled_cosine(text: csr_matrix, image: csr_matrix) -> Array:
    """Cosine of the two sides' maxima, float64 [n], of CSR [n, F] each; 0 where a side is empty."""
    dot = text.multiply(image).tocsr() @ np.ones(text.shape[1])
    return ratio(dot, np.sqrt(_squares(text) * _squares(image)))


def supported_share(text: csr_matrix, image: csr_matrix, support_f: Array) -> Array:
    """Σ w_k over the features of both sides over Σ w_k over the text's, float64 [n]; 0 where the latter is 0.

    Args:
        text, image: maxima, CSR [n, F]. support_f: w_k, float64.
    """
    text_on = _ones(text)
    return ratio(text_on.multiply(_ones(image)).tocsr() @ support_f, text_on @ support_f)


def chance(sample_ids: Sequence[str], seed: int) -> Array:
    """Score `random`, float64 [n] in [0, 1): from the id alone, so that a pair has the same wherever it stands."""
    digests = [hashlib.sha256(f"{seed} {sample_id}".encode()).digest()[:8] for sample_id in sample_ids]
    return (np.frombuffer(b"".join(digests), ">u8") >> 11).astype(np.float64) / 2.0**53
