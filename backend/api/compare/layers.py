"""The same place in another layer: stores of one model and data, and where a feature or a sample is in each."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from fastapi.concurrency import run_in_threadpool

from backend.api.compare.matching import LEAST, best_matches, default_way
from backend.deps import StateDep, StoreDep
from backend.links import check_feature, check_sample
from backend.schemas.common import Page
from backend.schemas.compare import LayerPlace, LayerStore, MatchBy
from backend.stores import OpenStore, State
from precompute.errors import SaevxError
from precompute.store.relations.shared_samples import same_sample

router = APIRouter(tags=["compare"])
WAYS: dict[MatchBy, str] = {"direction": "by decoder direction", "samples": "by shared samples"}


def layer_stores(state: State, store: OpenStore) -> list[LayerStore]:
    """Itself, and the stores of the same model and data but another layer, from the first layer on; none where there is
    no other layer."""
    other_stores = [s for s in state.stores.values() if s.name != store.name and is_other_layer(store, s)]
    if not other_stores:
        return []
    stores = sorted([store, *other_stores], key=lambda s: (layer_of(s), s.name))
    return [LayerStore(store=s.name, layer=layer_of(s), current=s.name == store.name) for s in stores]


def layer_of(store: OpenStore) -> int:
    """The decoder layer that the store is of."""
    return int(store.manifest["model"]["layer"])


def is_other_layer(store: OpenStore, other: OpenStore) -> bool:
    """Whether both are of one model and one data set, by hash where the manifest has it, and of different layers."""

    def same(part: str) -> bool:
        part_a, part_b = store.manifest[part], other.manifest[part]
        return all(part_a.get(key) == part_b.get(key) for key in ("name", "sha256"))

    return same("model") and same("data") and layer_of(store) != layer_of(other)


def layer_store(state: State, store: OpenStore, name: str) -> OpenStore:
    """The store of that name. Raises HTTPException: 404 where it is not a store of another layer."""
    if name not in {layer.store for layer in layer_stores(state, store) if not layer.current}:
        raise HTTPException(404, f"{name} is no other layer of {store.name}: choose one of GET /api/v1/layers.")
    return state.stores[name]


def place_of_feature(store: OpenStore, other: OpenStore, feature: int) -> LayerPlace:
    """Its best match in the other store, where that reaches `LEAST`."""
    by = default_way(store, other)
    place = LayerPlace(store=other.name, layer=layer_of(other), current=False, by=by)
    try:
        match = best_matches(store, other, by, [feature]).get(feature)
    except SaevxError as error:
        return place.model_copy(update={"sentence": str(error)})
    if match is None:
        why = "it fires on too few of the shared samples to be compared" if by == "samples" else "it has no direction"
        return place.model_copy(update={"sentence": none_of(store, other, feature, why)})
    if match.cosine < LEAST:
        why = (
            f"the nearest, #{match.id}, has a cosine of {match.cosine:.2f} {WAYS[by]}, and a match has {LEAST} or more"
        )
        return place.model_copy(update={"cosine": match.cosine, "sentence": none_of(store, other, feature, why)})
    remark = "" if match.mutual else "; its own best match is another feature"
    sentence = (
        f"Feature #{match.id} of layer {layer_of(other)} is the best match of #{feature} of layer {layer_of(store)} "
        f"{WAYS[by]}: cosine {match.cosine:.2f}{remark}."
    )
    return place.model_copy(update={"feature": match.id, "cosine": match.cosine, "sentence": sentence})


def none_of(store: OpenStore, other: OpenStore, feature: int, why: str) -> str:
    """That a feature has no match."""
    layer_name = f"layer {layer_of(other)} ({other.name})"
    return f"Feature #{feature} of layer {layer_of(store)} has no match in {layer_name}: {why}."


def place_of_sample(store: OpenStore, other: OpenStore, sample_id: str) -> LayerPlace:
    """The sample of the other store with the same id and content, or failing that with the same content."""
    place = LayerPlace(store=other.name, layer=layer_of(other), current=False)
    sample = same_sample(store.reader, other.reader, sample_id)
    if sample is None:
        sentence = f"The store of layer {layer_of(other)}, {other.name}, does not hold this sample."
        return place.model_copy(update={"sentence": sentence})
    return place.model_copy(update={"sample_id": sample})


@router.get("/layers", summary="Stores of the same model and data in other layers, and a feature or sample there")
async def get_layers(
    state: StateDep,
    store: StoreDep,
    feature: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="A feature: its best match in each.")] = None,
    sample: Annotated[str | None, Query(max_length=20_000, description="Id of a sample: the same one in each.")] = None,
) -> Page[LayerPlace]:
    """With `feature` or `sample` each other layer also says where that is."""
    await state.check_stores()
    items = await run_in_threadpool(places, state, store, feature, sample)
    return Page(items=items, total=len(items))


def places(state: State, store: OpenStore, feature: int | None, sample: str | None) -> list[LayerPlace]:
    """All layers, each with the place of the feature or the sample."""
    if feature is not None:
        check_feature(store, feature)
    if sample is not None:
        check_sample(store, sample)
    items = []
    for layer in layer_stores(state, store):
        place = LayerPlace(**layer.model_dump())
        if layer.current:
            place = place.model_copy(update={"feature": feature, "sample_id": sample})
        else:
            other_store = state.stores[layer.store]
            if feature is not None:
                place = place_of_feature(store, other_store, feature)
            if sample is not None:
                sample_place = place_of_sample(store, other_store, sample)
                sentences = " ".join(text for text in (place.sentence, sample_place.sentence) if text)
                place = place.model_copy(update={"sample_id": sample_place.sample_id, "sentence": sentences or None})
        items.append(place)
    return items
