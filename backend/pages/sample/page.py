"""The page of one pair with what fires where."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from backend.api import samples as samples_api
from backend.api.samples import PlaceQuery
from backend.deps import StateDep, StoreDep
from backend.links import InPath, InQuery, base_path, sample_path
from backend.live.recompute import why_unavailable, with_events
from backend.pages.annotations.panel import panel
from backend.pages.heat import SideScale, patch_path, tops
from backend.pages.sample.marks import MAX_CHOSEN, ImageMarks, Tops, caption_tokens, image_marks, short_name
from backend.pages.sample.panels import fitting_caption, near_panel, score_rows, why_panel
from backend.pages.text import visible
from backend.params import FormQuery, parse_numbers
from backend.schemas.common import Patch, ScoreName
from backend.schemas.samples import Activations, FeaturesHere, SampleDetail
from backend.stores import OpenStore, State
from backend.templating import address, render_for
from precompute.store.events import SampleEvents

router = APIRouter(default_response_class=HTMLResponse)

GROUPS = {"both": "In image and caption", "image_only": "In the image only", "text_only": "In the caption only"}


@router.get("/sample")
def sample_by_id(request: Request, id: InQuery) -> RedirectResponse:
    """The page of a sample of any id, at its own address."""
    others = [(name, value) for name, value in request.query_params.multi_items() if name != "id"]
    return RedirectResponse(address(base_path(request) + sample_path(id), others), 307)


class SampleView(FormQuery):
    """What the page of a sample shows: features, and a token or a patch."""

    f: str | None = None
    """Features, separated by commas, each drawn in its own hue."""
    feature: int | None = None
    """One feature; as `f` with one number."""
    position: int | None = None
    view: int | None = None
    row: int | None = None
    col: int | None = None
    scale: SideScale | None = None
    why: ScoreName | None = None
    """Score whose features are listed."""
    near: Literal["text", "image"] | None = None
    """What the nearest samples are near by."""

    def chosen(self) -> list[int]:
        """The numbers of the features in the order of their hues."""
        numbers = parse_numbers(self.f, "f", MAX_CHOSEN) if self.f else []
        if self.feature is not None and not numbers:
            numbers = [self.feature]
        return list(dict.fromkeys(numbers))


class Selection(NamedTuple):
    """A sample, and what its page shows of it."""

    sample_id: str
    view: SampleView
    chosen: list[int]


@router.get("/samples/{sample_id:path}")
async def sample(
    request: Request,
    state: StateDep,
    open_store: StoreDep,
    sample_id: InPath,
    query: Annotated[SampleView, Query()],
) -> HTMLResponse:
    """The page of one sample, with its activations or the reason why they are not available."""
    draw = partial(draw_page, request, state, open_store, Selection(sample_id, query, query.chosen()))
    try:
        return await with_events(state.live, open_store, sample_id, request, draw)
    except HTTPException as error:
        if error.status_code not in (409, 503):
            raise
        # The original pair is missing, or the queue of the model is full: the page says so.
        return await run_in_threadpool(draw, None, str(error.detail))


def draw_page(
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
    sample_id, query, chosen = selection
    detail = samples_api.get_sample(request, open_store, sample_id)
    reason = reason or why_unavailable(state.live, open_store, sample_id, detail.row)
    active = samples_api.activations(open_store, sample_id, chosen if reason is None else [], computed)
    where = place_of(query, detail)
    here = None
    if reason is None and where:
        here = samples_api.features_here(open_store, sample_id, PlaceQuery(**where), computed)
    near = near_panel(request, open_store, detail, query.near)
    scales = [tops(feature, query.scale) for feature in active.features]
    return render_for(
        request,
        "sample.html",
        state,
        open_store,
        section="/samples",
        s=detail,
        notes=panel(request, open_store, "sample", sample_id),
        key=sample_id,
        views=[one.model_dump() for one in detail.views],
        chosen=active.features,
        toggled=partial(toggled, chosen),
        silent=silent(active) if reason is None else [],
        images=stage(detail, active, scales, here.patch if here else None),
        tokens=caption_tokens(active, scales, failing_words(detail)),
        position=query.position,
        at={"view": query.view or 0, "row": query.row or 0, "col": query.col or 0} if detail.views else None,
        here=here,
        here_title=here_title(here) if here else "",
        here_where=where,
        reason=reason,
        recomputed=not open_store.store.events.has(detail.row) and reason is None,
        groups=[(name, title, getattr(detail.groups, name)) for name, title in GROUPS.items()],
        scale=query.scale,
        tops=scales[0] if len(scales) == 1 else None,
        scores=score_rows(open_store, detail),
        why=why_panel(open_store, sample_id, query.why, computed) if query.why and reason is None else None,
        near=near,
        fitting=fitting_caption(detail, near),
        flagged=detail.flags,
        extra=detail.extra,
    )


def place_of(query: SampleView, detail: SampleDetail) -> dict[str, Any]:
    """The place whose features are listed, as the parameters of the API; empty without one."""
    if query.position is not None:
        return {"position": query.position}
    if detail.views and query.row is not None and query.col is not None:
        return {"patch": f"{query.view or 0},{query.row},{query.col}"}
    return {}


def toggled(chosen: Sequence[int], feature: int) -> str | None:
    """The value of `f` with one more feature, or without it if it is chosen; the oldest makes room for a sixth."""
    others = [one for one in chosen if one != feature]
    numbers = others if feature in chosen else [*others[1 - MAX_CHOSEN :], feature]
    return ",".join(map(str, numbers)) or None


def silent(active: Activations) -> list[str]:
    """The names of chosen features that are active nowhere in the sample."""
    return [
        short_name(feature)
        for i, feature in enumerate(active.features)
        if not any(token.values and token.values[i] for token in active.tokens)
    ]


def failing_words(detail: SampleDetail) -> list[str]:
    """Texts of the tokens that the reasons of the sample's flags name."""
    return [token for flag in detail.flags if flag.reason for token in flag.reason.tokens]


def here_title(here: FeaturesHere) -> str:
    """Where the listed features fire."""
    return f"Here: row {here.patch.row}, column {here.patch.col}" if here.patch else f"Here: “{visible(here.token)}”"


def stage(
    detail: SampleDetail, active: Activations, scales: Tops, mark: Patch | None
) -> list[dict[str, Any]]:
    """The sample's images, each with the activations of the chosen features over it and the chosen patch outlined."""
    drawn = []
    for index, image in enumerate(detail.images):
        marks = ImageMarks([], [])
        if scales:
            marks = image_marks([g for g in active.grids if g.image == index], scales)
        outline = patch_path(detail.views[mark.view], mark.row, mark.col) if mark and mark.image == index else None
        drawn.append({**image.model_dump(), "marks": marks, "outline": outline})
    return drawn
