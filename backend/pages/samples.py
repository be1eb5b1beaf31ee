"""The pages of samples: the list, and one pair with what fires where."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from backend.api import samples as samples_api
from backend.api.samples import SampleSort
from backend.deps import OpenStore, State, StateDep, StoreDep, base_path
from backend.live.recompute import resting as why_resting
from backend.live.recompute import with_events
from backend.pages.cards import card, list_flags, list_scores
from backend.pages.heat import finest, heat, level, patch_path
from backend.pages.text import drawn_token, visible
from backend.sample_ids import InPath, InQuery, sample_path
from backend.schemas import Activations, FlagName, Order, SampleDetail
from backend.templating import Maybe, MaybeInt, MaybeStr, address, render_for
from precompute.store.events import SampleEvents

router = APIRouter(default_response_class=HTMLResponse)


@router.get("/samples")
def samples(
    request: Request,
    state: StateDep,
    served: StoreDep,
    q: MaybeStr = None,
    flag: Annotated[FlagName | None, Maybe] = None,
    sort: Annotated[SampleSort, Maybe] = "row",
    order: Order = "asc",
    cursor: MaybeStr = None,
) -> HTMLResponse:
    asked: dict[str, Any] = {"q": q, "flag": flag, "sort": sort, "order": order, "cursor": cursor}
    page = samples_api.get_samples(request, served, **asked, limit=60)
    sorts = [("row", "order of the data"), *((score.name, score.name) for score in list_scores(served))]
    cards = [card(one, next((v for k, v in one.scores.items() if k == sort), None)) for one in page.items]
    return render_for(
        request,
        "samples.html",
        state,
        served,
        section="/samples",
        page={"items": cards, "total": page.total, "next": page.next},
        q=asked,
        flags=list_flags(served),
        sorts=sorts,
    )


@router.get("/sample")
def sample_by_id(request: Request, id: InQuery) -> RedirectResponse:
    """The page of a sample of any id, at its own address."""
    rest = [(name, value) for name, value in request.query_params.multi_items() if name != "id"]
    return RedirectResponse(address(base_path(request) + sample_path(id), rest), 307)


class Chosen(NamedTuple):
    """What the address of a sample's page chooses: a feature, and a token or a patch."""

    feature: int | None
    position: int | None
    view: int | None
    row: int | None
    col: int | None


@router.get("/samples/{sample_id:path}")
async def sample(
    request: Request,
    state: StateDep,
    served: StoreDep,
    sample_id: InPath,
    feature: MaybeInt = None,
    position: MaybeInt = None,
    view: MaybeInt = None,
    row: MaybeInt = None,
    col: MaybeInt = None,
) -> HTMLResponse:
    draw = partial(sample_page, request, state, served, sample_id, Chosen(feature, position, view, row, col))
    try:
        return await with_events(state.live, served, sample_id, request, draw)
    except HTTPException as error:
        if error.status_code not in (409, 503):
            raise
        why = str(error.detail)  # the original pair is gone, or too many wait for the model
        return await run_in_threadpool(draw, None, why)


def sample_page(
    request: Request,
    state: State,
    served: OpenStore,
    sample_id: str,
    chosen_at: Chosen,
    computed: SampleEvents | None,
    why: str | None = None,
) -> HTMLResponse:
    """The page, with `why` in place of what fires where the events cannot be had. Raises EventsNotStored where they are
    neither in the store nor `computed`, and the live model may have them."""
    feature, position, view, row, col = chosen_at
    found = samples_api.get_sample(request, served, sample_id)
    resting = why or why_resting(state.live, served, sample_id, found.row)
    at = {"view": view or 0, "row": row or 0, "col": col or 0} if found.views else None
    asked = [] if feature is None else [feature]
    lit = samples_api.activations(served, sample_id, asked if resting is None else [], computed)
    here = None
    if resting is None and position is not None:
        here = samples_api.features_here(served, sample_id, position=position, computed=computed)
    elif resting is None and at and row is not None and col is not None:
        place = f"{at['view']},{at['row']},{at['col']}"
        here = samples_api.features_here(served, sample_id, patch=place, computed=computed)
    chosen = lit.features[0] if lit.features else None
    mark = here.patch if here else None
    where = (
        {"position": position} if position is not None else {"patch": at and f"{at['view']},{at['row']},{at['col']}"}
    )
    outline = patch_path(found.views[mark.view], mark.row, mark.col) if mark else None
    title = ""
    if here:
        title = f"Here: row {mark.row}, column {mark.col}" if mark else f"Here: “{visible(here.token)}”"
    descriptions = {score.name: score.description for score in list_scores(served)}
    return render_for(
        request,
        "sample.html",
        state,
        served,
        section="/samples",
        s=found,
        views=[one.model_dump() for one in found.views],
        chosen=chosen,
        silent=chosen is not None and resting is None and not fires(lit),
        pictures=stage(found, lit, outline, mark),
        tokens=caption(lit),
        position=position,
        at=at,
        here=here.items if here else None,
        here_title=title,
        here_where=where,
        resting=resting,
        recomputed=not served.store.events.has(found.row) and resting is None,
        top=[("text", found.top_features.text), ("image", found.top_features.image)],
        scores=[
            {"name": n, "value": v, "rank": found.score_ranks.get(n), "description": descriptions.get(n, "")}
            for n, v in found.scores.items()
        ],
        flagged=found.flags,
        extra=found.extra,
    )


def stage(found: SampleDetail, lit: Activations, outline: str | None, mark: Any) -> list[dict[str, Any]]:
    """The sample's pictures, each with the heat of the chosen feature over the finest view where it fires."""
    drawn = []
    for index, picture in enumerate(found.images):
        grids = [g for g in lit.grids if g.image == index and g.values]
        size = (picture.width, picture.height)
        grid = finest(grids)
        over = None
        if grid and lit.features:
            over = heat(grid, grid.values[0], top=lit.features[0].max_image, size=size)
        drawn.append(
            {
                "url": picture.url,
                "width": picture.width,
                "height": picture.height,
                "heat": over,
                "mark": outline if mark and mark.image == index else None,
            }
        )
    return drawn


def fires(lit: Activations) -> bool:
    """Whether the chosen feature is active anywhere in the sample."""
    return any(token.values and token.values[0] for token in lit.tokens)


def caption(lit: Activations) -> list[dict[str, Any]]:
    """The sample's own text tokens with the level of the chosen feature."""
    top = lit.features[0].max_text if lit.features else 0.0
    return [
        {
            "spaced": spaced,
            "text": drawn,
            "bytes": t.text if drawn == "·" else None,
            "position": t.position,
            "level": level(t.values[0] if t.values else None, top),
        }
        for t in lit.tokens
        if t.modality == "text"
        for spaced, drawn in [drawn_token(t.text)]
    ]
