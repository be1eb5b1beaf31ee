"""The map of samples, at `/map?of=samples`: those that pass the filters of the list are marked, those inside an area
are listed, and the chosen one is shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from backend.api import samples as samples_api
from backend.api.map import SampleColour
from backend.api.samples import SampleQuery, has_sample_map
from backend.deps import StateDep, StoreDep
from backend.links import Links
from backend.pages.cards import card, list_flags, list_scores
from backend.pages.samples import SIDES
from backend.params import FormQuery
from backend.schemas.samples import Sample
from backend.stores import OpenStore
from backend.templating import render_for
from precompute.store import mapfile

N_LISTED, N_NEAR = 24, 6


class OfSamples(APIRoute):
    """A route of addresses with `of=samples` alone: the others are the map of features'."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        of = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("of", [""])
        return super().matches(scope) if of[-1] == "samples" else (Match.NONE, {})


router = APIRouter(default_response_class=HTMLResponse, route_class=OfSamples)


class SampleMapQuery(FormQuery, SampleQuery):
    """What the map shows, with the filters of the list of samples."""

    of: Literal["samples"] = "samples"
    colour: SampleColour = "flags"
    row: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    """The chosen sample."""
    view: Annotated[str, Query(max_length=100)] = ""
    """x,y,zoom, which only the map's JavaScript reads."""


@router.get("/map")
def sample_map(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[SampleMapQuery, Query()]
) -> HTMLResponse:
    """The map of samples."""
    there = has_sample_map(open_store)
    filters = {name: value for name, value in query.filters().items() if name != "area"}
    matches, inside = None, None
    if filters:
        matches = samples_in(request, open_store, query.model_copy(update={"area": None}))
    if query.area and there:
        inside = samples_in(request, open_store, query)
    flags = [one for one in list_flags(open_store) if one.count]
    scores = [one for one in list_scores(open_store) if one.mean is not None]
    return render_for(
        request,
        "sample_map.html",
        state,
        open_store,
        section="/map",
        there=there,
        absent=mapfile.NO_SAMPLES,
        summary=open_store.manifest.get("sample_map"),
        version=Links(request, open_store).version,
        q=query,
        filters=filters,
        other_filters={name: value for name, value in filters.items() if name not in ("q", "flags", "match")},
        sides=SIDES,
        flags=flags,
        flags_on=[name.partition(":")[0] for name in query.flag_options()],
        scores=[(one.name, *open_store.store.quality.score_ends(one.name)) for one in scores],
        matches=matches,
        area=inside,
        chosen=chosen_sample(request, open_store, query.row),
    )


def samples_in(request: Request, open_store: OpenStore, query: SampleMapQuery) -> dict[str, Any]:
    """The first samples of a list as cards with their rows, and how many there are."""
    page = samples_api.get_samples(request, open_store, query.model_copy(update={"limit": N_LISTED}))
    return {"items": [{**card(one), "row": one.row} for one in page.items], "total": page.total}


def chosen_sample(request: Request, open_store: OpenStore, row: int | None) -> dict[str, Any] | None:
    """The sample of a row as a card, with the nearest ones; None without a row or where the store does not have it, so
    that old addresses still open."""
    if row is None or row >= open_store.store.n_samples:
        return None
    links, store = Links(request, open_store), open_store.store
    cosine_of = store.nearest.of_both(row, N_NEAR)
    items = store.samples.items([row, *cosine_of])
    cards = {at: card(Sample.model_validate(links.images(item))) for at, item in items.items()}
    near = [{**cards[other], "row": other, "cosine": cosine} for other, cosine in cosine_of.items()]
    return {**cards[row], "row": row, "near": near}
