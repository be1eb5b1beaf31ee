"""The measured effect of a feature: a page by itself, which the feature's page fetches into its panel."""

from math import floor, log10
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from backend.api.features import get_feature
from backend.drawing.figures import format_signed
from backend.drawing.text import visible
from backend.links import check_feature
from backend.live.effects import request_effect
from backend.pages.visit import PageDep
from backend.schemas.effect import FeatureEffect, TokenChange, TokenChanges
from backend.schemas.features import FeatureDetail
from precompute.utils.text import bare_name, words_of

router = APIRouter(default_response_class=HTMLResponse)

N_CONTROL = 5
"""Tokens of each side of the control."""


@router.get("/features/{id}/effect")
async def effect(visit: PageDep, id: int) -> HTMLResponse:
    """What the live model says, or in a sentence why it says nothing."""
    check_feature(visit.store, id)
    result, refusal = None, None
    try:
        result = await request_effect(visit, id)
    except HTTPException as error:
        refusal = str(error.detail)

    def render() -> HTMLResponse:
        detail = get_feature(visit.store, id)
        return visit.render(
            "effect.html",
            section="/features",
            f=detail,
            refusal=refusal,
            auto_effect=False,
            model_off=None,
            model_loads=visit.state.live.state_of(visit.store.name).state == "loading",
            effect=None if result is None else panel(result, detail),
        )

    return await run_in_threadpool(render)


def panel(effect: FeatureEffect, f: FeatureDetail) -> dict[str, Any]:
    """The effect as feature/effect.html draws it."""
    words = set(words_of(bare_name(f.label or "")))
    sides: list[dict[str, Any]] = []
    if effect.ablated and effect.control:
        sides = [
            {"kl": changes.kl, "groups": groups(changes, n, words), "control": n == N_CONTROL}
            for changes, n in ((effect.ablated, None), (effect.control, N_CONTROL))
        ]
    digits = digits_of(effect)
    for row in (row for side in sides for rows in side["groups"].values() for row in rows):
        row["points"] = format_signed(100 * row["change"], digits)
    return {**effect.model_dump(include={"n_pairs", "n_places"}), "control": effect.control_feature, "sides": sides}


def digits_of(effect: FeatureEffect) -> int:
    """Decimals with which all changes are written, in percentage points: the largest gets two digits that count."""
    changes = [t.change for side in (effect.ablated, effect.control) if side for t in (*side.lowered, *side.raised)]
    max_percent = 100 * max((abs(change) for change in changes), default=0.0)
    return min(6, max(2, 1 - floor(log10(max_percent)))) if max_percent else 2


def groups(changes: TokenChanges, n: int | None, words: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The tokens of both directions as they are listed; `named` are those of the feature's name."""

    def row(token: TokenChange) -> dict[str, Any]:
        is_named = token.token.strip().lower() in words
        return {**token.model_dump(), "token": visible(token.token), "named": is_named}

    return {name: [row(token) for token in getattr(changes, name)[:n]] for name in ("lowered", "raised")}
