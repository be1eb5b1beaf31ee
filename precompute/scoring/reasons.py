"""Why a sample is flagged, in words: the features and tokens behind a flag's score."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from precompute.scoring.near_duplicates import Near
from precompute.scoring.token_support import N_NAMED, over_p999, text_events, text_excess, worst
from precompute.steps.score import Weights
from precompute.store.making.unfinished import Collected
from precompute.utils.text import is_blank, repeated_words
from precompute.utils.types import Array

MAX_REASONS = 2000  # per flag, the worst first


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
        words = repeated_words(record["text"], N_NAMED) if name == "repeated-text" else []
        return {"text": text, "features": [], "tokens": words}

    def _against_image(self, rows: Array, name: str) -> list[dict[str, Any]]:
        """Names the text's features that the image lacks, the tokens they fire on, and what the image has
        instead.
        """
        if not len(rows):
            return []
        support_f, n_features = self.weights.support_f, self.data.n_features
        text, image = (over_p999(m, self.p999) for m in self.data.maxima_of(rows))
        events = text_events(self.data, rows, self.p999)
        excess = text_excess(*events, image, support_f)
        reasons = []
        for i, row in enumerate(rows):
            text_of = partial(self._token, int(row))
            strong = worst(excess, np.flatnonzero(excess.row_t == i), text_of)
            lacking = list(dict.fromkeys(int(k) for k in excess.feature_t[strong]))
            tokens = list(dict.fromkeys(text_of(int(p)) for p in excess.position_t[strong]))
            only_image = np.zeros(n_features)
            at = slice(*image.indptr[i : i + 2])
            only_image[image.indices[at]] = np.minimum(image.data[at], 1) * support_f[image.indices[at]]
            only_image[text.indices[slice(*text.indptr[i : i + 2])]] = 0
            instead = [int(k) for k in np.argsort(-only_image, kind="stable")[:N_NAMED] if only_image[k] > 0]
            words = ", ".join(f"“{token.strip()}”" for token in tokens if not is_blank(token))
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
        return self.data.token(row, position)
