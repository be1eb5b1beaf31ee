"""Labels, notes, tags and reviewed marks of features and samples; everything that was written, and its history."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Response

from backend.annotations.book import KINDS
from backend.api.annotations.common import as_annotation, as_version
from backend.api.annotations.writing import CONFLICT, WritingDep
from backend.deps import Cached, StoreDep
from backend.links import InQuery, check_feature, check_sample
from backend.params import FeatureId, Limit, QueryModel, Words
from backend.schemas.annotations import Annotation, Kind, Note, NoteChange, TagCount
from backend.schemas.common import Page

router = APIRouter(tags=["annotations"])


class AnnotationQuery(QueryModel):
    kind: Kind | None = None
    tag: Annotated[str | None, Query(max_length=60)] = None
    """Only features and samples with this tag."""
    reviewed: bool | None = None
    author: Annotated[str | None, Query(max_length=80)] = None
    """Only what this person wrote last."""
    q: Words = None
    """Words in label, note or tags of features and samples."""
    limit: Limit = 50
    cursor: Annotated[str | None, Query(pattern=r"^\d{1,18}$")] = None


@router.get("/annotations", summary="What people wrote, the last change first", dependencies=[Cached])
def get_annotations(store: StoreDep, query: Annotated[AnnotationQuery, Query()]) -> Page[Annotation]:
    book = store.annotations
    kinds: Sequence[str] = [query.kind] if query.kind else KINDS
    if query.tag is not None or query.reviewed is not None or query.q:
        kinds = [kind for kind in kinds if kind in ("feature", "sample")]
    entries = []
    for kind in kinds:
        keys = set(book.keys(kind, tag=query.tag, reviewed=query.reviewed))
        if query.q:
            keys &= set(book.search(kind, query.q))
        entries += [e for e in book.entries(kind) if e.key in keys and query.author in (None, e.author)]
    entries.sort(key=lambda e: -e.id)
    older = [e for e in entries if query.cursor is None or e.id < int(query.cursor)]
    items = [as_annotation(e) for e in older[: query.limit]]
    next_cursor = str(older[query.limit - 1].id) if len(older) > query.limit else None
    return Page[Annotation](items=items, total=len(entries), next=next_cursor)


@router.get("/annotations/tags", summary="The tags in use, the most frequent first", dependencies=[Cached])
def get_tags(store: StoreDep) -> Page[TagCount]:
    features, samples = store.annotations.tags("feature"), store.annotations.tags("sample")
    items = [
        TagCount(tag=tag, n_features=features.get(tag, 0), n_samples=samples.get(tag, 0)) for tag in features | samples
    ]
    items.sort(key=lambda item: (-item.n_features - item.n_samples, item.tag.casefold()))
    return Page[TagCount](items=items, total=len(items))


@router.get("/annotations/history", summary="Every version of one thing, the newest first")
def get_history(
    store: StoreDep,
    kind: Kind,
    key: Annotated[str, Query(min_length=1, max_length=20_000, description="As in `GET /annotations`.")],
) -> Page[Annotation]:
    items = [as_annotation(entry) for entry in store.annotations.history(kind, key)]
    return Page[Annotation](items=items, total=len(items))


@router.get("/annotations/features/{feature}", summary="What people wrote about a feature")
def get_feature_note(store: StoreDep, feature: FeatureId, response: Response) -> Note:
    check_feature(store, feature)
    return as_version(Note, store.annotations.get("feature", feature), response)


@router.put("/annotations/features/{feature}", summary="Write about a feature", responses=CONFLICT)
def put_feature_note(writing: WritingDep, feature: FeatureId, change: NoteChange) -> Note:
    check_feature(writing.store, feature)
    return as_version(Note, writing.save("feature", feature, change), writing.response)


@router.delete("/annotations/features/{feature}", summary="Delete what is written about a feature", responses=CONFLICT)
def delete_feature_note(writing: WritingDep, feature: FeatureId) -> Note:
    check_feature(writing.store, feature)
    return as_version(Note, writing.delete("feature", feature), writing.response)


@router.get("/annotations/sample", summary="What people wrote about a sample")
def get_sample_note(store: StoreDep, sample_id: InQuery, response: Response) -> Note:
    check_sample(store, sample_id)
    return as_version(Note, store.annotations.get("sample", sample_id), response)


@router.put("/annotations/sample", summary="Write about a sample", responses=CONFLICT)
def put_sample_note(writing: WritingDep, sample_id: InQuery, change: NoteChange) -> Note:
    check_sample(writing.store, sample_id)
    return as_version(Note, writing.save("sample", sample_id, change), writing.response)


@router.delete("/annotations/sample", summary="Delete what is written about a sample", responses=CONFLICT)
def delete_sample_note(writing: WritingDep, sample_id: InQuery) -> Note:
    check_sample(writing.store, sample_id)
    return as_version(Note, writing.delete("sample", sample_id), writing.response)
