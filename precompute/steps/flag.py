"""Step `flag`: every flag of scoring/flags.py over the unfinished store, with its threshold and the reasons in words.
As it knows near-duplicates, it also folds the examples of features (folding.py).

The mismatch flag rests on the score that best tells exchanged captions apart on the user's own data (METHOD
*Scoring*).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from precompute.sae.reconstruction import fvu, variation
from precompute.scoring.flags import DESCRIPTIONS, MISMATCH_SCORES, UNITS, Reference, flag_scores, pair_fvu, thresholds
from precompute.scoring.near_duplicates import NearDuplicates, near_duplicates
from precompute.scoring.pairs import StoredPairs
from precompute.scoring.pixels import pixel_hashes
from precompute.scoring.reasons import near_duplicate_reason, reasons, worst_rows
from precompute.scoring.scores import Weights
from precompute.scoring.token_support import unsupported_score
from precompute.steps.folding import SimilarityKeys, fold
from precompute.steps.index import all_sample_vectors
from precompute.steps.score import ShuffledPairs, shuffle_pairs
from precompute.store.making.unfinished import Collected, load_step, save_json, save_step
from precompute.store.schema import FLAGS, IMAGE, MODALITIES, TEXT
from precompute.utils.ragged import run_starts
from precompute.utils.stats import auroc, histogram
from precompute.utils.types import Array

Calibration = dict[str, dict[str, float] | None]
"""By flag: AUROC for telling shuffled pairs from the data's own, with its interval."""


class Variance(NamedTuple):
    """Over all counted tokens of the data, by modality; None where there are none."""

    fvu: dict[str, float | None]
    """Fraction of the variance that the SAE leaves unexplained."""
    variance: dict[str, float | None]
    """Mean of ‖h − mean h‖²: with it other samples can be compared."""


def variance_of(data: Collected) -> Variance:
    result = Variance({}, {})
    for name in MODALITIES:
        n = data.sample[f"n_{name}"].sum()
        sums = data.sample[f"sq_{name}"].sum(), data.sample[f"sum_{name}_d"], n
        varies = float(variation(*sums))
        result.fvu[name] = float(fvu(data.sample[f"sse_{name}"].sum(), *sums)) if varies > 0 else None
        result.variance[name] = float(varies / n) if varies > 0 else None
    return result


def fvu_places(data: Collected, variance: float | None) -> list[list[float | None]] | None:
    """FVU of image tokens by place, against the variance of all image tokens, so that places are comparable and their
    mean, weighted by tokens, is the FVU of images; null in a place without tokens. None where nothing was measured."""
    if not variance or "sse_place" not in data.sample:
        return None
    n_ij = data.accum["cells"]
    fvu_ij = data.sample["sse_place"] / (np.maximum(n_ij, 1) * variance)
    return [[float(v) if n else None for v, n in zip(*row, strict=True)] for row in zip(fvu_ij, n_ij, strict=True)]


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `seed`."""
    data, weigh, scores = Collected(part, manifest), load_step(part, "weigh"), load_step(part, "score")
    seed, variance = int(options.get("seed", 0)), variance_of(data)
    weights = Weights.from_step(weigh, manifest, data.n_samples)
    shuffled_pairs = shuffle_pairs(data, weights, seed)
    mismatch_score, calibration = calibrate_mismatch(shuffled_pairs, seed)
    variance_m = (variance.variance["text"], variance.variance["image"])
    median_l0 = float(np.nanmedian(scores["l0"]))
    reference = Reference(weights, weigh["p999"], median_l0, variance_m, mismatch_score)

    flags, images = score_blocks(data, scores, reference)
    vectors = all_sample_vectors(data, weigh, IMAGE)
    repeats = near_duplicates(vectors, *images, options.get("products"))
    save_step(part, "examples", **fold(data, SimilarityKeys.from_store(data, vectors, *images)))
    flags["near-duplicate"] = repeats.score
    own_scores = flags["mismatch"] if shuffled_pairs is None else 1 - shuffled_pairs.own_scores[mismatch_score]
    limit = thresholds(flags, own_scores)
    if shuffled_pairs is not None:
        image_maxima = data.maxima_of(shuffled_pairs.image_rows)[1]
        events = StoredPairs(data, shuffled_pairs.caption_rows).text_events
        wrong = unsupported_score(events, image_maxima, reference.p999_f, weights.support_f)
        calibration["unsupported"] = auroc(wrong, flags["unsupported"][shuffled_pairs.rows], seed)

    all_pairs = StoredPairs(data, np.arange(data.n_samples))
    fvu_nm = pair_fvu(all_pairs.error_nm, all_pairs.n_tokens_nm, variance_m)
    save_step(
        part,
        "flag",
        **flags,
        fvu_text=fvu_nm[:, TEXT],
        fvu_image=fvu_nm[:, IMAGE],
        near_row=repeats.row,
        near_cosine=repeats.cosine,
    )
    table = [flag_row(name, flags[name], limit[name], calibration, mismatch_score) for name in FLAGS]
    sentences = [row for name in FLAGS for row in reasons_of(name, flags[name], limit[name], data, reference, repeats)]
    save_json(part, "flag", {"flags": table, "reasons": sentences})
    quality = manifest.get("quality", {})
    figures = {
        "fvu": {**quality.get("fvu", {}), **variance.fvu},
        "variance": variance.variance,
        "fvu_places": fvu_places(data, variance.variance["image"]),
    }
    return {"quality": {**quality, **figures}, "mismatch_score": mismatch_score}


def calibrate_mismatch(pairs: ShuffledPairs | None, seed: int) -> tuple[str, Calibration]:
    """The score that best tells shuffled captions from the data's own, and how well it does."""
    calibrations: Calibration = {}
    if pairs is not None:
        calibrations = {
            name: auroc(pairs.own_scores[name], pairs.shuffled_scores[name], seed) for name in MISMATCH_SCORES
        }
    best_score = max(MISMATCH_SCORES, key=lambda name: (calibrations.get(name) or {}).get("value", 0.0))
    return best_score, {"mismatch": calibrations.get(best_score)}


