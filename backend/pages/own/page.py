"""The page of a pair of one's own, drawn as the page of a sample."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from backend.api.own import pairs
from backend.api.own.pairs import OwnPlace, OwnText, Result, read_or_refuse
from backend.live.query import OwnPair, Reading
from backend.pages.cards import nearest_cards
from backend.pages.own.form import OwnForm, address_of, form_values, take
from backend.pages.sample.panels import N_EFFECTS, why_panel
from backend.pages.sample.view import PairView, SampleView, pair_values, place_of, toggle
from backend.pages.visit import PageDep, PageVisit
from backend.stores import OpenStore

router = APIRouter(default_response_class=HTMLResponse)

NOTHING = "none"
"""Value of `f` that shows no feature, where the page without `f` shows the strongest."""
N_SUGGESTED = 3
"""Captions of the store to begin with."""


class TryView(SampleView):
    """A pair of one's own, and what its page shows of it."""

    image: Annotated[str | None, Query(max_length=64)] = None
    """Hash of an uploaded image."""
    text: OwnText = ""

    def chosen(self) -> list[int]:
        return [] if self.f == NOTHING else super().chosen()


@router.get("/try")
async def try_pair(visit: PageDep, query: Annotated[TryView, Query()]) -> HTMLResponse:
    """The pair as the model reads it, or in a sentence why it does not."""
    result = await read_or_refuse(visit, OwnPair(query.text, query.image))
    return await run_in_threadpool(draw, visit, query, result)


@router.post("/try")
async def post_pair(visit: PageDep, form: Annotated[OwnForm, Depends()]) -> Response:
    """Hold the image and go to the address of the pair, or to the page that it is for."""
    try:
        own_pair = await take(visit, form)
    except HTTPException as refusal:  # an image that cannot be read is dropped
        if form.feature is not None:
            raise
        query = TryView(text=form.text, f=form.f or None)
        return await run_in_threadpool(draw, visit, query, refusal)
    return RedirectResponse(address_of(visit, form, own_pair), 303)


def draw(visit: PageVisit, query: TryView, result: Result) -> HTMLResponse:
    """The page with the pair, with the reason why it was not read, or empty."""
    own_pair = OwnPair(query.text, query.image)
    refusal = result if isinstance(result, HTTPException) else None
    return visit.render(
        "own/try.html",
        section="/try",
        fault=refusal,
        error=str(refusal.detail) if refusal else None,
        tried=isinstance(result, Reading),
        suggested=[] if result else suggestions(visit.store),
        **form_values(visit, own_pair, [("f", query.f)] if query.f else []),
        **(page_values(visit, query, result) if isinstance(result, Reading) else {}),
    )


def page_values(visit: PageVisit, query: TryView, reading: Reading) -> dict[str, Any]:
    """The values of templates/pair/ and what else the page shows of a pair that was read."""
    own_pair = OwnPair(query.text, query.image)
    detail = pairs.tried_pair(visit.request, visit.store, own_pair, reading)
    groups = (detail.groups.both, detail.groups.image_only, detail.groups.text_only)
    first_feature = next((group[0].id for group in groups if group), None)
    own_choice = query.chosen()
    features = own_choice or ([first_feature] if query.f is None and first_feature is not None else [])
    activations = pairs.own_activations(visit.store, reading, features)
    where = place_of(query, detail.views)
    place_features = pairs.own_features_at(visit.store, reading, OwnPlace(**where)) if where else None
    why = why_panel(visit.store, pairs.own_why(visit.store, reading, query.why, N_EFFECTS)) if query.why else None
    links = visit.links
    params = {name: value for name, value in own_pair.params().items() if value}
    view = PairView(detail, activations, place_features, query)
    values = pair_values(visit.store, view, features, unread=reading.unread)
    if not (own_pair.image and own_pair.text):  # the two other groups are empty
        side, title = ("image_only", "In the image") if own_pair.image else ("text_only", "In the text")
        values["groups"] = [(side, title, getattr(detail.groups, side))]
    return {
        **values,
        # A first choice takes the place of what was not chosen.
        "toggled": lambda feature: NOTHING if features == [feature] else toggle(own_choice, feature),
        "unchosen": NOTHING,
        "carried": [*params.items(), *([] if features else [("f", NOTHING)])],
        "json": lambda part, **params: links.api(f"/try{part}", **own_pair.params(), **params),
        "params": params,
        "pair_name": f"your {'pair' if visit.store.has_images else 'text'}",
        "here_where": where,
        "why": why,
        "near": nearest_cards(detail.samples, visit.store.has_images),
    }


def suggestions(store: OpenStore) -> list[str]:
    """Captions to begin with."""
    return [sample["text"] for sample in store.reader.samples.list(limit=N_SUGGESTED).items if sample["text"]]
