"""Why a pair is flagged, in words: the features and tokens behind a flag's score. One implementation for stored and
live pairs.
"""

from functools import partial
from typing import Any

import numpy as np

from precompute.scoring.flags import Reference
from precompute.scoring.pairs import Pairs
from precompute.scoring.token_support import N_NAMED, most_unsupported, over_p999, unsupported_tokens
from precompute.utils.text import is_blank, repeated_words
from precompute.utils.types import Array

Reason = dict[str, Any]
"""{"text": a sentence, "features": ids, "tokens": texts}."""
MAX_REASONS = 2000  # per flag, the worst first
AGAINST_IMAGE = ("mismatch", "unsupported")


def worst_rows(value_n: Array, threshold: float) -> Array:
    """Rows of the MAX_REASONS largest values above the threshold, rising; of equal values the smaller rows."""
    rows = np.flatnonzero(value_n > threshold)
    return np.sort(rows[np.argsort(-value_n[rows], kind="stable")[:MAX_REASONS]])


def reasons(name: str, value_n: Array, pairs: Pairs, reference: Reference) -> list[Reason]:
    """Why each of n pairs is flagged; not for `near-duplicate`.

    Args:
        name: of the flag. value_n: its score, float64 [n].
    """
    if name in AGAINST_IMAGE:
        return _against_image(name, value_n, pairs, reference)
    return [_plain_reason(name, float(value), pairs, i) for i, value in enumerate(value_n)]


def near_duplicate_reason(other_id: str, cosine: float) -> Reason:
    text = f"To the eye and inside the model it is nearly sample {other_id} (cosine {cosine:.3f})."
    return {"text": text, "features": [], "tokens": []}


def _plain_reason(name: str, value: float, pairs: Pairs, i: int) -> Reason:
    width, height = pairs.size_n2[i].tolist()
    text = {
        "blank": f"The image carries almost no information ({1 - value:.2f} of 1).",
        "dark": f"Even its brightest pixels are dark ({1 - value:.2f} of 1).",
        "blurred": f"It has hardly a sharp edge ({1 - value:.2f} of 1).",
        "tiny": f"The image has only {width} × {height} pixels.",
        "empty-text": "The text has no letter or digit.",
        "repeated-text": f"{value:.0%} of its word pairs repeat earlier ones.",
        "reconstruction": f"The autoencoder leaves {value:.0%} of the variance unexplained.",
        "few-features": f"Only {1 - value:.0%} of the usual number of features is active per token.",
    }[name]
    words = repeated_words(pairs.texts[i], N_NAMED) if name == "repeated-text" else []
    return {"text": text, "features": [], "tokens": words}


def _against_image(name: str, value_n: Array, pairs: Pairs, reference: Reference) -> list[Reason]:
    """Names the text's features that the image lacks, the tokens on which they fire, and what the image has instead."""
    if not len(value_n):
        return []
    support_f, (text, image) = reference.weights.support_f, pairs.maxima
    tokens = unsupported_tokens(pairs.text_events, image, reference.p999_f, support_f)
    image_ratio = over_p999(image, reference.p999_f)
    result: list[Reason] = []
    for i, value in enumerate(value_n.tolist()):
        text_of = partial(pairs.token, i)
        top_tokens = most_unsupported(tokens, np.flatnonzero(tokens.row_t == i), text_of)
        feature_ids = list(dict.fromkeys(int(k) for k in tokens.feature_t[top_tokens]))
        token_texts = list(dict.fromkeys(text_of(int(p)) for p in tokens.position_t[top_tokens]))
        words = ", ".join(f"“{token.strip()}”" for token in token_texts if not is_blank(token))
        if name == "unsupported":
            sentence = f"No patch supports {words}." if words else "A caption token has no support on the image."
            result.append({"text": sentence, "features": feature_ids, "tokens": token_texts})
            continue
        only_image = np.zeros(pairs.n_features)
        at = slice(*image.indptr[i : i + 2])
        only_image[image.indices[at]] = np.minimum(image_ratio.data[at], 1) * support_f[image.indices[at]]
        only_image[text.indices[slice(*text.indptr[i : i + 2])]] = 0
        instead = [int(k) for k in np.argsort(-only_image, kind="stable")[:N_NAMED] if only_image[k] > 0]
        sentence = f"Text and image share few features ({reference.mismatch_score} {1 - value:.2f})."
        sentence += f" No patch supports {words}." if words else ""
        sentence += " The image has features that the text lacks." if instead else ""
        features = feature_ids + [k for k in instead if k not in feature_ids]
        result.append({"text": sentence, "features": features, "tokens": token_texts})
    return result
