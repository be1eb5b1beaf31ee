"""Step `flag`: what may be wrong with a sample. Each flag is a score (higher is worse), a threshold one can
move, and a reason that names the features and tokens behind it.

The mismatch flag rests on the scores that tell exchanged captions apart on the user's own data (METHOD
*Scoring*).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from precompute.index import all_sample_vectors
from precompute.pixels import ISSUES, pixel_flags, pixel_hashes, tiny
from precompute.score import Weights, auroc, histogram, shadow_pairs
from precompute.store.collected import Collected, load_step, save_json, save_step
from precompute.store.schema import FLAGS, IMAGE, TEXT

Array = NDArray[Any]

FALSE_ALARMS = 0.05
MISMATCH_SCORES = ("pooled-cosine", "supported-share")  # those that work, METHOD's table
MAX_REASONS = 2000  # per flag, the worst first
N_NAMED = 4  # features and tokens a reason names
NEAR = 8  # neighbours of either kind compared
EXACT = 100_000  # samples up to which all are compared with all
PROBED = 8  # cells looked into, beyond
HASHED_BITS = 16
NEAR_LIMIT = 0.7  # at most 9 of 64 hash bits differ, and the cosine is as high

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
LITTLE_WEIGHT = 0.5
"""Added to a token's weight before its share is taken, so that a token with hardly any (an article) has none to lack.
A token that names something weighs several times as much."""


class Excess(NamedTuple):
    """Per text token of a block: what share of its features' weight the image does not support."""

    row_t: Array
    position_t: Array
    share_t: Array
    feature_t: Array  # the feature that contributes most, −1 where none


def text_excess(
    row_e: Array,
    position_e: Array,
    feature_e: Array,
    ratio_e: Array,
    image_ratio: csr_matrix,
    support_f: Array,
) -> Excess:
    """Token-level support: share_t = Σ_k w_k · max(0, r_tk − r_image,k) / (LITTLE_WEIGHT + Σ_k w_k · r_tk) with
    r = z / p99.9 capped at 1.

    A share and not the sum: a word with strong features lacks more of them beside its own picture than a word with
    weak ones beside a wrong one.

    Args:
        row_e, position_e: sample (row of `image_ratio`) and token of each text event, ascending.
        image_ratio: CSR [n, F] of the image's largest z over p99.9.
        support_f: w_k of `supported-share`.
    """
    image_e = _lookup(image_ratio, row_e, feature_e)
    ratio_e = np.minimum(ratio_e, 1)
    lack_e = support_f[feature_e] * np.maximum(ratio_e - np.minimum(image_e, 1), 0)
    if not len(row_e):
        return Excess(*(np.zeros(0, np.int64),) * 2, np.zeros(0), np.zeros(0, np.int64))
    first = np.flatnonzero(np.r_[True, (np.diff(row_e) != 0) | (np.diff(position_e) != 0)])
    token_e = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(row_e)]))
    best = np.lexsort((feature_e, -lack_e, token_e))[first]  # sorted by token: the first entry of each is its largest
    whole_t = LITTLE_WEIGHT + np.add.reduceat(support_f[feature_e] * ratio_e, first)
    share_t = np.add.reduceat(lack_e, first) / whole_t
    return Excess(row_e[first], position_e[first], share_t, np.where(lack_e[best] > 0, feature_e[best], -1))


def _lookup(matrix: csr_matrix, row: Array, column: Array) -> Array:
    """Entries of a CSR matrix with ascending columns; 0 where there is none."""
    width = matrix.shape[1]
    keys = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)) * width + matrix.indices
    asked = row * width + column
    at = np.minimum(np.searchsorted(keys, asked), max(len(keys) - 1, 0))
    if not len(keys):
        return np.zeros(len(asked))
    return np.where(keys[at] == asked, matrix.data[at], 0.0)


