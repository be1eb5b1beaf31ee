"""The page of two features: samples in which both fire, only the one, only the other."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from backend.api.cooccurrence import FeatureNumber, get_pair_samples
from backend.links import ImageLinks
from backend.pages.cards import CARD
from backend.pages.cooccurrence.page import SIDES
from backend.pages.sample.marks import caption_tokens, image_marks
from backend.pages.visit import PageDep
from backend.params import FormQuery
from backend.schemas.cooccurrence import PairSample
from backend.schemas.features import Kind
from backend.schemas.samples import Activations
from backend.stores import OpenStore
from precompute.store.events import EventsNotStored

router = APIRouter(default_response_class=HTMLResponse)

N_SAMPLES = 6
"""Of each strip."""


class PairView(FormQuery):
    a: FeatureNumber
    b: FeatureNumber
    kind: Kind = "text-image"


@router.get("/cooccurrence/pair")
def pair(visit: PageDep, query: Annotated[PairView, Query()]) -> HTMLResponse:
    """Samples of a pair of features."""
    result = get_pair_samples(visit.store, query.a, query.b, query.kind, N_SAMPLES)
    links = ImageLinks(visit.request, visit.store)
    groups = {name: getattr(result, name) for name in ("both", "only_a", "only_b")}
    ids = [sample.sample_id for group in groups.values() for sample in group]
    items = {s["sample_id"]: links.images(s) for s in visit.reader.samples.list(ids=ids, limit=500).items}
    strips = [
        (name, getattr(result, f"n_{name}"), [mark_sample(visit.store, items[s.sample_id], s, query) for s in group])
        for name, group in groups.items()
    ]
    return visit.render(
        "pair.html",
        section="/cooccurrence",
        q=query,
        result=result,
        strips=strips,
        counted=visit.store.manifest["cooccurrence"]["n_samples"],
        sides=SIDES[query.kind],
    )


def mark_sample(open_store: OpenStore, item: dict[str, Any], sample: PairSample, query: PairView) -> dict[str, Any]:
    """A sample with the activations of both features, each on its side only, over its image and its caption."""
    store = open_store.reader
    reply: dict[str, Any] = {"sample_id": sample.sample_id, "text": item["text"], "share_a": sample.share_a}
    reply |= {"share_b": sample.share_b, "image": item["images"][0] if item["images"] else None, "size": CARD}
    try:
        activations = Activations.model_validate(store.samples.activations(sample.sample_id, [query.a, query.b]))
    except EventsNotStored:
        return reply
    for i, side in enumerate(SIDES[query.kind]):
        if side == "text":
            for grid in activations.grids:
                grid.values[i] = [[None] * len(row) for row in grid.values[i]]
        else:
            for token in activations.tokens:
                token.values[i] = None
    tops = [(feature.p999, feature.p999) for feature in activations.features]
    marks = image_marks([grid for grid in activations.grids if grid.image == 0], tops)
    return reply | {"marks": marks, "tokens": caption_tokens(activations, tops)}
