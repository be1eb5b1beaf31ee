"""Step `flag`: what may be wrong with a sample. Each flag is a score (higher is worse), a threshold one can
move, and a reason that names the features and tokens behind it. As it knows near-duplicates, it also folds the examples
of features (examples.py).

The mismatch flag rests on the scores that tell exchanged captions apart on the user's own data (METHOD
*Scoring*).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from precompute.scoring.near_duplicates import NEAR_LIMIT, near_duplicates
from precompute.scoring.pixels import ISSUES, pixel_flags, pixel_hashes, tiny
from precompute.scoring.reasons import Reasons
from precompute.scoring.token_support import unsupported
from precompute.steps.folding import Samples, fold
from precompute.steps.index import all_sample_vectors
from precompute.steps.score import Weights, shadow_pairs
from precompute.store.making.unfinished import Collected, load_step, save_json, save_step
from precompute.store.schema import FLAGS, IMAGE, TEXT
from precompute.utils.runs import run_starts
from precompute.utils.stats import auroc, histogram
from precompute.utils.text import has_letters, repeated_share

Array = NDArray[Any]

FALSE_ALARMS = 0.05
MISMATCH_SCORES = ("pooled-cosine", "supported-share")  # those that work, METHOD's table

DESCRIPTIONS = {
    "mismatch": "1 minus the score that best tells the data's own captions from exchanged ones",
    "unsupported": "Largest share of one caption token's feature weight that no patch supports",
    "near-duplicate": "Smaller of feature-space cosine and pixel-hash likeness to an earlier sample",
    "blank": "1 minus the larger of cleanvision's information score and the contrast",
    "dark": "1 minus cleanvision's dark score",
    "blurred": "Larger of 1 minus cleanvision's blurry score and 1 minus strongest edge over contrast",
    "tiny": "64 pixels over the picture's shorter side",
    "empty-text": "1 when the text has no letter or digit",
    "repeated-text": "Share of the text's words that repeat an earlier run of two words",
    "reconstruction": "Largest fraction of variance unexplained over the modalities",
    "few-features": "1 minus active features per token over the data's median",
}
UNITS = {"tiny": "64 px / shorter side", "reconstruction": "FVU", "unsupported": "share of the token's weight"}


class Fvu(NamedTuple):
    """Fraction of variance unexplained."""

    text_n: Array  # per sample, NaN without such tokens
    image_n: Array
    overall: dict[str, float | None]
    variance: dict[str, float | None]
    """By modality, mean over all counted tokens of ‖h − mean h‖²: with it other samples can be compared."""


def fvu(data: Collected) -> Fvu:
    """FVU per sample and over all of D.

    The variance is the data's, so that samples are comparable.
    """
    sample, per_sample, overall, variance = data.sample, [], {}, {}
    for name in ("text", "image"):
        n = sample[f"n_{name}"].astype(np.float64)
        total = n.sum()
        spread = sample[f"sq_{name}"].sum() - (sample[f"sum_{name}_d"] ** 2).sum() / total if total else 0.0
        per_sample.append(fvu_of(sample[f"sse_{name}"], n, spread / max(total, 1)))
        overall[name] = float(sample[f"sse_{name}"].sum() / spread) if spread > 0 else None
        variance[name] = float(spread / total) if spread > 0 else None
    return Fvu(per_sample[0], per_sample[1], overall, variance)


def fvu_of(sse_n: Array, n_tokens_n: Array, variance: float | None) -> Array:
    """FVU of samples against the data's variance; NaN without tokens."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(n_tokens_n > 0, sse_n / (n_tokens_n * (variance or np.nan)), np.nan)


def robust_limit(values: Array, deviations: float) -> float:
    """Median + deviations · 1.4826 · MAD of the finite values."""
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0
    middle = float(np.median(values))
    return middle + deviations * 1.4826 * float(np.median(np.abs(values - middle)))