def text_events(data: Collected, rows: Array, p999: Array) -> tuple[Array, Array, Array, Array]:
    """(index into rows, position, feature, z / p99.9) of every text event of the rows given, in token
    order.
    """
    events = data.events
    start, stop = np.asarray(events.sample_token[rows]), np.asarray(events.sample_token[rows + 1])
    token = _ranges(start, stop)
    row_t = np.repeat(np.arange(len(rows)), stop - start)
    position_t = token - start[row_t]
    is_text = np.asarray(events.token_modality[token]) == TEXT
    token, row_t, position_t = token[is_text], row_t[is_text], position_t[is_text]
    low, high = np.asarray(events.token_event[token]), np.asarray(events.token_event[token + 1])
    event = _ranges(low, high)
    repeat = high - low
    feature = events.event_feature[event].astype(np.int64)
    ratio = events.event_value[event].astype(np.float64) * data.unit / np.maximum(p999[feature], 1e-30)
    return np.repeat(row_t, repeat), np.repeat(position_t, repeat), feature, ratio


def _ranges(start: Array, stop: Array) -> Array:
    length = stop - start
    ends = np.cumsum(length)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(start - (ends - length), length)


def _over_p999(matrix: csr_matrix, p999: Array) -> csr_matrix:
    ratio = matrix.data / np.maximum(p999[matrix.indices], 1e-30)
    return csr_matrix((ratio, matrix.indices, matrix.indptr), shape=matrix.shape)


def unsupported(data: Collected, rows: Array, image: csr_matrix, p999: Array, support_f: Array) -> Array:
    """Largest unsupported share of a token of each row; NaN without text."""
    found = text_excess(*text_events(data, rows, p999), _over_p999(image, p999), support_f)
    score = np.full(len(rows), np.nan)
    np.fmax.at(score, found.row_t, found.share_t)
    return score


def repeated_share(text: str) -> float:
    """Share of the text's word pairs that occurred before in it; 0 for texts of fewer than four words."""
    words = re.findall(r"\w+", text.lower())
    if len(words) < 4:
        return 0.0
    seen = list(pairwise(words))
    return 1 - len(set(seen)) / len(seen)


def is_empty(text: str) -> bool:
    return not any(c.isalnum() for c in text)


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


class Near(NamedTuple):
    """The nearest other sample of each, and the near-duplicate score of the later of each two."""

    score: Array
    row: Array  # −1 where there is none
    cosine: Array


