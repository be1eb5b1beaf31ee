"""The features of two stores: matches, what only one of them has, and figures of matches against each other."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import HTTPException, Query
from fastapi.responses import HTMLResponse

from backend.api.compare.layers import WAYS, layer_stores
from backend.api.compare.matching import LEAST
from backend.api.compare.stores import compare, get_points, get_unmatched, note
from backend.api.features import FeatureQuery
from backend.drawing.figures import FIGURE_TITLES, heading, with_minus
from backend.pages.compare.layer import LayerLink
from backend.pages.previews import previews
from backend.pages.visit import PageVisit
from backend.params import FormQuery
from backend.schemas.common import FeatureSort, Order, VerdictFilter
from backend.schemas.compare import MatchBy, MatchedPoint
from backend.stores import OpenStore
from precompute.errors import SaevxError

N_ROWS, N_POINTS = 30, 300
SIDE = 100
"""Units of a side of a chart."""
RAREST = 1e-5
"""Density at the low end of a chart; what is rarer stands there too."""


class StoresView(FormQuery):
    """What the page shows of two stores."""

    with_: Annotated[str | None, Query(alias="with", max_length=200)] = None
    """Name of the other store."""
    by: MatchBy = "direction"
    """How features are matched."""
    least: Annotated[float, Query(ge=-1, le=1, allow_inf_nan=False)] = LEAST
    """Cosine from which two features are a match."""
    show: Literal["all", "here", "there"] = "all"
    """All features, or those of this or of the other store that have no match."""
    sort: FeatureSort = "evidence"
    order: Order = "desc"
    verdict: VerdictFilter | None = None
    cursor: str | None = None


class Point(NamedTuple):
    """A matched feature in a chart."""

    x: float
    y: float
    feature: int
    other: int
    words: str


class Chart(NamedTuple):
    """A figure of the features against that of their matches; both axes begin and end alike."""

    title: str
    low: str
    high: str
    points: list[Point]
    n_missing: int
    """Points without the figure on one of the sides."""


def stores_page(visit: PageVisit, other: OpenStore, q: StoresView) -> HTMLResponse:
    """The features of a store, each with its counterpart. HTTP 422 for a store and itself."""
    if other.name == visit.store.name:
        raise HTTPException(422, f"{visit.store.name} is compared with itself: choose another store.")
    links_b = visit.at(other).links
    values: dict[str, Any] = {
        "q": q, "other": other.name, "others": [name for name in visit.state.stores if name != visit.store.name],
        "v": links_b.page, "api_there": links_b.api,
        "turned": links_b.page("/compare", **{"with": visit.store.name, "by": q.by}),
        "ways": WAYS, "titles": FIGURE_TITLES, "note": note(visit.store, other), "layers": other_layers(visit, other),
    }  # fmt: skip
    try:
        values |= list_values(visit, other, q)
    except SaevxError as error:  # this way of matching cannot be used; the form leads to the other
        values |= {"failure": str(error), "result": None, "points": None, "charts": []}
    return visit.render("compare_stores.html", section="/compare", **values)


def list_values(visit: PageVisit, other: OpenStore, q: StoresView) -> dict[str, Any]:
    """The list and the charts. Raises SaevxError where the stores cannot be matched in this way."""
    one_side, other_side = (visit, visit.at(other)) if q.show != "there" else (visit.at(other), visit)
    points = get_points(visit.store, other, q.by, q.least, N_POINTS)
    filters = {"sort": q.sort, "order": q.order, "verdict": q.verdict and [q.verdict]}
    if q.show == "all":
        query = {**filters, "fold": "names", "limit": N_ROWS, "cursor": q.cursor}
        result: Any = compare(visit.store, other, FeatureQuery.model_validate(query), q.by)
    else:
        result = get_unmatched(one_side.store, other_side.store, q.by, q.least, N_ROWS, q.cursor)
    return {
        "failure": None,
        "result": result,
        "points": points,
        "charts": charts(points.points),
        "api_query": {**filters, "fold": "names"},
        "previews": previews(one_side, [match.feature.id for match in result.items]),
        "others_previews": previews(other_side, [match.other.id for match in result.items if match.other]),
    }


def other_layers(visit: PageVisit, other: OpenStore) -> list[LayerLink]:
    """The layers that this store can be compared with."""
    links = visit.links
    return [
        LayerLink(f"{p.layer}", p.store, None if p.store == other.name else links.again(**{"with": p.store}))
        for p in layer_stores(visit.state, visit.store)
        if not p.current
    ]


def charts(points: Sequence[MatchedPoint]) -> list[Chart]:
    """Agreement and the densities on text and on images, those of this store from left to right."""
    return [
        chart(heading("agreement"), points, [point.agreement for point in points], log=False),
        chart(heading("density_text"), points, [point.density_text for point in points], log=True),
        chart(heading("density_image"), points, [point.density_image for point in points], log=True),
    ]


def chart(
    title: str, points: Sequence[MatchedPoint], values: Sequence[tuple[float | None, float | None]], *, log: bool
) -> Chart:
    """One figure. Args: `values` of each point, here and there; `log`: densities on a logarithmic axis."""
    pairs = [(p, x, y) for p, (x, y) in zip(points, values, strict=True) if x is not None and y is not None]

    def place(value: float) -> float:
        share = 1 - math.log(max(value, RAREST)) / math.log(RAREST) if log else value
        return round(SIDE * min(1.0, max(0.0, share)), 1)

    def shown(value: float) -> str:
        return with_minus(f"{100 * value:.2g} %" if log else f"{value:.2f}")

    drawn_points = [
        Point(place(x), SIDE - place(y), p.feature, p.other,
              f"{p.label or 'unlabelled'} #{p.feature}: {shown(x)}, and {shown(y)} as #{p.other}")
        for p, x, y in pairs
    ]  # fmt: skip
    ends = ("0.001 %", "100 %") if log else ("0 or less", "1")
    return Chart(title, *ends, drawn_points, len(points) - len(pairs))
