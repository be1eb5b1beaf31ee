"""Pairs of features that share samples."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from backend.deps import Cached, StoreDep
from backend.links import check_feature
from backend.params import Cursor, Limit, QueryModel
from backend.schemas.cooccurrence import PairGraph, PairMatrix, PairSamples
from backend.schemas.features import FeatureRef, Kind, PairPage
from backend.stores import OpenStore
from precompute.store.relations.matrix import ego, matrix
from precompute.store.relations.pair_samples import pair_samples

router = APIRouter(tags=["co-occurrence"], dependencies=[Cached])


class PairQuery(QueryModel):
    """Order and filters of the list of pairs of features."""

    kind: Kind = "text-image"
    """Modalities of `a` and `b`."""
    sort: Literal["lift_low", "lift", "npmi", "support"] = "lift_low"
    """Figure to sort by."""
    min_support: Annotated[int, Query(ge=0, le=2**31)] = 5
    """Minimum number of common samples."""
    feature: Annotated[int | None, Query(ge=0, le=2**31 - 1)] = None
    """Only pairs with this feature."""
    min_lift: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 1.5
    """Minimum lift."""
    alike: bool = False
    """Also pairs of one family or name, and every pair of the same two, of which otherwise the first is listed."""
    like: Annotated[str | None, Query(pattern=r"^\d{1,9},\d{1,9}$")] = None
    """a,b: every pair of the same two families or names as these two features."""
    limit: Limit = 50
    cursor: Cursor = None


@router.get("/cooccurrence", summary="Pairs of features that share samples, strongest first")
def get_cooccurrence(store: StoreDep, query: Annotated[PairQuery, Query()]) -> PairPage:
    if query.feature is not None:
        check_feature(store, query.feature)
    filters = query.model_dump()
    if query.like is not None:
        a, b = (int(feature) for feature in query.like.split(","))
        check_feature(store, a)
        check_feature(store, b)
        filters["like"] = (a, b)
    page = store.reader.cooccurrence.list(**filters)
    return PairPage.model_validate(page._asdict())


FeatureNumber = Annotated[int, Query(ge=0, le=2**31 - 1, description="Number of a feature.")]


@router.get("/cooccurrence/matrix", summary="Families by families, with the strongest pair of every two")
def get_pair_matrix(
    store: StoreDep,
    kind: Kind = "text-image",
    min_support: Annotated[int, Query(ge=0, le=2**31, description="Minimum number of common samples.")] = 5,
    min_lift: Annotated[float, Query(ge=0, allow_inf_nan=False, description="Minimum lift.")] = 1.5,
    n: Annotated[int, Query(ge=2, le=100, description="Families a side: the most and strongest pairs.")] = 30,
) -> PairMatrix:
    return PairMatrix.model_validate(matrix(store.reader, kind, n, min_support=min_support, min_lift=min_lift))


@router.get("/cooccurrence/graph", summary="A feature's strongest partners, and which of them share samples")
def get_pair_graph(
    store: StoreDep,
    feature: FeatureNumber,
    n: Annotated[int, Query(ge=1, le=50, description="Partners a side.")] = 8,
) -> PairGraph:
    check_feature(store, feature)
    return PairGraph.model_validate(ego(store.reader, feature, n))


@router.get("/cooccurrence/pair", summary="Samples in which both features fire, or only one")
def get_pair_samples(
    store: StoreDep,
    a: FeatureNumber,
    b: FeatureNumber,
    kind: Kind = "text-image",
    limit: Annotated[int, Query(ge=1, le=50, description="Samples of each group.")] = 8,
) -> PairSamples:
    check_feature(store, a)
    check_feature(store, b)
    return samples_of_pair(store, kind, a, b, limit)


def samples_of_pair(store: OpenStore, kind: Kind, a: int, b: int, limit: int) -> PairSamples:
    """The reply of `/cooccurrence/pair`."""
    refs = store.reader.features.refs([a, b])
    result = pair_samples(store.reader, kind, a, b, limit)
    return PairSamples.model_validate(
        {**result, "a": FeatureRef.model_validate(refs[a]), "b": FeatureRef.model_validate(refs[b])}
    )
