"""The page of the map: what is chosen and found on it, and its strongest features in words for who cannot see it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api.map import has_map
from backend.api.stores import get_store_detail
from backend.deps import OpenStore, StateDep, StoreDep
from backend.links import Links
from backend.pages.cards import glimpses
from backend.schemas import Feature, FeatureDetail
from backend.templating import VERDICT_HELP, Maybe, MaybeStr, render_for
from precompute.store import mapfile

router = APIRouter(default_response_class=HTMLResponse)

COLOURS = {
    "verdict": ("verdict", "What the feature fires on"),
    "omega": ("ω", "Cross-modal weight, where it was computed"),
    "density": ("density", "Share of tokens on which it is active, in the modality where it is denser; logarithmic"),
}
STRONGEST_BY: dict[str, Any] = {"cross-modal": "lift", "unaligned": "lift"}
"""What the lists under the map are sorted by; by largest activation where there is no lift."""
N_FOUND, N_LISTED, N_STRONGEST = 500, 24, 10


@router.get("/map")
def feature_map(
    request: Request,
    state: StateDep,
    served: StoreDep,
    colour: Literal["verdict", "omega", "density"] = "verdict",
    hide: Annotated[str, Query(max_length=200)] = "",
    q: Annotated[MaybeStr, Query(max_length=500)] = None,
    feature: Annotated[int | None, Maybe, Query(ge=0, le=2**31 - 1)] = None,
    view: Annotated[str, Query(max_length=100)] = "",
) -> HTMLResponse:
    """`hide`: verdicts with commas between; `view`: x,y,zoom, which map.js alone reads."""
    verdicts = get_store_detail(state, served).verdicts
    lists = []
    for name in VERDICT_HELP:
        if name == "dead" or not verdicts.get(name):
            continue
        by = STRONGEST_BY.get(name, "max_activation")
        lists.append((name, by, strongest(served, name, by)))
    found = features_api.get_features(served, q=q, sort="n_samples", order="desc", limit=N_FOUND) if q else None
    chosen = chosen_feature(served, feature)
    return render_for(
        request,
        "map.html",
        state,
        served,
        section="/map",
        there=has_map(served),
        absent=mapfile.ABSENT,
        layout=served.manifest.get("map"),
        version=Links(request, served).version,
        colours=COLOURS,
        q={"colour": colour, "hide": hide, "q": q, "feature": feature, "view": view},
        hidden=[name for name in hide.split(",") if name in VERDICT_HELP],
        verdicts=verdicts,
        lists=lists,
        found=found,
        listed=found.items[:N_LISTED] if found else [],
        chosen=chosen,
        glimpses=glimpses(request, served, [chosen.id]) if chosen else {},
    )


def strongest(served: OpenStore, verdict: Any, by: Any) -> list[Feature]:
    return features_api.get_features(served, verdict=[verdict], sort=by, order="desc", limit=N_STRONGEST).items


def chosen_feature(served: OpenStore, feature: int | None) -> FeatureDetail | None:
    """None where none was asked for or there is no such one: an old address still opens."""
    if feature is None:
        return None
    try:
        return features_api.get_feature(served, feature)
    except HTTPException:
        return None
