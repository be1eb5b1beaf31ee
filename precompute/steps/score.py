"""Step `score`: every score of scoring/scores.py over the unfinished store, and how well each tells the data's own
captions from shuffled ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.scoring.pairs import StoredPairs
from precompute.scoring.scores import Weights, pair_scores, score_maxima
from precompute.store.making.unfinished import Collected, load_step, save_json, save_step
from precompute.store.schema import SCORES
from precompute.utils.stats import auroc, derangement, histogram, quantiles, spearman
from precompute.utils.types import Array

N_SHUFFLED = 400
MIN_SHUFFLED = 20


class ShuffledPairs(NamedTuple):
    """A few hundred of the data's own pairs, and the same with captions shuffled among them."""

    rows: Array
    """int64: the own pairs."""
    image_rows: Array
    """int64: of each shuffled pair, the sample whose image it has."""
    caption_rows: Array
    """int64: and the sample whose text."""
    own_scores: dict[str, Array]
    """Scores of the own pairs by name, float64."""
    shuffled_scores: dict[str, Array]
    """Scores of the shuffled ones."""


def shuffle_pairs(data: Collected, weights: Weights, seed: int) -> ShuffledPairs | None:
    """Exchanges captions' text feature vectors between samples; None when fewer than MIN_SHUFFLED pairs have both
    sides.

    A text read beside the wrong image would carry some of that image's features too; exchanging stored vectors leaves
    that out, so the calibration is for the exchange, and is named so.
    """
    n_active_nm = np.diff(data.max_offset).reshape(-1, 2)
    usable = np.flatnonzero((n_active_nm > 0).all(1))
    if len(usable) < MIN_SHUFFLED:
        return None
    rng = np.random.Generator(np.random.PCG64(seed + 1))
    rows = np.sort(rng.choice(usable, min(N_SHUFFLED, len(usable)), replace=False))
    caption_rows = rows[derangement(len(rows), rng)]
    own_texts, other_texts = (data.samples.column("text", at_rows) for at_rows in (rows, caption_rows))
    # A caption of the same words is no wrong caption.
    differs = np.array([a.strip() != b.strip() for a, b in zip(own_texts, other_texts, strict=True)])
    (own_text, own_image), (other_text, _) = data.maxima_of(rows), data.maxima_of(caption_rows[differs])
    own_scores = score_maxima(own_text, own_image, weights)
    shuffled_scores = score_maxima(other_text, own_image[differs], weights)
    return ShuffledPairs(rows, rows[differs], caption_rows[differs], own_scores, shuffled_scores)


def calibrate_nll(data: Collected) -> tuple[dict[str, Array], dict[str, Array]]:
    """The scores that rest on cross-entropies, of some of the data's own pairs and of the same images with another's
    caption, which the model has read: float64 by name."""
    sample = data.sample
    rows = np.flatnonzero((sample["other_row"] >= 0) & np.isfinite(sample["other_nll"]))
    nll, nll_alone, other = (sample[name][rows] for name in ("caption_nll", "caption_nll_alone", "other_nll"))
    other_alone = sample["caption_nll_alone"][sample["other_row"][rows]]
    own_scores = {"caption-nll": -nll, "image-gain": nll_alone - nll}
    return own_scores, {"caption-nll": -other, "image-gain": other_alone - other}


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `seed`."""
    data, seed = Collected(part, manifest), int(options.get("seed", 0))
    weights = Weights.from_step(load_step(part, "weigh"), manifest, data.n_samples)
    blocks = [pair_scores(StoredPairs(data, np.arange(*block)), weights, seed) for block in data.blocks()]
    scores = {name: np.concatenate([block[name] for block in blocks]) for name in SCORES}
    n_tokens = (data.sample["n_text"] + data.sample["n_image"]).astype(np.float64)
    pairs = shuffle_pairs(data, weights, seed)
    own_scores, shuffled_scores = calibrate_nll(data)
    if pairs is not None:
        own_scores, shuffled_scores = pairs.own_scores | own_scores, pairs.shuffled_scores | shuffled_scores
    summaries = []
    for name, description in SCORES.items():
        has_enough = len(shuffled_scores.get(name, ())) >= MIN_SHUFFLED
        calibration = auroc(own_scores[name], shuffled_scores[name], seed) if has_enough else None
        figures = summary(scores[name], n_tokens)
        summaries.append({"name": name, "description": description, **figures, "auroc": calibration})
    save_step(part, "score", **scores)
    save_json(part, "score", summaries)
    return {}


def summary(values: Array, n_tokens: Array) -> dict[str, Any]:
    """What the pages say of a score, of float64 [N] with NaN; null where no value is finite."""
    finite = values[np.isfinite(values)]
    return {
        "mean": float(finite.mean()) if len(finite) else None,
        "std": float(finite.std()) if len(finite) else None,
        "median": float(np.median(finite)) if len(finite) else None,
        "quantiles": quantiles(finite),
        "hist": histogram(values),
        "length_rho": spearman(values, n_tokens),
    }
