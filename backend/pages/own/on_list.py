"""The features of a list on its samples and on pairs of one's own."""

from typing import Any

from fastapi import HTTPException

from backend.api.own.matrix import OwnResult, as_parameter, matrix
from backend.live.query import OwnPair
from backend.pages.own.form import Hidden, form_values
from backend.pages.visit import PageVisit
from backend.schemas.annotations import ListBody

MAX_SAMPLES = 8
"""Samples of a list that are columns, its test pair first."""


def own_of(body: ListBody) -> list[str]:
    """The test pair of a list, as `own`, where it is a text."""
    pair = body.pair
    return [as_parameter(OwnPair(pair.text))] if pair and pair.text and not pair.sample_id else []


def matrix_values(visit: PageVisit, body: ListBody, pairs: list[OwnResult], fields: Hidden) -> dict[str, Any]:
    """The values of templates/own/on_list.html.

    Args:
        pairs: what the address names and what came of it, after the list's own test pair. fields: fields of the form.
    """
    links = visit.links
    first = [body.pair.sample_id] if body.pair and body.pair.sample_id else []
    sample_ids = list(dict.fromkeys([*first, *body.samples]))
    rows = visit.reader.selection.rows_of(sample_ids[: 2 * MAX_SAMPLES])
    samples = [id for id in sample_ids if id in rows][:MAX_SAMPLES]
    pair_keys = [as_parameter(pair) for pair, _ in pairs[len(own_of(body)) :]]
    has_cells = bool(body.features and (samples or pairs))
    refusal = next((result for _, result in pairs if isinstance(result, HTTPException)), None)
    return {
        **form_values(visit, OwnPair(), [*fields, *(("own", key) for key in pair_keys)]),
        "own_clear": links.again(own=None),
        "own_named": pair_keys,
        "own_error": str(refusal.detail) if refusal else None,
        "matrix": matrix(visit.request, visit.store, body.features, samples, pairs) if has_cells else None,
        "matrix_json": links.api("/try/matrix", feature=body.features, sample=samples, own=[*own_of(body), *pair_keys]),
    }
