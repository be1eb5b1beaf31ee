"""`store.nearest`: the samples nearest to a stored one by sample vector, with what they share."""

from functools import lru_cache

import numpy as np

from precompute.store import schema as s
from precompute.store.core import Core, feature_ref, modality_code
from precompute.store.features import Features
from precompute.store.samples import Samples
from precompute.store.search import Search
from precompute.utils.stats import unit
from precompute.utils.types import Array, Item

N_SHARED = 4
"""Features that are named of what two samples share, one a family or name."""
N_CANDIDATES = 50
_CACHED = 512
"""Searches that are remembered: each compares one vector with those of all samples."""


class Nearest:
    """Samples that are alike."""

    def __init__(self, core: Core, features: Features, samples: Samples, search: Search) -> None:
        self._core, self._features, self._samples, self._search = core, features, samples, search
        self._rows = lru_cache(maxsize=_CACHED)(self._nearest_rows)

    def of(self, row: int, modality: str, limit: int = 12) -> Item:
        """The samples whose image, or text, is nearest to that of sample `row` (`GET /samples/{id}/nearest`).

        Returns:
            `items`, each a sample with `cosine`, `flags`, `shared` features and `caption_fit`: the cosine of its
            caption's features and this sample's image, over the stored maxima; `own_fit` is that of the own caption.

        Raises:
            SaevxError: no such modality.
        """
        m = modality_code(modality)
        cosine_of = dict(self._rows(int(row), modality, limit))
        items = self._samples.items(cosine_of)
        own_image = self._core.events.maxima(row, s.IMAGE)
        own_weights = self._weights(row, m)
        in_both = {near_row: self._shared_features(own_weights, self._weights(near_row, m)) for near_row in cosine_of}
        refs = self._features.refs({k for pairs in in_both.values() for k in pairs})
        z_of = dict(zip(*(values.tolist() for values in self._core.events.maxima(row, m)), strict=True))

        def with_activation(k: int) -> Item:
            return {**feature_ref(refs[k]), "activation": z_of[k], "share": z_of[k] / max(refs[k]["p999"], 1e-30)}

        return {
            "own_fit": _fit(self._core.events.maxima(row, s.TEXT), own_image),
            "items": [
                {
                    **{name: items[near_row][name] for name in ("sample_id", "row", "text", "images", "flags")},
                    "cosine": cosine,
                    "caption_fit": _fit(self._core.events.maxima(near_row, s.TEXT), own_image),
                    "shared": [with_activation(k) for k in in_both[near_row]],
                }
                for near_row, cosine in cosine_of.items()
            ],
        }

    def of_both(self, row: int, limit: int = 6) -> dict[int, float]:
        """Row → cosine of the samples nearest to `row` by text and image together, as on the map of samples, of the
        N_CANDIDATES nearest by each; the nearest first. None where nothing fires in the sample."""
        sides = [self._rows(int(row), modality, N_CANDIDATES) for modality in s.MODALITIES]
        near_rows = sorted({near_row for pairs in sides for near_row, _ in pairs})
        if not near_rows:
            return {}
        own_vector, *vectors = unit(self._search.vectors_of(np.array([row, *near_rows])))
        cosines = [min(float(own_vector @ vector), 1.0) for vector in vectors]
        pairs = zip(near_rows, cosines, strict=True)
        return dict(sorted(pairs, key=lambda pair: -pair[1])[:limit])

    def _nearest_rows(self, row: int, modality: str, limit: int) -> tuple[tuple[int, float], ...]:
        """(row, cosine) of the nearest samples but itself, the nearest first; none without that modality."""
        index = self._search.index(f"sample_{modality}")
        vector = index.reconstruct(row)
        if not vector.any():
            return ()
        cosines, rows = index.search(vector[None], limit + 1)
        pairs = zip(rows[0].tolist(), cosines[0].tolist(), strict=True)
        return tuple((near_row, min(cosine, 1.0)) for near_row, cosine in pairs if near_row not in (row, -1))[:limit]

    def _weights(self, row: int, modality: int) -> dict[int, float]:
        """By feature what it weighs in the sample's vector (METHOD, *Search*)."""
        feature_k, z_k = self._core.events.maxima(row, modality)
        ratio_k = z_k / np.maximum(self._features.table["p999"][feature_k], 1e-30)
        weight_k = np.log1p(ratio_k) * self._features.specificity[feature_k, modality]
        return dict(zip(feature_k.tolist(), weight_k.tolist(), strict=True))

    def _shared_features(self, weights_a: dict[int, float], weights_b: dict[int, float]) -> list[int]:
        """The features that weigh most in both samples, the first of each family or name."""
        by_product = sorted(weights_a.keys() & weights_b.keys(), key=lambda k: (-weights_a[k] * weights_b[k], k))
        first: dict[int, int] = {}
        for k in by_product:
            first.setdefault(int(self._features.concept[k]), k)
        return list(first.values())[:N_SHARED]


def _fit(text: tuple[Array, Array], image: tuple[Array, Array]) -> float | None:
    """Cosine of the maxima of a text and of an image, each (feature, z); None where one is empty."""
    if not len(text[0]) or not len(image[0]):
        return None
    _, of_text, of_image = np.intersect1d(text[0], image[0], assume_unique=True, return_indices=True)
    dot = float(text[1][of_text] @ image[1][of_image])
    return dot / float(np.linalg.norm(text[1]) * np.linalg.norm(image[1]))
