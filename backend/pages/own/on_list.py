"""The features of a list on its samples and on pairs of one's own."""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException, Request

from backend.api.own.matrix import OwnResult, as_parameter, matrix
from backend.live.query import OwnPair
from backend.pages.own.form import Hidden, form_values
from backend.schemas.annotations import ListBody
from backend.stores import OpenStore, State
from backend.templating import Addresses

MAX_SAMPLES = 8
"""Samples of a list that are columns, its test pair first."""


def own_of(body: ListBody) -> list[str]:
    """The test pair of a list, as `own`, where it is a text."""
    pair = body.pair
    return [as_parameter(OwnPair(pair.text))] if pair and pair.text and not pair.sample_id else []


def matrix_values(
    request: Request, state: State, store: OpenStore, body: ListBody, own: list[OwnResult], hidden: Hidden
) -> dict[str, Any]:
    """The values of templates/own/on_list.html.

    Args:
        own: what the address names and what came of it, after the list's own test pair. hidden: fields of the form.
    """
    links = Addresses.of_store(request, state, store)
    first = [body.pair.sample_id] if body.pair and body.pair.sample_id else []
    wanted = list(dict.fromkeys([*first, *body.samples]))
    rows = store.store.selection.rows_of(wanted[: 2 * MAX_SAMPLES])
    samples = [id for id in wanted if id in rows][:MAX_SAMPLES]
    named = [as_parameter(pair) for pair, _ in own[len(own_of(body)):]]
    refused = next((result for _, result in own if isinstance(result, HTTPException)), None)
    return {
        **form_values(request, state, store, OwnPair(), [*hidden, *(("own", one) for one in named)]),
        "own_clear": links.again(own=None),
        "own_named": named,
        "own_error": str(refused.detail) if refused else None,
        "matrix": matrix(request, store, body.features, samples, own) if body.features and (samples or own) else None,
        "matrix_json": links.api(
            "/try/matrix", feature=body.features, sample=samples, own=[*own_of(body), *named]
        ),
    }
