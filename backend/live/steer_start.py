"""With what steering a feature begins: a strength below the cap, where, and a sample in which the feature is off."""

from math import floor

from backend.links import check_feature
from backend.schemas.steering import Scope, SteerStart
from backend.stores import OpenStore
from precompute.store.schema import IMAGE, TEXT

FIRST_SHARE, TEXT_SHARE = 0.85, 0.7
"""Share of the cap that a first run uses, and in a store without images: less often leaves the answer as it was, more
is capped on tokens whose h is shorter than the median."""
STEP, MAX_STRENGTH = 0.25, 100.0
"""Steps of the slider, and the largest strength that the API takes."""
MAX_TRIED = 200
"""Samples that are looked at for one in which the feature is off."""


def cap_of(open_store: OpenStore, feature: int) -> float | None:
    """Strength at which ‖Δ‖ reaches the median ‖h‖ of text or image tokens, whichever is smaller; None for a feature
    that is never active, or where the store has no norms."""
    store = open_store.reader
    norms = [norm for norm in (store.manifest["sinks"].get("median_norm") or {}).values() if norm]
    per_unit = float(store.features.table["p999"][feature]) * float(store.directions.scales[feature]["length"])
    return min(norms) / per_unit if norms and per_unit > 0 else None


def start_of(open_store: OpenStore, feature: int, n_features: int = 1) -> SteerStart:
    """Raises HTTPException: 404 if there is no such feature.

    Args:
        n_features: steered together; they share the room below the cap.
    """
    check_feature(open_store, feature)
    cap = cap_of(open_store, feature)
    share = FIRST_SHARE if open_store.has_images else TEXT_SHARE
    first_strength = MAX_STRENGTH if cap is None else min(share * cap / n_features, MAX_STRENGTH)
    strength = max(STEP, STEP * floor(first_strength / STEP)) if cap is not None else 1.0
    sample_id = sample_without(open_store, feature)
    return SteerStart(strength=strength, cap=cap, scope=first_scope(open_store), sample_id=sample_id)


def first_scope(open_store: OpenStore) -> list[Scope]:
    """Where a first run steers. Not at the generated text if there are images: steered at each of its own tokens too,
    an answer of a few words soon repeats itself. Without images the prompt alone changes too little."""
    return ["image", "prompt"] if open_store.has_images else ["prompt", "generated"]


def sample_without(open_store: OpenStore, feature: int) -> str | None:
    """The first sample with an image in which the feature is not among the strongest of either side; the first with an
    image if it fires in all; None without images."""
    store, first = open_store.reader, None
    for row in range(min(MAX_TRIED, store.n_samples)):
        in_image, _ = store.events.maxima(row, IMAGE)
        if not len(in_image):
            continue
        first = row if first is None else first
        if feature not in in_image and feature not in store.events.maxima(row, TEXT)[0]:
            return store.samples.sample_id(row)
    return None if first is None else store.samples.sample_id(first)
