"""A pair that is not in the store: its flags by the store's own thresholds, each with the reason.

`reconstruction` and `near-duplicate` compare with the whole data and stay unknown here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix

from precompute.data import write_thumbnail
from precompute.scoring.pixels import pixel_flags, tiny
from precompute.scoring.token_support import Excess, text_excess, worst
from precompute.steps.score import Weights
from precompute.store.events import SampleEvents
from precompute.store.reader import Store
from precompute.store.schema import FLAGS, IMAGE, TEXT
from precompute.utils.text import has_letters, is_blank, repeated_share
from precompute.utils.types import Array


def excess_of(events: SampleEvents, largest: Array, p999: Array, weights: Weights) -> Excess:
    """Per text token, the share of its features' weight that no patch supports (flag `unsupported`).

    Args:
        largest: [F, 2] max z in each modality.
    """
    token_e = np.repeat(np.arange(len(events.modality_t)), np.diff(events.offset_t))
    text_e = np.flatnonzero(events.modality_t[token_e] == TEXT)
    feature_e = events.feature_e[text_e]
    unit = np.maximum(p999, 1e-30)
    active = np.flatnonzero(largest[:, IMAGE])
    ratio = csr_matrix(
        (largest[active, IMAGE] / unit[active], active, [0, len(active)]), shape=(1, len(largest))
    )
    row_e = np.zeros(len(text_e), np.int64)
    ratio_e = events.z_e[text_e] / unit[feature_e]
    return text_excess(row_e, token_e[text_e], feature_e, ratio_e, ratio, weights.support_f)


def pixels_of(image: Image.Image) -> dict[str, float]:
    """blank, dark, blurred and tiny of a picture, from a thumbnail as the store keeps them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.webp"
        write_thumbnail(image, path)
        found = {name: float(values[0]) for name, values in pixel_flags([path]).items()}
    width, height = (np.array([edge]) for edge in image.size)
    return {**found, "tiny": float(tiny(width, height)[0])}


def flag_pair(
    store: Store,
    events: SampleEvents,
    largest: Array,
    scores: dict[str, float | None],
    weights: Weights,
    text: str,
    image: Image.Image | None,
) -> tuple[dict[str, float | None], list[dict[str, Any]]]:
    """All flag scores of a live pair (None where unknown), and the flags raised with their reason.

    Args:
        events: of the pair. largest: [F, 2] its max z. scores: from `score_pair`.
    """
    found: dict[str, float | None] = dict.fromkeys(FLAGS)
    found["empty-text"] = float(not has_letters(text))
    found["repeated-text"] = repeated_share(text)
    if image is not None:
        found |= pixels_of(image)
    middle = store.quality.score_median("l0")
    if scores["l0"] is not None and middle > 0:
        found["few-features"] = float(1 - scores["l0"] / middle)
    excess = excess_of(events, largest, store.features.table["p999"], weights)
    basis = str(store.manifest.get("mismatch_score", "pooled-cosine"))
    basis_value = scores.get(basis)
    if image is not None and largest[:, TEXT].any() and basis_value is not None:
        found["mismatch"] = 1 - basis_value
        found["unsupported"] = float(excess.share_t.max(initial=0.0))
    hits = []
    for flag in store.quality.flags:
        value = found[flag["name"]]
        if value is not None and value > flag["threshold"]:
            reason = store.quality.reason(why(flag["name"], value, basis, excess, events, store))
            hits.append(
                {**{k: flag[k] for k in ("name", "title", "threshold")}, "score": value, "reason": reason}
            )
    return found, hits


def why(
    name: str, value: float, basis: str, excess: Excess, events: SampleEvents, store: Store
) -> dict[str, Any]:
    """The reason in one sentence, with the features and tokens behind it."""

    def text_of(position: int) -> str:
        return store.vocabulary.whole_token(events.token_id_t, position)

    against = name in ("mismatch", "unsupported")
    strong = worst(excess, np.arange(len(excess.row_t) if against else 0), text_of).tolist()
    tokens = list(dict.fromkeys(text_of(int(excess.position_t[i])) for i in strong))
    words = ", ".join(f"“{token.strip()}”" for token in tokens if not is_blank(token))
    unsupported = f"No patch supports {words}." if words else ""
    said = {
        "mismatch": f"Text and image share little: {basis} {1 - value:.2f}. {unsupported}".strip(),
        "unsupported": unsupported or "A caption token has no support on the image.",
        "blank": f"The picture carries almost no information ({value:.2f}).",
        "dark": f"Even its brightest pixels are dark ({value:.2f}).",
        "blurred": f"It has hardly an edge ({value:.2f}).",
        "tiny": f"Its shorter side has only {64 / value:.0f} pixels." if value else "",
        "empty-text": "The text has no letter or digit.",
        "repeated-text": f"{value:.0%} of its word pairs repeat earlier ones.",
        "few-features": f"Only {1 - value:.0%} of the usual number of features is active per token.",
    }[name]
    return {"text": said, "features": [int(excess.feature_t[i]) for i in strong], "tokens": tokens}
