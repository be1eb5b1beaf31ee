"""To the same place in another layer: the links of the pages, and the address behind them."""

from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, HTTPException, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from backend.api.compare.layers import layer_store, layer_stores, place_of_feature, place_of_sample
from backend.links import check_feature, check_sample, sample_path
from backend.pages.sample.marks import MAX_CHOSEN
from backend.pages.visit import PageDep, PageVisit
from backend.params import FormQuery, parse_numbers
from backend.stores import OpenStore

router = APIRouter()


class LayerLink(NamedTuple):
    """One layer as the pages offer it."""

    text: str
    store: str
    url: str | None
    """None for the layer of this page."""


def layer_links(visit: PageVisit, **place: Any) -> list[LayerLink]:
    """The layers of this model and data; none where there is but one.

    Args:
        place: what the address of another layer is asked for: `feature`, `sample` and `f`, or `a` and `b`.
    """
    layers = layer_stores(visit.state, visit.store)
    links = visit.links
    numbers = [layer.layer for layer in layers]
    return [
        LayerLink(
            f"{layer.layer}" if numbers.count(layer.layer) == 1 else f"{layer.layer} · {layer.store}",
            layer.store,
            None if layer.current else links.page("/layer", **place, to=layer.store),
        )
        for layer in layers
    ]


class LayerQuery(FormQuery):
    """Which place is asked for in which layer."""

    to: str
    """Name of the store of the other layer."""
    feature: int | None = None
    sample: Annotated[str | None, Query(max_length=20_000)] = None
    f: str | None = None
    """Features chosen on the page of the sample."""
    a: int | None = None
    """The first of two features that are compared."""
    b: int | None = None


@router.get("/layer")
async def go(visit: PageDep, query: Annotated[LayerQuery, Query()]) -> RedirectResponse:
    """To the same place in another layer; back, with a sentence, where it has none there."""
    await visit.state.check_stores()
    other = layer_store(visit.state, visit.store, query.to)
    address = await run_in_threadpool(address_in, visit, other, query)
    return RedirectResponse(address, 303, {"Cache-Control": "no-store"})


def address_in(visit: PageVisit, other: OpenStore, query: LayerQuery) -> str:
    """The address of the place in `other`, or that of the page one came from."""
    links, other_links = visit.links, visit.at(other).links
    if query.sample is not None:
        check_sample(visit.store, query.sample)
        features = parse_numbers(query.f, "f", MAX_CHOSEN) if query.f else []
        sample_id = place_of_sample(visit.store, other, query.sample).sample_id
        if sample_id is None:
            return links.page(sample_path(query.sample), f=query.f, missing=other.name)
        numbers = {id: to for id in features if (to := number_in(visit.store, other, id)) is not None}
        came_from = origin(visit.store, features) if features else None
        return other_links.page(sample_path(sample_id), f=",".join(map(str, numbers.values())), **{"from": came_from})
    if query.feature is not None:
        if (feature := number_in(visit.store, other, query.feature)) is None:
            return links.page(f"/features/{query.feature}", missing=other.name)
        return other_links.page(f"/features/{feature}", **{"from": origin(visit.store, [query.feature])})
    ids = {name: id for name, id in (("a", query.a), ("b", query.b)) if id is not None}
    if not ids:
        raise HTTPException(422, "Name a place: feature=, sample=, or a= and b= of a comparison.")
    places = {name: number_in(visit.store, other, id) for name, id in ids.items()}
    if None in places.values():
        return links.page("/compare", **ids, missing=other.name)
    return other_links.page("/compare", **places, **{"from": origin(visit.store, list(ids.values()))})


def number_in(store: OpenStore, other: OpenStore, feature: int) -> int | None:
    """The best match of a feature. Raises HTTPException: 404 without such a feature."""
    check_feature(store, feature)
    return place_of_feature(store, other, feature).feature


def origin(store: OpenStore, ids: list[int]) -> str:
    """Where one comes from, as `CameFrom` has it."""
    return f"{store.name}:{','.join(map(str, ids))}"


def layer_note(visit: PageVisit, came_from: str | None, target: str | None, ids: list[int]) -> list[str]:
    """What became of features on the way from or to another layer. An address that names no other layer says nothing.

    Args:
        came_from: as `CameFrom`. target: the name of a layer that lacks something of this page.
        ids: the features of this page.
    """
    other_layers = other_stores(visit)
    if target in other_layers:
        notes = [place_of_feature(visit.store, other_layers[target], id) for id in ids]
        return [place.sentence for place in notes if place.feature is None and place.sentence]
    name, _, numbers = (came_from or "").rpartition(":")
    if name not in other_layers:
        return []
    first = other_layers[name]
    features_before = [id for id in parse_numbers(numbers, "from", MAX_CHOSEN) if id < first.reader.n_features]
    return [text for id in features_before if (text := place_of_feature(first, visit.store, id).sentence)]


def missing_sample(visit: PageVisit, target: str | None, sample_id: str) -> list[str]:
    """That another layer does not hold this sample."""
    other = other_stores(visit).get(target or "")
    sentence = place_of_sample(visit.store, other, sample_id).sentence if other else None
    return [sentence] if sentence else []


def other_stores(visit: PageVisit) -> dict[str, OpenStore]:
    """The stores of other layers, by name."""
    return {s.store: visit.state.stores[s.store] for s in layer_stores(visit.state, visit.store) if not s.current}
