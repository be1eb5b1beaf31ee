"""The page of the map, with the chosen feature, the results of its search, and lists of the strongest features for
readers who cannot see the map."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import HTMLResponse

from backend.api import features as features_api
from backend.api.features import FeatureQuery
from backend.api.map import Layout, has_map
from backend.api.stores import get_store_detail
from backend.drawing.parts import VERDICT_HELP
from backend.links import ImageLinks, check_sample
from backend.pages.previews import previews
from backend.pages.visit import PageDep
from backend.params import FormQuery, Words
from backend.schemas.common import Page
from backend.schemas.features import Feature, FeatureDetail
from backend.stores import OpenStore
from precompute.store import mapfile
from precompute.store.schema import TESTED_VERDICTS, VERDICTS
from precompute.store.selection.area import layout_of

router = APIRouter(default_response_class=HTMLResponse)

COLOURS = {
    "verdict": ("verdict", "The verdict on each feature"),
    "omega": ("ω", "Cross-modal weight ω, if it could be computed"),
    "density": ("density", "Share of tokens that activate it, in the modality where it is denser; log scale"),
    "family": ("family", "Near-copies have one colour"),
    "agreement": ("agreement", "Share of its strongest images whose caption has its words, beyond their base rate"),
    "label_score": ("name score", "How well the name tells the feature's samples from others; .5 is chance"),
    "place": ("place", "Whether it fires at one patch, row or column of the image"),
    "sample": ("in the sample", "Largest activation in the sample, as a share of the feature's p99.9"),
}
OF_TEXTS = ("verdict", "density", "family", "label_score", "sample")
"""The colours that take no image."""
STRONGEST_BY: dict[str, Any] = dict.fromkeys(TESTED_VERDICTS, "evidence")
"""Order of the lists under the map; the other verdicts have no evidence and are sorted by largest activation."""
MAX_MATCHES, N_LISTED, N_STRONGEST = 500, 24, 10


class MapQuery(FormQuery):
    colour: Literal["verdict", "omega", "density", "family", "agreement", "label_score", "place", "sample"] = "verdict"
    sample: Annotated[str | None, Query(max_length=20_000)] = None
    """Id of the sample whose features `colour=sample` shows."""
    area: Annotated[str | None, Query(max_length=3000)] = None
    """Corners of an area, as in `GET /features`; the map has its layout."""
    layout: Layout = "decoder"
    hide: Annotated[str, Query(max_length=200)] = ""
    """Verdicts, separated by commas."""
    q: Words = None
    feature: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    view: Annotated[str, Query(max_length=100)] = ""
    """x,y,zoom, which only the map's JavaScript reads."""


@router.get("/map")
def feature_map(visit: PageDep, query: Annotated[MapQuery, Query()]) -> HTMLResponse:
    """The map, and lists of the strongest features."""
    verdicts = get_store_detail(visit.state, visit.store).verdicts
    lists = []
    for name in VERDICT_HELP:
        if name == "dead" or not verdicts.get(name):
            continue
        by = STRONGEST_BY.get(name, "max_activation")
        lists.append((name, by, strongest_features(visit.store, name, by)))
    matches = None
    if query.q:
        by_words = FeatureQuery(q=query.q, sort="n_samples", order="desc", limit=MAX_MATCHES)
        matches = features_api.get_features(visit.store, by_words)
    feature = chosen_feature(visit.store, query.feature)
    has_sample = query.sample is not None and is_sample(visit.store, query.sample)
    if not has_sample and query.colour == "sample":
        query = query.model_copy(update={"colour": "verdict"})
    layout = layout_of(query.area) if query.area else query.layout
    lacks_layout = layout != "decoder" and not has_map(visit.store, layout)
    if lacks_layout:
        layout = "decoder"
    return visit.render(
        "map.html",
        section="/map",
        there=has_map(visit.store),
        absent=mapfile.ABSENT,
        layout=layout,
        lacks_layout=lacks_layout,
        has_layouts=has_map(visit.store, "profile"),
        preserved=preserved_neighbours(visit.store, layout),
        n_nowhere=n_nowhere(visit.store, layout),
        version=ImageLinks(visit.request, visit.store).version,
        colours=COLOURS if visit.store.has_images else {name: COLOURS[name] for name in OF_TEXTS},
        q=query,
        to_list=map_state(query, layout),
        to_verdict=map_state(query, layout) | beside_map(query),
        hidden=[name for name in query.hide.split(",") if name in VERDICT_HELP],
        verdicts=verdicts,
        lists=lists,
        matches=matches,
        listed=matches.items[:N_LISTED] if matches else [],
        area=features_inside(visit.store, query.area),
        sample_id=query.sample if has_sample else None,
        chosen=feature,
        previews=previews(visit, [feature.id]) if feature else {},
    )


def map_state(query: MapQuery, layout: str) -> dict[str, str | int | None]:
    """How the map is, as its lists take it (`params.FromMap`); what is as on a fresh map is left out."""
    colour = None if query.colour == "verdict" else query.colour
    layout_of_map = None if layout == "decoder" else layout
    state = {"view": query.view, "layout": layout_of_map, "colour": colour, "sample": query.sample, "hide": query.hide}
    return {name: value for name, value in {**state, "pinned": query.feature}.items() if value not in (None, "")}


def beside_map(query: MapQuery) -> dict[str, str]:
    """The words and the area of the map, as lists take them that are of neither."""
    return {name: value for name, value in (("marked", query.q), ("around", query.area)) if value}


def preserved_neighbours(open_store: OpenStore, layout: str) -> dict[str, Any]:
    """How well the layout keeps neighbours together: `k` and `preserved_neighbours`; empty where that is not known."""
    quality: dict[str, Any] = open_store.manifest.get("map") or {}
    return dict(quality.get("profile") or {}) if layout == "profile" else quality


def n_nowhere(open_store: OpenStore, layout: str) -> int:
    """Features that are alive and have no place in the layout: on the second map those without a profile."""
    if layout != "profile":
        return 0
    columns = open_store.reader.map_of(layout)
    return int(((columns.x == mapfile.NOWHERE) & (columns.verdict != VERDICTS.index("dead"))).sum())


def strongest_features(open_store: OpenStore, verdict: Any, by: Any) -> list[Feature]:
    """The first features of a verdict, sorted by a figure."""
    query = FeatureQuery(verdict=[verdict], sort=by, order="desc", limit=N_STRONGEST)
    return features_api.get_features(open_store, query).items


def features_inside(open_store: OpenStore, area: str | None) -> Page[Feature] | None:
    """The first features inside an area of the map, those with most evidence. None without an area or a map."""
    if area is None or not has_map(open_store, layout_of(area)):
        return None
    query = FeatureQuery(area=area, sort="evidence", order="desc", limit=N_LISTED)
    return features_api.get_features(open_store, query)


def is_sample(open_store: OpenStore, sample: str) -> bool:
    """Whether the store has this sample."""
    try:
        check_sample(open_store, sample)
    except HTTPException:
        return False
    return True


def chosen_feature(open_store: OpenStore, feature: int | None) -> FeatureDetail | None:
    """None if the address has no feature or the store does not have it, so that old addresses still open."""
    if feature is None:
        return None
    try:
        return features_api.get_feature(open_store, feature)
    except HTTPException:
        return None
