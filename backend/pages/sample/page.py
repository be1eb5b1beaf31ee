"""The page of one pair with what fires where."""

from functools import partial
from typing import Annotated, NamedTuple

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from backend.api import samples as samples_api
from backend.api.sample.explained import why_score
from backend.api.samples import PlaceQuery, has_sample_map
from backend.drawing.text import visible
from backend.links import InPath, InQuery, base_path, sample_path
from backend.live.recompute import why_unavailable, with_events
from backend.pages.annotations.panel import panel
from backend.pages.compare.layer import layer_links, layer_note, missing_sample
from backend.pages.sample.panels import N_EFFECTS, fitting_caption, near_panel, why_panel
from backend.pages.sample.view import PairView, SampleView, pair_values, place_of
from backend.pages.visit import PageDep, PageVisit
from backend.templating import address
from precompute.store.events import SampleEvents

router = APIRouter(default_response_class=HTMLResponse)


@router.get("/sample")
def sample_by_id(request: Request, id: InQuery) -> RedirectResponse:
    """The page of a sample of any id, at its own address."""
    other_params = [(name, value) for name, value in request.query_params.multi_items() if name != "id"]
    return RedirectResponse(address(base_path(request) + sample_path(id), other_params), 307)


class Selection(NamedTuple):
    """A sample, and what its page shows of it."""

    sample_id: str
    view: SampleView
    chosen: list[int]


@router.get("/samples/{sample_id:path}")
async def sample(visit: PageDep, sample_id: InPath, query: Annotated[SampleView, Query()]) -> HTMLResponse:
    """The page of one sample, with its activations or the reason why they are not available."""
    draw = partial(draw_page, visit, Selection(sample_id, query, query.chosen()))
    try:
        return await with_events(visit, sample_id, draw)
    except HTTPException as error:
        if error.status_code not in (409, 429, 503):
            raise
        # The original pair is missing, or the model has no place for this request: the page says so.
        return await run_in_threadpool(draw, None, str(error.detail))


def draw_page(
    visit: PageVisit,
    selection: Selection,
    live_events: SampleEvents | None,
    reason: str | None = None,
) -> HTMLResponse:
    """The page of one sample.

    Args:
        live_events: the sample's events, if the store does not hold them.
        reason: why the events are not available, shown in their place.

    Raises:
        EventsNotStored: the events are neither in the store nor `live_events`, but the live model can compute them.
    """
    sample_id, query, features = selection
    detail = samples_api.get_sample(visit.request, visit.store, sample_id)
    reason = reason or why_unavailable(visit, sample_id, detail.row)
    activations = samples_api.activations(visit.store, sample_id, features if reason is None else [], live_events)
    where = place_of(query, detail.views)
    place_features = None
    if reason is None and where:
        place_features = samples_api.features_here(visit.store, sample_id, PlaceQuery(**where), live_events)
    near_samples = near_panel(visit, detail, query.near)
    why = None
    if query.why and reason is None:
        why = why_panel(visit.store, why_score(visit.store, sample_id, query.why, N_EFFECTS, live_events))
    links = visit.links
    values = pair_values(visit.store, PairView(detail, activations, place_features, query), features, reason)
    values["recomputed"] = not visit.reader.events.has(detail.row) and reason is None
    values["fitting"] = fitting_caption(detail, near_samples)
    return visit.render(
        "sample.html",
        section="/samples",
        **values,
        path=sample_path(sample_id),
        json=lambda part, **params: links.api(sample_path(sample_id) + part, **params),
        pair_name=f"sample {visible(sample_id)}",
        layers=layer_links(visit, sample=sample_id, f=query.f),
        layer_notes=missing_sample(visit, query.missing, sample_id) or layer_note(visit, query.from_, None, features),
        notes=panel(visit, "sample", sample_id),
        key=sample_id,
        here_where=where,
        why=why,
        near=near_samples,
        extra=detail.extra,
        on_map=has_sample_map(visit.store),
    )
