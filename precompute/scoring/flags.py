"""What may be wrong with a pair: each flag is a score (higher is worse) and a threshold that one can move.

One implementation for stored, new and live pairs. `near-duplicate` compares with the other pairs of a store and is
step `flag`'s. The reasons in words: reasons.py. What a new flag needs besides: docs/architecture.md, *Add a flag*.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from precompute.scoring.near_duplicates import NEAR_LIMIT
from precompute.scoring.pairs import Pairs
from precompute.scoring.pixels import ISSUES, pixel_flags, tiny
from precompute.scoring.scores import Weights
from precompute.scoring.token_support import unsupported_score
from precompute.store.reader import Store
from precompute.store.schema import FLAGS, IMAGE, TEXT
from precompute.utils.stats import robust_limit
from precompute.utils.text import has_letters, repeated_share
from precompute.utils.types import Array

FALSE_ALARMS = 0.05
MISMATCH_SCORES = ("pooled-cosine", "supported-share")  # those that work, METHOD's table

DESCRIPTIONS = {
    "mismatch": "1 minus the score that best tells the data's own captions from exchanged ones",
    "unsupported": "Largest share of one caption token's feature weight that no patch supports",
    "near-duplicate": "Smaller of feature-space cosine and pixel-hash likeness to an earlier sample",
    "blank": "1 minus the larger of cleanvision's information score and the contrast",
    "dark": "1 minus cleanvision's dark score",
    "blurred": "Larger of 1 minus cleanvision's blurry score and 1 minus strongest edge over contrast",
    "tiny": "64 pixels over the image's shorter side",
    "empty-text": "1 when the text has no letter or digit",
    "repeated-text": "Share of the text's words that repeat an earlier run of two words",
    "reconstruction": "Largest fraction of variance unexplained over the modalities",
    "few-features": "1 minus active features per token over the data's median",
}
UNITS = {"tiny": "64 px / shorter side", "reconstruction": "FVU", "unsupported": "share of the token's weight"}
FIXED_THRESHOLDS = {
    **dict(ISSUES.values()), "tiny": 1.0, "near-duplicate": NEAR_LIMIT, "empty-text": 0.5, "repeated-text": 0.3,
}  # fmt: skip


class Reference(NamedTuple):
    """What of a store its own pairs and new ones are measured against."""

    weights: Weights
    p999_f: Array
    """float64 [F]: 99.9th percentile of each feature's z."""
    median_l0: float
    """Active features per token, over the store's pairs; NaN where no pair has any."""
    variance_m: tuple[float | None, float | None]
    """Mean ‖h − mean h‖² of text and image tokens; None where a store does not say."""
    mismatch_score: str
    """The score that `mismatch` is 1 minus of."""

    @classmethod
    def from_store(cls, store: Store) -> Self:
        variance = store.manifest["quality"].get("variance", {})
        return cls(
            Weights.from_store(store),
            store.features.table["p999"],
            store.quality.score_median("l0"),
            (variance.get("text"), variance.get("image")),
            str(store.manifest.get("mismatch_score", "pooled-cosine")),
        )


def flag_scores(pairs: Pairs, scores: Mapping[str, Array], reference: Reference) -> dict[str, Array]:
    """Every flag's score by its name, float64 [n]; NaN where it does not apply, as `near-duplicate`.

    Args:
        scores: of `pair_scores`.
    """
    text, image = pairs.maxima
    n = len(pairs.texts)
    has_both = (np.diff(text.indptr) > 0) & (pairs.n_tokens_nm[:, IMAGE] > 0)
    lack = unsupported_score(pairs.text_events, image, reference.p999_f, reference.weights.support_f)
    fvu_nm = pair_fvu(pairs.error_nm, pairs.n_tokens_nm, reference.variance_m)
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing fires at all in some data
        sparseness = 1 - scores["l0"] / np.float64(reference.median_l0)
    files, row = pairs.thumbnails
    of_pixels = {name: largest_of_row(values, row, n) for name, values in pixel_flags(files).items()}
    return {
        "mismatch": np.where(has_both, 1 - scores[reference.mismatch_score], np.nan),
        "unsupported": np.where(has_both, lack, np.nan),
        "near-duplicate": np.full(n, np.nan),
        **of_pixels,
        "tiny": tiny(*pairs.size_n2.T),
        "empty-text": np.array([float(not has_letters(text)) for text in pairs.texts]),
        "repeated-text": np.array([repeated_share(text) for text in pairs.texts]),
        "reconstruction": np.fmax(fvu_nm[:, TEXT], fvu_nm[:, IMAGE]),
        "few-features": sparseness,
    }


def largest_of_row(values: Array, row: Array, n: int) -> Array:
    """float64 [n]: the largest of the values of each row, NaN where it has none."""
    max_n = np.full(n, np.nan)
    np.fmax.at(max_n, row, values)
    return max_n


def pair_fvu(error_nm: Array, n_tokens_nm: Array, variance_m: tuple[float | None, float | None]) -> Array:
    """Fraction of variance unexplained of each pair and modality, float64 [n, 2], against the data's variance, so that
    pairs are comparable; NaN without tokens."""
    variance = np.array([v or np.nan for v in variance_m])
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(n_tokens_nm > 0, error_nm / (n_tokens_nm.astype(np.float64) * variance), np.nan)


def thresholds(scores: Mapping[str, Array], mismatch_of_own: Array) -> dict[str, float]:
    """Each flag's threshold for a store.

    Args:
        scores: flag scores of all the store's pairs, float64 [N].
        mismatch_of_own: `mismatch` of pairs that are taken to be right, float64.
    """
    limit = {
        **FIXED_THRESHOLDS,
        "mismatch": false_alarm_limit(mismatch_of_own),
        "unsupported": false_alarm_limit(scores["unsupported"]),
        "reconstruction": robust_limit(scores["reconstruction"]),
        "few-features": max(0.5, robust_limit(scores["few-features"])),
    }
    return {name: limit[name] for name in FLAGS}


def false_alarm_limit(own_scores: Array) -> float:
    """The value that 5 % of the data's own pairs exceed."""
    own_scores = own_scores[np.isfinite(own_scores)]
    return float(np.quantile(own_scores, 1 - FALSE_ALARMS)) if len(own_scores) else 1.0
