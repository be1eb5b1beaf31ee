"""The measured effect of a feature of an open store, as the API has it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import HTTPException

from backend.deps import Visit
from backend.live.lru import Lru
from backend.live.recompute import original_pair
from backend.problems import http_status
from backend.schemas.effect import FeatureEffect
from backend.stores import OpenStore
from precompute.utils.types import Array

if TYPE_CHECKING:
    from backend.live.engines import Engine
    from precompute.live.effect import Change

N_TOKENS = 10
"""Tokens listed of each side."""


CACHE: Lru[tuple[str, int], FeatureEffect] = Lru(500)
"""The effects measured last, by the store's content and the feature."""


def cached_effect(store: OpenStore, feature: int) -> FeatureEffect | None:
    return CACHE.get((store.content_id, feature))


async def request_effect(visit: Visit, feature: int) -> FeatureEffect:
    """The effect, from the cache or by the model.

    Raises:
        HTTPException: 503 if the model is not ready or its queue is full, 409 if the pairs cannot be read again, 422
            for a feature without direction.
        ClientLeft: the client closed the connection while it waited.
    """
    if (effect := cached_effect(visit.store, feature)) is not None:
        return effect
    with visit.reserve() as reservation:
        return await reservation.call(partial(effect_of, store=visit.store, feature=feature), visit.request)


def effect_of(engine: Engine, store: OpenStore, feature: int) -> FeatureEffect:
    """The effect of a feature, measured now or by another request in the meantime. Runs in the live model's worker.

    Raises:
        HTTPException: 409 if a pair cannot be read again, 422 for a feature without direction.
    """
    from precompute.live.effect import choose_control, measure_effect, strongest_samples

    if (ready_effect := cached_effect(store, feature)) is not None:  # measured while this request waited
        return ready_effect
    reader = store.reader
    if (reason := engine.sae.missing_direction_reason([feature])) is not None:
        raise HTTPException(422, reason)
    control = choose_control(reader, engine.sae, feature)
    rows = strongest_samples(reader, feature) if control is not None else {}
    pairs = [original_pair(store, sample_id, row) for sample_id, row in rows.items()]
    effect = None
    if pairs and control is not None:
        with http_status(422):
            effect = measure_effect(engine.mllm, engine.sae, reader.manifest, pairs, (feature, control))
    values: dict[str, Any] = {"id": feature, "n_pairs": 0, "n_places": 0}
    if effect is not None and control is not None:
        values |= {
            "n_pairs": effect.n_pairs,
            "n_places": effect.n_places,
            "ablated": tokens(store, effect.ablation, effect.before_v),
            "control": tokens(store, effect.control, effect.before_v),
            "control_feature": reader.features.refs([control])[control],
        }
    reply = FeatureEffect.model_validate(values)
    CACHE.put((store.content_id, feature), reply)
    return reply


def tokens(store: OpenStore, change: Change, before_v: Array) -> dict[str, Any]:
    """The tokens whose probability falls and rises most.

    Args:
        before_v: float64 [V], probability of each token without the intervention.
    """
    order = np.argsort(change.probability_v, kind="stable")
    sides = {"lowered": order[:N_TOKENS], "raised": order[::-1][:N_TOKENS]}
    text = store.reader.vocabulary.text
    return {"kl": change.kl} | {
        side: [
            {
                "token": text(v),
                "before": float(before_v[v]),
                "change": float(change.probability_v[v]),
                "change_logprob": float(change.logprob_v[v]),
            }
            for v in ids.tolist()
            if (change.probability_v[v] < 0) == (side == "lowered") and change.probability_v[v]
        ]
        for side, ids in sides.items()
    }
