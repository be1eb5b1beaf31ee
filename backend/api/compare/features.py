"""Two features of one store."""

import numpy as np
from fastapi import APIRouter

from backend.api.cooccurrence import FeatureNumber
from backend.api.features import get_feature
from backend.deps import Cached, StoreDep
from backend.schemas.common import Modality
from backend.schemas.compare import FeatureComparison, Together
from backend.stores import OpenStore
from precompute.store.relations.pair_samples import stored_pair
from precompute.utils.types import Array

router = APIRouter(tags=["compare"], dependencies=[Cached])

SIDES: tuple[tuple[Modality, Modality], ...] = (
    ("text", "image"),
    ("image", "text"),
    ("text", "text"),
    ("image", "image"),
)
"""Of the first and of the second feature."""


@router.get("/compare", summary="Two features beside each other: figures, directions, common samples and tokens")
def get_comparison(store: StoreDep, a: FeatureNumber, b: FeatureNumber) -> FeatureComparison:
    detail_a, detail_b = get_feature(store, a), get_feature(store, b)
    directions = [store.reader.directions.get(feature) for feature in (a, b)]
    tokens = [[token.token for token in detail.logits.centred.promoted] for detail in (detail_a, detail_b)]
    family = store.reader.features.family
    return FeatureComparison(
        a=detail_a,
        b=detail_b,
        cosine=cosine(*(d.centred_d for d in directions)),
        cosine_raw=cosine(*(d.raw_d for d in directions)),
        same_family=bool(family[a] == family[b]) and detail_a.n_members > 1,
        together=pairs_of(store, a, b),
        promoted=[token for token in tokens[0] if token in tokens[1]],
    )


def cosine(x_d: Array, y_d: Array) -> float | None:
    """Cosine of two vectors, float [d]; None where one is zero."""
    lengths = float(np.linalg.norm(x_d)) * float(np.linalg.norm(y_d))
    return float(x_d @ y_d) / lengths if lengths else None


def pairs_of(store: OpenStore, a: int, b: int) -> list[Together]:
    """The pairs that the store lists of the two, the one with the largest lower end of the lift first."""
    pairs = []
    for of_a, of_b in SIDES:
        is_turned = (of_a, of_b) == ("image", "text")
        if is_turned and a == b:
            continue  # as before
        side_a, side_b = (b, a) if is_turned else (a, b)
        kind = "text-image" if of_a != of_b else f"{of_a}-{of_b}"
        if (pair := stored_pair(store.reader.cooccurrence.pairs[kind], side_a, side_b)) is not None:
            sides = ("text", "image") if of_a != of_b else (of_a, of_b)
            pairs.append(Together.model_validate({**pair, "kind": kind, "a": side_a, "b": side_b, "sides": sides}))
    return sorted(pairs, key=lambda pair: -pair.lift_low)