class FirstImages(NamedTuple):
    """What of the samples' first images tells whether two show the same."""

    hashes: Array
    """bool [n, 64]: of the n samples that have an image."""
    rows: Array
    """int64 [n]: their rows."""


def score_blocks(
    data: Collected, scores: Mapping[str, Array], reference: Reference
) -> tuple[dict[str, Array], FirstImages]:
    """Flag scores of all the store's pairs, float64 [N], and what their images look like; in blocks, as neither their
    events nor their records need fit into the memory."""
    blocks, hashes, rows = [], [], []
    for low, high in data.blocks():
        pairs = StoredPairs(data, np.arange(low, high))
        blocks.append(flag_scores(pairs, {name: values[low:high] for name, values in scores.items()}, reference))
        files, row = pairs.thumbnails
        firsts = run_starts(row)
        hashes.append(pixel_hashes([files[i] for i in firsts]))
        rows.append(low + row[firsts])
    flags = {name: np.concatenate([block[name] for block in blocks]) for name in FLAGS}
    return flags, FirstImages(np.concatenate(hashes), np.concatenate(rows))


def flag_row(
    name: str, values: Array, threshold: float, calibration: Calibration, mismatch_score: str
) -> dict[str, Any]:
    """What the store says of a flag."""
    title, source = FLAGS[name]
    auroc_of = calibration.get(name) or {}
    return {
        "name": name,
        "title": title,
        "description": DESCRIPTIONS[name] + (f" ({mismatch_score})" if name == "mismatch" else ""),
        "source": source,
        "unit": UNITS.get(name),
        "threshold": threshold,
        "count": int((values > threshold).sum()),
        "hist": histogram(values),
        "auroc": auroc_of.get("value"),
        "auroc_low": auroc_of.get("low"),
        "auroc_high": auroc_of.get("high"),
    }


def reasons_of(
    name: str, values: Array, threshold: float, data: Collected, reference: Reference, repeats: NearDuplicates
) -> list[list[Any]]:
    """[row, flag, {text, features, tokens}] of the worst samples above the threshold, by row."""
    rows = worst_rows(values, threshold)
    if name == "near-duplicate":
        ids = [data.samples[int(repeats.row[row])]["sample_id"] for row in rows]
        why = [near_duplicate_reason(sample_id, repeats.cosine[row]) for sample_id, row in zip(ids, rows, strict=True)]
    else:
        why = reasons(name, values[rows], StoredPairs(data, rows), reference)
    return [[row, name, reason] for row, reason in zip(rows.tolist(), why, strict=True)]
