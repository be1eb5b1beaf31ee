"""The page of features that share samples: families by families, the graph of one feature, a ranked list."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from backend.api import cooccurrence as cooccurrence_api
from backend.api.cooccurrence import PairQuery
from backend.api.features import features_of_words
from backend.live.lru import Lru
from backend.pages.cooccurrence.drawings import Graph, Matrix, draw_graph, draw_matrix, with_own_labels
from backend.pages.previews import previews
from backend.pages.visit import PageDep
from backend.params import FormQuery, Words
from backend.schemas.features import Feature
from backend.stores import OpenStore

router = APIRouter(default_response_class=HTMLResponse)

PAIR_SORTS = {"lift_low": "lift, lower bound", "lift": "lift", "npmi": "NPMI", "support": "support"}
KINDS = {
    "text-image": ("text × image", "a feature on the text and a feature on the image"),
    "text-text": ("text × text", "two features on the text"),
    "image-image": ("image × image", "two features on the image"),
}
SIDES = {"text-image": ("text", "image"), "text-text": ("text", "text"), "image-image": ("image", "image")}
N_FAMILIES = 30
"""Of each side of the matrix."""
N_OTHERS = 8
_matrices: Lru[tuple[object, ...], Matrix] = Lru(128)
"""The matrices drawn last: a store never changes."""


class PairList(FormQuery, PairQuery):
    """As in the API, and the feature also by words."""

    q: Words = None
    """Words of the feature's label or its number, in place of `feature`: the best match."""


@router.get("/cooccurrence")
def cooccurrence(visit: PageDep, query: Annotated[PairList, Query()]) -> HTMLResponse:
    """Features that share samples."""
    if not visit.store.has_images:
        query = query.model_copy(update={"kind": "text-text"})
    candidates = [] if query.q is None else matches(visit.store, query.q)
    if query.q is not None:  # words go before a number: they were typed later
        query = query.model_copy(update={"feature": candidates[0].id if candidates else None})
    page = cooccurrence_api.get_cooccurrence(visit.store, PairQuery(**query.model_dump(exclude={"q"})))
    feature_ref = None if query.feature is None else visit.reader.features.refs([query.feature])[query.feature]
    two = [] if query.like is None else [int(feature) for feature in query.like.split(",")]
    refs = visit.reader.features.refs(two)
    example_pair = [refs[feature] for feature in two]
    return visit.render(
        "cooccurrence.html",
        section="/cooccurrence",
        page=page,
        q=query,
        others=candidates[1:],
        lost=query.q is not None and not candidates,
        chosen=feature_ref,
        like=example_pair,
        matrix=None if feature_ref or example_pair else drawn_matrix(visit.store, query),
        graph=None if query.feature is None or example_pair else drawn_graph(visit.store, query.feature),
        kinds=KINDS if visit.store.has_images else {},
        sides=SIDES[query.kind],
        sorts=PAIR_SORTS.items(),
        previews=previews(visit, [pair.b.id for pair in page.items]),
    )


def drawn_graph(open_store: OpenStore, feature: int) -> Graph:
    graph = cooccurrence_api.get_pair_graph(open_store, feature)
    return draw_graph(with_own_labels(graph, open_store.annotations.labels))


def matches(open_store: OpenStore, words: str) -> list[Feature]:
    """The features that words, or a number, can mean, one of each family or name; the best match first."""
    concept, first = open_store.reader.features.concept, dict[int, Feature]()
    for feature in features_of_words(open_store, words, 100):
        first.setdefault(int(concept[feature.id]), feature)
    return [*first.values()][:N_OTHERS]


def drawn_matrix(open_store: OpenStore, query: PairList) -> Matrix:
    """The matrix of the list's kind and filters."""
    filters = (query.kind, query.min_support, query.min_lift)
    return _matrices.get_or_make(
        (open_store.content_id, *filters),
        lambda: draw_matrix(cooccurrence_api.get_pair_matrix(open_store, *filters, N_FAMILIES)),
    )