def nearest_vectors(vectors: Array, k: int) -> Array:
    """The k nearest of each by inner product, int64 [n, k], −1 where fewer were found.

    Exact up to EXACT vectors; of more, those in the nearest of some √n cells, as all against all would take days. What
    is nearly the same lies in the same cell or the next."""
    n, width = vectors.shape
    if n <= EXACT:
        exact: Array = faiss.knn(vectors, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
        return exact
    n_cells = int(4 * np.sqrt(n))
    cells = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, n_cells, faiss.METRIC_INNER_PRODUCT)
    cells.train(vectors[:: max(1, n // (64 * n_cells))])
    cells.add(vectors)
    cells.nprobe = PROBED
    found: Array = cells.search(vectors, k)[1]
    return found


def nearest_hashes(packed: Array, k: int) -> Array:
    """The k nearest of each by differing bits, as `nearest_vectors`. Of many, among those that differ in at most one of
    the first 16 bits, from a table of these."""
    n, n_bytes = packed.shape
    table: Any = faiss.IndexBinaryFlat(8 * n_bytes)
    if n > EXACT:
        table = faiss.IndexBinaryHash(8 * n_bytes, HASHED_BITS)
        table.nflip = 1
    table.add(packed)
    found: Array = table.search(packed, k)[1]
    return found


def near_duplicates(vectors: Array, hashes: Array, row_of_hash: Array) -> Near:
    """Pairs close in feature space and to the eye.

    Score of a pair: min(cosine of the image vectors, 1 − differing hash bits / 32); only the later sample
    carries it, so that a filter keeps the first.

    Args:
        vectors: image sample vectors [N, 256].
        hashes: bool [n, 64] of the samples in `row_of_hash`.
    """
    n = len(vectors)
    score, row, cosine = np.full(n, np.nan), np.full(n, -1), np.full(n, np.nan)
    seen = np.any(vectors[row_of_hash], axis=1)
    live, bits = row_of_hash[seen], hashes[seen]
    if len(live) < 2:
        return Near(score, row, cosine)
    some, packed, k = np.ascontiguousarray(vectors[live]), np.packbits(bits, axis=1), min(NEAR + 1, len(live))
    # Candidates from both sides: a copy may be nearest to the eye and yet not inside the model.
    other = np.concatenate([nearest_vectors(some, k), nearest_hashes(packed, k)], axis=1)
    other = np.where(other < 0, np.arange(len(live))[:, None], other)  # an inverted list may hold fewer than k
    mine = np.arange(len(live))[:, None]
    value = np.einsum("nd,nkd->nk", some, some[other]).astype(np.float64)
    likeness = 1 - (bits[:, None] != bits[other]).sum(-1) / (bits.shape[1] / 2)
    pair = np.minimum(value, np.maximum(likeness, 0))
    itself = other == mine
    value, pair = np.where(itself, -np.inf, value), np.where(itself, -np.inf, pair)
    nearest = np.lexsort((other, -value, -pair))[:, :1]
    row[live] = live[np.take_along_axis(other, nearest, 1)[:, 0]]
    cosine[live] = np.minimum(np.take_along_axis(value, nearest, 1)[:, 0], 1)
    score[live] = 0.0
    np.fmax.at(score, live[np.maximum(mine, other)[~itself]], pair[~itself])
    return Near(score, row, cosine)


def _threshold(own: Array) -> float:
    """The value that 5 % of the data's own pairs exceed."""
    own = own[np.isfinite(own)]
    return float(np.quantile(own, 1 - FALSE_ALARMS)) if len(own) else 1.0


def run(part: Path, manifest: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Step entry. Options: `seed`."""
    data, weigh, scores = Collected(part, manifest), load_step(part, "weigh"), load_step(part, "score")
    seed, n, p999 = int(options.get("seed", 0)), data.n_samples, weigh["p999"]
    weights = Weights.of_step(weigh, manifest, n)
    records = data.samples
    texts = [str(record["text"]) for record in records]
    empty = np.array([is_empty(text) for text in texts])
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
    pictures = [(row, part / str(image["thumb"])) for row, record in enumerate(records) for image in record["images"]]
    picture_row = np.array([row for row, _ in pictures], dtype=np.int64)
    for name, values in pixel_flags([path for _, path in pictures]).items():
        found[name] = np.full(n, np.nan)
        np.fmax.at(found[name], picture_row, values)
    threshold |= dict(ISSUES.values())
    found["tiny"], threshold["tiny"] = tiny(data.sample["width"], data.sample["height"]), 1.0
    firsts = np.flatnonzero(np.r_[True, np.diff(picture_row) != 0]) if pictures else np.zeros(0, np.int64)
    hashes = pixel_hashes([pictures[i][1] for i in firsts])
    near = near_duplicates(all_sample_vectors(data, weigh)[IMAGE], hashes, picture_row[firsts])
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


class Reasons:
    """Words for the samples above a flag's threshold."""

    def __init__(
        self, data: Collected, weights: Weights, p999: Array, found: dict[str, Array], near: Near, best: str
    ) -> None:
        self.data, self.weights, self.p999 = data, weights, p999
        self.found, self.near, self.best = found, near, best

    def of(self, name: str, threshold: float) -> list[list[Any]]:
        """[row, flag, {text, features, tokens}] of the worst MAX_REASONS samples above the threshold, by
        row.
        """
        values = self.found[name]
        rows = np.flatnonzero(values > threshold)
        rows = np.sort(rows[np.argsort(-values[rows], kind="stable")[:MAX_REASONS]])
        if name in ("mismatch", "unsupported"):
            reasons = self._against_image(rows, name)
        else:
            reasons = [self._plain(name, int(row), float(values[row])) for row in rows]
        return [[int(row), name, reason] for row, reason in zip(rows, reasons, strict=True)]

    def _plain(self, name: str, row: int, value: float) -> dict[str, Any]:
        record = self.data.samples[row]
        width, height = int(self.data.sample["width"][row]), int(self.data.sample["height"][row])
        repeated = [w for w, c in Counter(re.findall(r"\w+", record["text"].lower())).most_common(N_NAMED) if c > 1]
        other = int(self.near.row[row])
        text = {
            "near-duplicate": "To the eye and inside the model it is nearly sample "
            f"{self.data.samples[other]['sample_id']} (cosine {self.near.cosine[row]:.3f}).",
            "blank": f"The picture carries almost no information ({1 - value:.2f} of 1).",
            "dark": f"Even its brightest pixels are dark ({1 - value:.2f} of 1).",
            "blurred": f"It has hardly a sharp edge ({1 - value:.2f} of 1).",
            "tiny": f"The picture has only {width} × {height} pixels.",
            "empty-text": "The text has no letter or digit.",
            "repeated-text": f"{value:.0%} of its word pairs repeat earlier ones.",
            "reconstruction": f"The autoencoder leaves {value:.0%} of the variance unexplained.",
            "few-features": f"Only {1 - value:.0%} of the usual number of features is active per token.",
        }[name]
        return {"text": text, "features": [], "tokens": repeated if name == "repeated-text" else []}

    def _against_image(self, rows: Array, name: str) -> list[dict[str, Any]]:
        """Names the text's features that the image lacks, the tokens they fire on, and what the image has
        instead.
        """
        if not len(rows):
            return []
        support_f, n_features = self.weights.support_f, self.data.n_features
        text, image = (_over_p999(m, self.p999) for m in self.data.maxima_of(rows))
        events = text_events(self.data, rows, self.p999)
        excess = text_excess(*events, image, support_f)
        reasons = []
        for i, row in enumerate(rows):
            mine = np.flatnonzero((excess.row_t == i) & (excess.feature_t >= 0))
            mine = mine[np.argsort(-excess.share_t[mine], kind="stable")]
            strong = mine[excess.share_t[mine] >= 0.5 * excess.share_t[mine[0]]][:N_NAMED] if len(mine) else mine
            lacking = list(dict.fromkeys(int(k) for k in excess.feature_t[strong]))
            tokens = list(dict.fromkeys(self._token(int(row), int(p)) for p in excess.position_t[strong]))
            only_image = np.zeros(n_features)
            at = slice(*image.indptr[i : i + 2])
            only_image[image.indices[at]] = np.minimum(image.data[at], 1) * support_f[image.indices[at]]
            only_image[text.indices[slice(*text.indptr[i : i + 2])]] = 0
            instead = [int(k) for k in np.argsort(-only_image, kind="stable")[:N_NAMED] if only_image[k] > 0]
            words = ", ".join(f"“{token.strip()}”" for token in tokens)
            if name == "unsupported":
                said = f"No patch supports {words}." if words else "A caption token has no support on the image."
            else:
                value = 1 - float(self.found["mismatch"][row])
                said = f"Text and image share little: {self.best} {value:.2f}."
                said += f" No patch supports {words}." if words else ""
                said += " The image has features that the text lacks." if instead else ""
            chosen = lacking if name == "unsupported" else lacking + [k for k in instead if k not in lacking]
            reasons.append({"text": said, "features": chosen, "tokens": tokens})
        return reasons

    def _token(self, row: int, position: int) -> str:
        events = self.data.events
        return self.data.vocabulary[int(events.token_id[int(events.sample_token[row]) + position])]
