"""The page /compare: two features beside each other, or the features of two stores."""

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from backend.api.compare.features import get_comparison
from backend.api.features import features_of_words, get_feature
from backend.deps import get_store
from backend.drawing.figures import FIGURE_TITLES
from backend.pages.compare.layer import layer_links, layer_note
from backend.pages.compare.stores import StoresView, stores_page
from backend.pages.feature.examples import strongest_examples
from backend.pages.feature.panels import lens_panel
from backend.pages.feature.summary import summary
from backend.pages.steer import suggestions
from backend.pages.visit import PageDep, PageVisit
from backend.params import CameFrom, Missing, Words
from backend.schemas.features import FeatureDetail

router = APIRouter(default_response_class=HTMLResponse)

N_EXAMPLES, N_SUGGESTED, N_OTHERS = 6, 6, 5
DIGITS = {
    "agreement": 2, "pair_lift": 1, "omega": 3, "omega_baseline": 3, "label_score": 2, "modality_share": 2,
    "same_sample_rate": 2, "max_activation": 2,
}  # fmt: skip
"""Decimals of the figures that stand beside each other."""
TITLES = {**FIGURE_TITLES, "omega_baseline": "baseline of ω"}
OF_TEXTS = ("label_score", "max_activation")
"""Those that take no image."""


class CompareView(StoresView):
    """What is compared: two features, or the store with another one."""

    a: Words = None
    """A feature by its number or by words, of which the best match is meant."""
    b: Words = None
    feature: Annotated[list[str], Query(max_length=500)] = []  # noqa: RUF012 - pydantic copies it
    """As the list of features selects them: NUMBER:MODE:STRENGTH. Leads to the address of `a` and `b`."""
    from_: CameFrom = None
    missing: Missing = None


@router.get("/compare")
async def page(visit: PageDep, query: Annotated[CompareView, Query()]) -> Response:
    """Two features, two stores, or what to choose from. HTTP 422 for more than two selected features."""
    if query.feature:
        if len(query.feature) > 2:
            raise HTTPException(422, f"{len(query.feature)} features are selected: select two to compare them.")
        two = dict(zip("ab", (key.partition(":")[0] for key in query.feature), strict=False))
        return RedirectResponse(visit.links.page("/compare", **two), 303)
    other = await get_store(visit.state, query.with_) if query.with_ else None
    if other is not None:
        return await run_in_threadpool(stores_page, visit, other, query)
    return await run_in_threadpool(features_page, visit, query)


def features_page(visit: PageVisit, query: CompareView) -> HTMLResponse:
    """Two features; with one, features that are like it."""
    words = {name: getattr(query, name) for name in "ab"}
    matches = {name: features_of_words(visit.store, text, N_OTHERS + 1) for name, text in words.items() if text}
    a, b = (matches[name][0].id if matches.get(name) else None for name in "ab")
    pair = get_comparison(visit.store, a, b) if a is not None and b is not None else None
    detail = get_feature(visit.store, a) if a is not None and pair is None else None
    lists = (detail.neighbours.decoder, detail.neighbours.profile) if detail else ()
    neighbours = {n.id: n for ns in lists for n in ns[:N_SUGGESTED]}
    return visit.render(
        "compare.html", section="/compare", q=query, pair=pair, one=detail, matches=matches,
        near=list(neighbours.values()), start=[] if a is not None or b is not None else suggestions(visit.store),
        layers=layer_links(visit, a=a, b=b) if pair else [],
        layer_notes=layer_note(visit, query.from_, query.missing, [pair.a.id, pair.b.id]) if pair else [],
        others=[name for name in visit.state.stores if name != visit.store.name],
        titles=TITLES, digits=DIGITS if visit.store.has_images else {name: DIGITS[name] for name in OF_TEXTS},
        drawn=[side(visit, f) for f in (pair.a, pair.b)] if pair else [],
    )  # fmt: skip


def side(visit: PageVisit, f: FeatureDetail) -> dict[str, Any]:
    """What one column shows of a feature."""
    images, lines = strongest_examples(visit, f, N_EXAMPLES)
    return {
        "f": f,
        "lens": lens_panel(f, "centred", visit.store),
        "images": images,
        "lines": lines,
        "says": summary(f, visit.reader.top_words.held, visit.store.has_images),
    }
