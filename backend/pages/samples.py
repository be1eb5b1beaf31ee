"""The list of samples, and the page of one pair with what fires where."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from backend.api import samples as samples_api
from backend.api.samples import PlaceQuery, SampleQuery
from backend.deps import StateDep, StoreDep
from backend.links import InPath, InQuery, base_path, sample_path
from backend.live.recompute import why_unavailable, with_events
from backend.pages.cards import card, list_flags, list_scores
from backend.pages.heat import SideScale, finest, heat, level, patch_path, tops
from backend.pages.text import display_token, visible
from backend.params import FormQuery
from backend.schemas.samples import Activations, FeaturesHere, SampleDetail
from backend.stores import OpenStore, State
from backend.templating import address, render_for
from precompute.store.events import SampleEvents

router = APIRouter(default_response_class=HTMLResponse)

GROUPS = {"both": "In image and caption", "image_only": "In the image only", "text_only": "In the caption only"}


class SampleList(FormQuery, SampleQuery):
    """As in the API."""


@router.get("/samples")
def samples(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[SampleList, Query()]
) -> HTMLResponse:
    """The list of samples."""
    page = samples_api.get_samples(request, open_store, query.model_copy(update={"limit": 60}))
    sorts = [("row", "order of the data"), *((score.name, score.name) for score in list_scores(open_store))]
    cards = [card(one, next((v for k, v in one.scores.items() if k == query.sort), None)) for one in page.items]
    return render_for(
        request,
        "samples.html",
        state,
        open_store,
        section="/samples",
        page={"items": cards, "total": page.total, "next": page.next},
        q=query,
        flags=list_flags(open_store),
        sorts=sorts,
    )


@router.get("/sample")
def sample_by_id(request: Request, id: InQuery) -> RedirectResponse:
    """The page of a sample of any id, at its own address."""
    others = [(name, value) for name, value in request.query_params.multi_items() if name != "id"]
    return RedirectResponse(address(base_path(request) + sample_path(id), others), 307)


class SampleView(FormQuery):
    """What the page of a sample shows: a feature, and a token or a patch."""

    feature: int | None = None
    position: int | None = None
    view: int | None = None
    row: int | None = None
    col: int | None = None
    scale: SideScale | None = None


class Selection(NamedTuple):
    """A sample, and what its page shows of it."""

    sample_id: str
    view: SampleView


@router.get("/samples/{sample_id:path}")
async def sample(
    request: Request,
    state: StateDep,
    open_store: StoreDep,
    sample_id: InPath,
    query: Annotated[SampleView, Query()],
) -> HTMLResponse:
    """The page of one sample, with its activations or the reason why they are not available."""
    draw = partial(sample_page, request, state, open_store, Selection(sample_id, query))
    try:
        return await with_events(state.live, open_store, sample_id, request, draw)
    except HTTPException as error:
        if error.status_code not in (409, 503):
            raise
        # The original pair is missing, or the queue of the model is full: the page says so.
        return await run_in_threadpool(draw, None, str(error.detail))


def sample_page(
    request: Request,
    state: State,
    open_store: OpenStore,
    selection: Selection,
    computed: SampleEvents | None,
    reason: str | None = None,
) -> HTMLResponse:
    """The page of one sample.

    Args:
        computed: the sample's events, if the store does not hold them.
        reason: why the events are not available, shown in their place.

    Raises:
        EventsNotStored: the events are neither in the store nor `computed`, but the live model can compute them.
    """
    sample_id, query = selection
    feature, position, row, col = query.feature, query.position, query.row, query.col
    detail = samples_api.get_sample(request, open_store, sample_id)
    reason = reason or why_unavailable(state.live, open_store, sample_id, detail.row)
    at = {"view": query.view or 0, "row": row or 0, "col": col or 0} if detail.views else None
    features = [feature] if feature is not None and reason is None else []
    active = samples_api.activations(open_store, sample_id, features, computed)
    patch = f"{at['view']},{at['row']},{at['col']}" if at else None
    where: dict[str, Any] = {"position": position} if position is not None else {"patch": patch}
    here = None
    if reason is None and (position is not None or (patch and row is not None and col is not None)):
        here = samples_api.features_here(open_store, sample_id, PlaceQuery(**where), computed)
    chosen = active.features[0] if active.features else None
    top = tops(chosen, query.scale) if chosen else (0.0, 0.0)
    mark = here.patch if here else None
    outline = patch_path(detail.views[mark.view], mark.row, mark.col) if mark else None
    return render_for(
        request,
        "sample.html",
        state,
        open_store,
        section="/samples",
        s=detail,
        views=[one.model_dump() for one in detail.views],
        chosen=chosen,
        silent=chosen is not None and reason is None and not fires(active),
        images=stage(detail, active, outline, mark, top),
        tokens=caption(active, top),
        position=position,
        at=at,
        here=here.items if here else None,
        here_title=here_title(here) if here else "",
        here_where=where,
        reason=reason,
        recomputed=not open_store.store.events.has(detail.row) and reason is None,
        groups=[(name, title, getattr(detail.groups, name)) for name, title in GROUPS.items()],
        scale=query.scale,
        tops=top if chosen else None,
        scores=score_rows(open_store, detail),
        flagged=detail.flags,
        extra=detail.extra,
    )


def score_rows(open_store: OpenStore, detail: SampleDetail) -> list[dict[str, Any]]:
    """The sample's scores as sample.html shows them."""
    descriptions = {score.name: score.description for score in list_scores(open_store)}
    return [
        {"name": n, "value": v, "rank": detail.score_ranks.get(n), "description": descriptions.get(n, "")}
        for n, v in detail.scores.items()
    ]


def here_title(here: FeaturesHere) -> str:
    """Where the listed features fire."""
    return f"Here: row {here.patch.row}, column {here.patch.col}" if here.patch else f"Here: “{visible(here.token)}”"


def stage(
    detail: SampleDetail, active: Activations, outline: str | None, mark: Any, top: tuple[float, float]
) -> list[dict[str, Any]]:
    """The sample's images, each with the heat of the chosen feature over the finest view in which it fires."""
    drawn = []
    for index, image in enumerate(detail.images):
        grids = [g for g in active.grids if g.image == index and g.values]
        size = (image.width, image.height)
        grid = finest(grids)
        over = None
        if grid and active.features:
            over = heat(grid, grid.values[0], top=top[1], size=size)
        drawn.append(
            {
                "url": image.url,
                "width": image.width,
                "height": image.height,
                "heat": over,
                "mark": outline if mark and mark.image == index else None,
            }
        )
    return drawn


def fires(active: Activations) -> bool:
    """Whether the chosen feature is active anywhere in the sample."""
    return any(token.values and token.values[0] for token in active.tokens)


def caption(active: Activations, top: tuple[float, float]) -> list[dict[str, Any]]:
    """The sample's own text tokens with the level of the chosen feature."""
    return [
        {
            "spaced": spaced,
            "text": drawn,
            "bytes": t.text if drawn == "·" else None,
            "position": t.position,
            "level": level(t.values[0] if t.values else None, top[0]),
        }
        for t in active.tokens
        if t.modality == "text"
        for spaced, drawn in [display_token(t.text)]
    ]
