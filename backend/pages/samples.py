"""The list of samples."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from backend.api import samples as samples_api
from backend.api.annotations.lists import get_filters
from backend.api.samples import SampleQuery
from backend.deps import StateDep, StoreDep
from backend.drawing.charts import Chart, chart
from backend.pages.cards import card, list_flags, list_scores
from backend.params import FormQuery
from backend.schemas.samples import Score
from backend.templating import render_for

router = APIRouter(default_response_class=HTMLResponse)

SIDES = {
    "image": "on the image",
    "image-only": "on the image but not in the caption",
    "text": "in the caption",
    "text-only": "in the caption but not on the image",
    "both": "on the image and in the caption",
}
"""Where a feature is on, in words."""


class SampleList(FormQuery, SampleQuery):
    """As in the API."""

    view: Annotated[str, Query(max_length=100)] = ""
    """Of the map from which a link led here: *As a map* goes back to it. The form has no such field, since other
    filters mark other points."""


@router.get("/samples")
def samples(
    request: Request, state: StateDep, open_store: StoreDep, query: Annotated[SampleList, Query()]
) -> HTMLResponse:
    """The list of samples."""
    page = samples_api.get_samples(request, open_store, query.model_copy(update={"limit": 60}))
    scores = list_scores(open_store)
    score = next((s for s in scores if s.name == query.by), None)
    cards = [card(s, next((v for k, v in s.scores.items() if k == query.sort), None)) for s in page.items]
    flags_on = [*query.flag_options(), *([query.flag] if query.flag else [])]
    names_on = [option.partition(":")[0] for option in flags_on]
    return render_for(
        request,
        "samples.html",
        state,
        open_store,
        section="/samples",
        page={"items": cards, "total": page.total, "next": page.next},
        q=query,
        filters=query.filters(),
        flags=list_flags(open_store),
        flags_on=dict(zip(names_on, flags_on, strict=True)),
        sorts=[("row", "order of the data"), *((s.name, s.name) for s in scores)],
        sides=list(SIDES.items()),
        scores=scores,
        range=score_range(score, query.min_score, query.max_score) if score else None,
        feature=open_store.store.features.refs([query.feature])[query.feature] if query.feature is not None else None,
        strongest_only=not open_store.store.events.scans_all,
        tags=open_store.annotations.tags("sample"),
        saved=get_filters(open_store, "/samples").items,
        filtered=bool(flags_on) or not query.is_plain(),
    )


def score_range(score: Score, low: float | None, high: float | None) -> Chart:
    """The distribution of a score, with the bars whose middle is in the range marked as `over`."""
    histogram = chart(score.histogram)
    width = (histogram.high - histogram.low) / max(len(histogram.bars), 1)
    middles = [histogram.low + (i + 0.5) * width for i in range(len(histogram.bars))]
    is_inside = [(low is None or value >= low) and (high is None or value <= high) for value in middles]
    bars = [bar._replace(over=is_in) for bar, is_in in zip(histogram.bars, is_inside, strict=True)]
    return Chart(bars, histogram.low, histogram.high)
