"""The features of a store, each with its counterpart in another store."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from backend.api.features import FeatureQuery, get_features
from backend.deps import StateDep, StoreDep, get_store
from backend.schemas.compare import Match, StoreComparison
from backend.schemas.features import Feature
from backend.stores import OpenStore
from precompute.store.relations.counterparts import counterparts

router = APIRouter(tags=["compare"])


async def get_other(
    state: StateDep,
    other: Annotated[str, Query(alias="with", max_length=200, description="Name of the other store.")],
) -> OpenStore:
    """The store to compare with. HTTP 404 if no store has the name, 503 if it cannot be read."""
    return await get_store(state, other)


OtherDep = Annotated[OpenStore, Depends(get_other)]


@router.get("/compare/stores", summary="Features of a store, each with its counterpart in another store by direction")
def get_matches(store: StoreDep, other: OtherDep, query: Annotated[FeatureQuery, Query()]) -> StoreComparison:
    """Filters, order and pages are those of `GET /features`."""
    return compare(store, other, query)


def compare(store: OpenStore, other: OpenStore, query: FeatureQuery) -> StoreComparison:
    """Raises SaevxError where the directions cannot be compared."""
    page = get_features(store, query)
    nearest = counterparts(store.store, other.store, [one.id for one in page.items])
    ids = sorted({one.id for one in nearest.values()})
    items = other.store.features.list(ids=ids, limit=len(ids)).items if ids else []
    known = {one["id"]: Feature.model_validate({**one, **other.annotations.own("feature", one["id"])}) for one in items}
    matches = [
        Match(feature=one, other=known[to.id], cosine=to.cosine, mutual=to.mutual) if (to := nearest.get(one.id))
        else Match(feature=one, other=None, cosine=None, mutual=False)
        for one in page.items
    ]  # fmt: skip
    return StoreComparison(items=matches, total=page.total, next=page.next, note=note(store, other))


def note(store: OpenStore, other: OpenStore) -> str | None:
    """What to bear in mind where the stores were not made from the same model, layer and data."""
    here, there = store.store.summary, other.store.summary
    parts = [f"{name} ({here[key]}, {there[key]})" for name, key in (("model", "model"), ("layer", "layer"),
             ("data", "dataset")) if here[key] != there[key]]  # fmt: skip
    if not parts:
        return None
    return f"The stores differ in {' and '.join(parts)}: such directions and figures agree only in part."
