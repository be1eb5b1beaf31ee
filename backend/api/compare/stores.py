"""The features of a store, each with its counterpart in another store, and those that have none."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from backend.api.compare.matching import LEAST, best_matches, cached_matching, shared_matches
from backend.api.features import FeatureQuery, get_features
from backend.deps import StateDep, StoreDep, get_store
from backend.params import Cursor, Limit
from backend.schemas.compare import Match, MatchBy, MatchedPoint, MatchedPoints, StoreComparison, Unmatched
from backend.schemas.features import Feature
from backend.stores import OpenStore
from precompute.store.sql import next_cursor, page_start

router = APIRouter(tags=["compare"])

MAX_POINTS = 500


async def get_other(
    state: StateDep,
    other: Annotated[str, Query(alias="with", max_length=200, description="Name of the other store.")],
) -> OpenStore:
    """The store to compare with. HTTP 404 if no store has the name, 503 if it cannot be read."""
    return await get_store(state, other)


OtherDep = Annotated[OpenStore, Depends(get_other)]
By = Annotated[MatchBy, Query(description="By decoder direction, or by the samples that both stores hold.")]
Least = Annotated[
    float, Query(ge=-1, le=1, allow_inf_nan=False, description="Cosine from which two features count as a match.")
]


@router.get("/compare/stores", summary="Features of a store, each with its counterpart in another store")
def get_matches(
    store: StoreDep, other: OtherDep, query: Annotated[FeatureQuery, Query()], by: By = "direction"
) -> StoreComparison:
    """Filters, order and pages are those of `GET /features`."""
    return compare(store, other, query, by)


def compare(store: OpenStore, other: OpenStore, query: FeatureQuery, by: MatchBy = "direction") -> StoreComparison:
    """Raises SaevxError where the stores cannot be compared in this way."""
    page = get_features(store, query)
    items = matches(store, other, page.items, by)
    return StoreComparison(
        items=items, total=page.total, next=page.next, note=note(store, other), **way(store, other, by)
    )


def way(store: OpenStore, other: OpenStore, by: MatchBy) -> dict[str, Any]:
    """How the features were matched: fields of `Matched`."""
    if by == "direction":
        return {"by": by}
    sample_matches = shared_matches(store, other)
    return {"by": by, "n_shared": sample_matches.n_shared, "n_compared": sample_matches.n_compared}


def matches(store: OpenStore, other: OpenStore, features: list[Feature], by: MatchBy) -> list[Match]:
    """These features, each with its best match."""
    match_of = best_matches(store, other, by, [f.id for f in features])
    features_there = features_of(other, [match.id for match in match_of.values()])
    return [
        Match(feature=f, other=features_there[to.id], cosine=to.cosine, mutual=to.mutual)
        if (to := match_of.get(f.id))
        else Match(feature=f, other=None, cosine=None, mutual=False)
        for f in features
    ]


def features_of(store: OpenStore, ids: list[int]) -> dict[int, Feature]:
    """Features as lists show them, by number."""
    unique_ids = sorted(set(ids))
    items = [
        item
        for start in range(0, len(unique_ids), MAX_POINTS)
        for item in store.reader.features.list(ids=unique_ids[start : start + MAX_POINTS], limit=MAX_POINTS).items
    ]
    return {f["id"]: Feature.model_validate({**f, **store.annotations.list_fields("feature", f["id"])}) for f in items}


@router.get("/compare/stores/only", summary="Features of a store without a match in another store")
def get_unmatched(
    store: StoreDep,
    other: OtherDep,
    by: By = "direction",
    least: Least = LEAST,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Unmatched:
    """Most evidence first; dead features are left out. Of a store of more than 2,048 features that are not dead, the
    first 2,048 in this order are looked at."""
    all_matches = cached_matching(store, other, by)
    ids = [id for id in all_matches.ids if not all_matches.is_match(id, least)]
    parts = (store.content_id, other.content_id, by, least)
    tag = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    start = page_start(tag, cursor)
    page = ids[start : start + limit]
    page_features = features_of(store, page)
    end = start + len(page)
    return Unmatched(
        items=matches(store, other, [page_features[id] for id in page], by),
        total=len(ids),
        next=next_cursor(tag, end, len(ids)),
        n_looked_at=len(all_matches.ids),
        n_alive=all_matches.n_alive,
        **way(store, other, by),
    )


@router.get("/compare/stores/points", summary="Agreement and density of matched features, against each other")
def get_points(
    store: StoreDep,
    other: OtherDep,
    by: By = "direction",
    least: Least = LEAST,
    limit: Annotated[int, Query(ge=1, le=MAX_POINTS, description="Points at most.")] = 300,
) -> MatchedPoints:
    """Of the features with a match, those of most evidence first."""
    all_matches = cached_matching(store, other, by)
    ids = [id for id in all_matches.ids if all_matches.is_match(id, least)]
    features_a = features_of(store, ids[:limit])
    features_b = features_of(other, [all_matches.best[id].id for id in ids[:limit]])
    points = [
        MatchedPoint(
            feature=id,
            other=to.id,
            label=features_a[id].own_label or features_a[id].label,
            cosine=to.cosine,
            mutual=to.mutual,
            agreement=(features_a[id].agreement, features_b[to.id].agreement),
            density_text=(features_a[id].density_text, features_b[to.id].density_text),
            density_image=(features_a[id].density_image, features_b[to.id].density_image),
        )
        for id in ids[:limit]
        for to in [all_matches.best[id]]
    ]
    return MatchedPoints(
        points=points,
        n_matched=len(ids),
        n_mutual=sum(all_matches.best[id].mutual for id in ids),
        n_looked_at=len(all_matches.ids),
        n_alive=all_matches.n_alive,
        **way(store, other, by),
    )


def note(store: OpenStore, other: OpenStore) -> str | None:
    """What to bear in mind where the stores were not made from the same model, layer and data."""
    summary_a, summary_b = store.reader.summary, other.reader.summary
    parts = [
        f"{name} ({summary_a[key]}, {summary_b[key]})"
        for name, key in (("model", "model"), ("layer", "layer"), ("data", "dataset"))
        if summary_a[key] != summary_b[key]
    ]
    if not parts:
        return None
    return f"The stores differ in {' and '.join(parts)}: such directions and figures agree only in part."
