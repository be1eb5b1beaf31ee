"""Features × pairs: samples of the store, and pairs of one's own."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request, Response

from backend.api.own.pairs import MAX_TEXT, Result, own_image, plain_text, read_or_refuse
from backend.deps import Visit, VisitDep
from backend.links import ImageLinks, check_feature, check_sample, sample_of
from backend.live.live_answers import number
from backend.live.query import OwnPair, Reading
from backend.params import QueryModel
from backend.replies import json_reply
from backend.schemas.live import Matrix
from backend.stores import OpenStore
from precompute.store.events import dense_values
from precompute.store.schema import IMAGE, MODALITIES, TEXT
from precompute.utils.stats import ratio
from precompute.utils.types import Array

router = APIRouter(tags=["try"])

MAX_OWN = 6
HASH = re.compile(r"[0-9a-f]{32}|")
OwnResult = tuple[OwnPair, Result]
Column = tuple[dict[str, Any], Array]
"""A pair as `MatrixPair` has it, and the largest z of each feature on text and image, float64 [k, 2], NaN without that
side."""


OwnList = Annotated[
    list[str], Query(max_length=MAX_OWN, description="HASH:TEXT of one's own pairs; either may be empty.")
]


class MatrixQuery(QueryModel):
    """Features, and the pairs on which they are looked at."""

    feature: Annotated[list[int], Query(min_length=1, max_length=100)]
    """Feature number; may be repeated."""
    sample: Annotated[list[str], Query(max_length=24)] = []  # noqa: RUF012 - pydantic copies it
    """Samples, as addresses name them."""
    own: OwnList = []  # noqa: RUF012


def as_parameter(pair: OwnPair) -> str:
    """One's own pair as the value of `own`."""
    return f"{pair.image or ''}:{pair.text}"


def own_pair(value: str) -> OwnPair:
    """The pair that a value of `own` names. Raises HTTPException: 422 for one that is none."""
    hash, colon, text = value.partition(":")
    if not colon or not HASH.fullmatch(hash) or len(text) > MAX_TEXT or not (hash or text.strip()):
        expectation = "the hash of an uploaded image, a text, or both with a colon between"
        raise HTTPException(422, f"own: {value[:60]!r} is not HASH:TEXT: give {expectation}.")
    return OwnPair(plain_text(text), hash or None)


@router.get("/try/matrix", response_model=Matrix, summary="Features × pairs: samples, and pairs of one's own")
async def get_matrix(visit: VisitDep, query: Annotated[MatrixQuery, Query()]) -> Response:
    pairs = await read_all(visit, query.own)
    samples = [sample_of(key) for key in query.sample]
    return await json_reply(partial(matrix, visit.request, visit.store, query.feature, samples, pairs))


async def read_all(visit: Visit, parameters: Sequence[str]) -> list[OwnResult]:
    """One's own pairs, each read or with the reason why it was not."""
    pairs = [own_pair(parameter) for parameter in parameters]
    return [(pair, await read_or_refuse(visit, pair)) for pair in pairs]


def matrix(
    request: Request,
    store: OpenStore,
    features: list[int],
    samples: Sequence[str],
    pairs: Sequence[OwnResult],
) -> Matrix:
    """The values of features on stored samples and on pairs of one's own, in this order.

    Raises:
        HTTPException: 404 for a feature or a sample that the store does not have.
    """
    for feature in features:
        check_feature(store, feature)
    columns = [stored_column(request, store, features, sample) for sample in samples]
    columns += [own_column(request, features, *pair) for pair in pairs]
    p999 = np.nan_to_num(store.reader.features.table["p999"][features])
    share_pk2 = [ratio(z_k2, p999[:, None]) for _, z_k2 in columns]
    refs = store.reader.features.refs(features)
    return Matrix.model_validate(
        {
            "features": [refs[id] for id in features],
            "pairs": [pair for pair, _ in columns],
            "cells": [
                [{side: number(share_k2[k, m]) for m, side in enumerate(MODALITIES)} for share_k2 in share_pk2]
                for k in range(len(features))
            ],
        }
    )


def stored_column(request: Request, store: OpenStore, features: list[int], sample_id: str) -> Column:
    """A stored sample. Where the store has no events of it, what is not among the 256 strongest of a side counts as
    0."""
    row = check_sample(store, sample_id)
    item = ImageLinks(request, store).images(store.reader.samples.items([row])[row])
    z_k2 = np.full((len(features), 2), np.nan)
    if store.reader.events.has(row):
        events = store.reader.events.of(row)
        z_tk = dense_values(events, features)
        for m in (TEXT, IMAGE):
            if (events.modality_t == m).any():
                z_k2[:, m] = z_tk[events.modality_t == m].max(axis=0)
    else:
        for m, n_tokens in enumerate((item["n_text"], item["n_image"])):
            z_of = dict(zip(*(column.tolist() for column in store.reader.events.maxima(row, m)), strict=True))
            if n_tokens:
                z_k2[:, m] = [z_of.get(id, 0.0) for id in features]
    images = item["images"]
    return {"sample_id": sample_id, "text": item["text"], "image": images[0] if images else None}, z_k2


def own_column(request: Request, features: list[int], sent_pair: OwnPair, result: Result) -> Column:
    """A pair of one's own."""
    pair: dict[str, Any] = {"text": sent_pair.text, "image": None}
    z_k2 = np.full((len(features), 2), np.nan)
    if isinstance(result, Reading):
        pair["image"] = own_image(request, sent_pair, result)
        sides = list(result.query.modalities)
        z_k2[:, sides] = result.query.max_f2[np.ix_(features, sides)]
    elif result is not None:
        pair["reason"] = str(result.detail)
    return pair, z_k2