def _threshold(own: Array) -> float:
    """The value that 5 % of the data's own pairs exceed."""
    own = own[np.isfinite(own)]
    return float(np.quantile(own, 1 - FALSE_ALARMS)) if len(own) else 1.0


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `seed`."""
    data, weigh, scores = Collected(part, manifest), load_step(part, "weigh"), load_step(part, "score")
    seed, n, p999 = int(options.get("seed", 0)), data.n_samples, weigh["p999"]
    weights = Weights.of_step(weigh, manifest, n)
    texts = list(data.samples.column("text"))
    empty = np.array([not has_letters(text) for text in texts])
    n_side = np.diff(data.max_offset).reshape(-1, 2)
    has_both = (n_side[:, TEXT] > 0) & (data.sample["n_image"] > 0)
    found: dict[str, Array] = {}
    threshold: dict[str, float] = {}
    calibration: dict[str, dict[str, float] | None] = dict.fromkeys(FLAGS)

    # Caption against image.
    shadow = shadow_pairs(data, weights, seed)
    tested = {s: auroc(shadow.own[s], shadow.swapped[s], seed) for s in MISMATCH_SCORES} if shadow else {}
    best = max(MISMATCH_SCORES, key=lambda s: (tested.get(s) or {}).get("value", 0.0))
    found["mismatch"] = np.where(has_both, 1 - scores[best], np.nan)
    threshold["mismatch"] = _threshold(1 - shadow.own[best]) if shadow else _threshold(found["mismatch"])
    calibration["mismatch"] = tested.get(best)

    parts = []
    for low, high in data.blocks():
        parts.append(unsupported(data, np.arange(low, high), data.maxima(low, high)[1], p999, weights.support_f))
    found["unsupported"] = np.where(has_both, np.concatenate(parts), np.nan)
    threshold["unsupported"] = _threshold(found["unsupported"])
    if shadow:
        images = data.maxima_of(shadow.image_rows)[1]
        wrong = unsupported(data, shadow.caption_rows, images, p999, weights.support_f)
        calibration["unsupported"] = auroc(wrong, found["unsupported"][shadow.rows], seed)

    # Pixels.
    pictures = [(row, part / thumb) for row, thumbs in enumerate(data.samples.column("thumb")) for thumb in thumbs]
    picture_row = np.array([row for row, _ in pictures], dtype=np.int64)
    for name, values in pixel_flags([path for _, path in pictures]).items():
        found[name] = np.full(n, np.nan)
        np.fmax.at(found[name], picture_row, values)
    threshold |= dict(ISSUES.values())
    found["tiny"], threshold["tiny"] = tiny(data.sample["width"], data.sample["height"]), 1.0
    firsts = run_starts(picture_row)
    hashes = pixel_hashes([pictures[i][1] for i in firsts])
    vectors = all_sample_vectors(data, weigh, IMAGE)
    near = near_duplicates(vectors, hashes, picture_row[firsts])
    save_step(part, "examples", **fold(data, Samples.of(data, vectors, hashes, picture_row[firsts])))
    found["near-duplicate"], threshold["near-duplicate"] = near.score, NEAR_LIMIT

    # Text, and the model's inside.
    found["empty-text"], threshold["empty-text"] = empty.astype(np.float64), 0.5
    found["repeated-text"] = np.array([repeated_share(text) for text in texts])
    threshold["repeated-text"] = 0.3
    unexplained = fvu(data)
    found["reconstruction"] = np.fmax(unexplained.text_n, unexplained.image_n)
    threshold["reconstruction"] = robust_limit(found["reconstruction"], 6)
    middle = np.nanmedian(scores["l0"])
    with np.errstate(divide="ignore", invalid="ignore"):  # nothing fires at all in some data
        found["few-features"] = 1 - scores["l0"] / middle
    threshold["few-features"] = max(0.5, robust_limit(found["few-features"], 6))

    save_step(
        part,
        "flag",
        **found,
        fvu_text=unexplained.text_n,
        fvu_image=unexplained.image_n,
        near_row=near.row,
        near_cosine=near.cosine,
    )
    table = []
    for name, (title, source) in FLAGS.items():
        fit = calibration[name] or {}
        table.append(
            {
                "name": name,
                "title": title,
                "description": DESCRIPTIONS[name] + (f" ({best})" if name == "mismatch" else ""),
                "source": source,
                "unit": UNITS.get(name),
                "threshold": threshold[name],
                "count": int((found[name] > threshold[name]).sum()),
                "hist": histogram(found[name]),
                "auroc": fit.get("value"),
                "auroc_low": fit.get("low"),
                "auroc_high": fit.get("high"),
            }
        )
    why = Reasons(data, weights, p999, found, near, best)
    reasons = [entry for name in FLAGS for entry in why.of(name, threshold[name])]
    save_json(part, "flag", {"flags": table, "reasons": reasons})
    known = manifest.get("quality", {})
    measured = {"fvu": {**known.get("fvu", {}), **unexplained.overall}, "variance": unexplained.variance}
    return {"quality": {**known, **measured}, "mismatch_score": best}
