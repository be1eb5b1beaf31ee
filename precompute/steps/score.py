"""Step `score`: every score of METHOD *Scoring and ranking data*, by its name, for all of D.

The arithmetic works on per-sample maxima, so the same function scores stored samples, shadow pairs and live
pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from precompute.store.making.unfinished import Collected, load_step, save_json, save_step
from precompute.store.reader import Store
from precompute.store.schema import SCORES
from precompute.utils.runs import offsets, strongest
from precompute.utils.stats import auroc, derangement, histogram, length_rho, quantiles

Array = NDArray[Any]

TOP_WEIGHTED = 32
N_SHADOW = 400

# Scores that a pair's two sets of maxima give; the others need tokens or the whole model.
FROM_MAXIMA = (
    "cosine",
    "cosine-weighted",
    "cosine-cooccurring",
    "cosine-mean",
    "pooled-cosine",
    "supported-share",
    "cooccurring-l0",
)


class Weights(NamedTuple):
    """Per feature: ω (NaN where it has none) and the weight w_k of `supported-share`."""

    omega_f: Array
    support_f: Array

    @classmethod
    def of(cls, omega: Array, omega_centred: Array, samples_text: Array, n_samples: int) -> Weights:
        return cls(
            omega, np.maximum(np.log(n_samples / (1 + samples_text)), 0) * np.maximum(_zero(omega_centred), 0)
        )

    @classmethod
    def of_step(cls, weigh: Mapping[str, Array], manifest: Mapping[str, Any], n_samples: int) -> Weights:
        name = "omega_all_pairs" if manifest["omega"]["kind"] == "all-pairs" else "omega"
        return cls.of(weigh[name], weigh["omega_centred"], weigh["samples"][:, 0], n_samples)

    @classmethod
    def of_store(cls, store: Store) -> Weights:
        """The weights of a finished store: any number of new pairs can be scored with them."""
        table = store.features.table
        name = "omega_all_pairs" if store.manifest["omega"]["kind"] == "all-pairs" else "omega"
        return cls.of(table[name], table["omega_centred"], table["samples_text"], store.n_samples)


def _zero(values: Array) -> Array:
    return np.nan_to_num(values, nan=0.0)


def score_maxima(text: csr_matrix, image: csr_matrix, weights: Weights) -> dict[str, Array]:
    """The scores that follow from maxima, float64 [n] each; NaN where a mean has no member.

    Args:
        text, image: largest z per feature, CSR [n, F] with features ascending in a row.
    """
    omega = _zero(weights.omega_f)
    has_omega = (~np.isnan(weights.omega_f)).astype(np.float64)
    any_nf = text.maximum(image).tocsr()
    any_nf.sort_indices()
    active, both = _ones(any_nf), _ones(text).multiply(_ones(image)).tocsr()
    total = active @ omega
    n_with = active @ has_omega
    top = _strongest(any_nf, TOP_WEIGHTED)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "cosine": total,
            "cosine-weighted": (top @ omega) / (top @ has_omega),
            "cosine-cooccurring": both @ omega,
            "cosine-mean": total / n_with,
            "pooled-cosine": pooled_cosine(text, image),
            "supported-share": supported_share(text, image, weights.support_f),
            "cooccurring-l0": np.diff(both.indptr).astype(np.float64),
        }


def _ones(matrix: csr_matrix) -> csr_matrix:
    return csr_matrix((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)


def _strongest(matrix: csr_matrix, k: int) -> csr_matrix:
    """Keeps each row's k largest values; ties go to the smaller feature."""
    kept = strongest(matrix.data, matrix.indptr, k)
    indptr = offsets(np.minimum(np.diff(matrix.indptr), k))
    return csr_matrix((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


def _squares(matrix: csr_matrix) -> Array:
    squares: Array = matrix.power(2) @ np.ones(matrix.shape[1])
    return squares


def pooled_cosine(text: csr_matrix, image: csr_matrix) -> Array:
    dot = text.multiply(image).tocsr() @ np.ones(text.shape[1])
    length = np.sqrt(_squares(text) * _squares(image))
    return np.divide(dot, length, out=np.zeros(len(dot)), where=length > 0)


def supported_share(text: csr_matrix, image: csr_matrix, support_f: Array) -> Array:
    text_on = _ones(text)
    whole = text_on @ support_f
    shared = text_on.multiply(_ones(image)).tocsr() @ support_f
    return np.divide(shared, whole, out=np.zeros(len(whole)), where=whole > 0)


def score_pair(
    text: tuple[Array, Array], image: tuple[Array, Array], weights: Weights, *, n_events: int, n_tokens: int
) -> dict[str, float | None]:
    """Every score of one pair that is not in the store; `caption-nll` and `random` are None.

    Args:
        text, image: (features ascending, largest z) of each modality.
        n_events, n_tokens: active (token, feature) pairs, and non-special tokens.
    """
    n_features = len(weights.omega_f)
    rows = [csr_matrix((z, k, [0, len(k)]), shape=(1, n_features)) for k, z in (text, image)]
    found: dict[str, float | None] = dict.fromkeys(SCORES)
    for name, value in score_maxima(rows[0], rows[1], weights).items():
        found[name] = None if np.isnan(value[0]) else float(value[0])
    found["l0"] = n_events / n_tokens if n_tokens else None
    return found


def chance(sample_ids: Sequence[str], seed: int) -> Array:
    """Score `random`, float64 [n] in [0, 1): from the id alone, so that a pair has the same wherever it stands."""
    digests = [hashlib.sha256(f"{seed} {sample_id}".encode()).digest()[:8] for sample_id in sample_ids]
    return (np.frombuffer(b"".join(digests), ">u8") >> 11).astype(np.float64) / 2.0**53


class Shadow(NamedTuple):
    """A few hundred of the data's own pairs, and the same with captions exchanged among them."""

    rows: Array  # the own pairs
    image_rows: Array  # of the exchanged pairs, the image's sample
    caption_rows: Array  # and the text's
    own: dict[str, Array]
    swapped: dict[str, Array]


def shadow_pairs(data: Collected, weights: Weights, seed: int) -> Shadow | None:
    """Exchanges captions' text feature vectors between samples; None when fewer than 20 pairs have both
    sides.

    A text read beside the wrong image would carry some of that image's features too; exchanging stored
    vectors leaves that out, so the calibration is for the exchange, and is named so.
    """
    n_side = np.diff(data.max_offset).reshape(-1, 2)
    usable = np.flatnonzero((n_side > 0).all(1))
    if len(usable) < 20:
        return None
    rng = np.random.Generator(np.random.PCG64(seed + 1))
    rows = np.sort(rng.choice(usable, min(N_SHADOW, len(usable)), replace=False))
    caption_rows = rows[derangement(len(rows), rng)]
    own_texts, other_texts = (data.samples.column("text", one) for one in (rows, caption_rows))
    # A caption of the same words is no wrong caption.
    differs = np.array([own.strip() != other.strip() for own, other in zip(own_texts, other_texts, strict=True)])
    (own_text, own_image), (other_text, _) = data.maxima_of(rows), data.maxima_of(caption_rows[differs])
    own = score_maxima(own_text, own_image, weights)
    swapped = score_maxima(other_text, own_image[differs], weights)
    return Shadow(rows, rows[differs], caption_rows[differs], own, swapped)


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `seed`."""
    data = Collected(part, manifest)
    weights = Weights.of_step(load_step(part, "weigh"), manifest, data.n_samples)
    blocks = [score_maxima(*data.maxima(low, high), weights) for low, high in data.blocks()]
    found = {name: np.concatenate([block[name] for block in blocks]) for name in FROM_MAXIMA}

    n_tokens = (data.sample["n_text"] + data.sample["n_image"]).astype(np.float64)
    event_n = np.asarray(data.events.token_event[data.events.sample_token])
    with np.errstate(divide="ignore", invalid="ignore"):
        found["l0"] = np.diff(event_n) / n_tokens
    found["caption-nll"] = -data.sample["caption_nll"]
    seed = int(options.get("seed", 0))
    found["random"] = chance(list(data.samples.column("sample_id")), seed)

    shadow = shadow_pairs(data, weights, seed)
    described = []
    for name, description in SCORES.items():
        values = found[name]
        finite = np.isfinite(values)
        tested = shadow is not None and name in FROM_MAXIMA
        described.append(
            {
                "name": name,
                "description": description,
                "mean": float(values[finite].mean()) if finite.any() else None,
                "std": float(values[finite].std()) if finite.any() else None,
                "median": float(np.median(values[finite])) if finite.any() else None,
                "quantiles": quantiles(values[finite]),
                "hist": histogram(values),
                "length_rho": length_rho(values, n_tokens),
                "auroc": auroc(shadow.own[name], shadow.swapped[name], seed) if tested and shadow else None,
            }
        )
    save_step(part, "score", **found)
    save_json(part, "score", described)
    return {}
