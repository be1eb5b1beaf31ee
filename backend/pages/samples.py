"""The list of samples."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from backend.api import samples as samples_api
from backend.api.annotations.lists import get_filters
from backend.api.samples import SampleQuery
from backend.drawing.charts import Chart, chart
from backend.pages.cards import sample_card
from backend.pages.scores_and_flags import list_flags, list_scores
from backend.pages.visit import PageDep
from backend.params import FormQuery, split_names
from backend.schemas.samples import Score

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
def samples(visit: PageDep, query: Annotated[SampleList, Query()]) -> HTMLResponse:
    """The list of samples."""
    page = samples_api.get_samples(visit.request, visit.store, query.model_copy(update={"limit": 60}))
    scores = list_scores(visit.store)
    score = next((s for s in scores if s.name == query.by), None)
    cards = [sample_card(s, next((v for k, v in s.scores.items() if k == query.sort), None)) for s in page.items]
    flags_on = [*split_names(query.flags), *([query.flag] if query.flag else [])]
    names_on = [option.partition(":")[0] for option in flags_on]
    return visit.render(
        "samples.html",
        section="/samples",
        page={"items": cards, "total": page.total, "next": page.next},
        q=query,
        filters=query.filters(),
        flags=list_flags(visit.store),
        flags_on=dict(zip(names_on, flags_on, strict=True)),
        sorts=[("row", "order of the data"), *((s.name, s.name) for s in scores)],
        sides=list(SIDES.items()),
        scores=scores,
        range=score_range(score, query.min_score, query.max_score) if score else None,
        feature=visit.reader.features.refs([query.feature])[query.feature] if query.feature is not None else None,
        strongest_only=not visit.reader.events.scans_all,
        tags=visit.store.annotations.tags("sample"),
        saved=get_filters(visit.store, "/samples").items,
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
