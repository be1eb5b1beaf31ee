"""Lists of features and samples, and saved filters."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response

from backend.api.annotations.common import as_version
from backend.api.annotations.writing import CONFLICT, WritingDep
from backend.deps import Cached, StoreDep
from backend.links import check_feature
from backend.schemas.annotations import (
    NAME_PATTERN,
    FilterChange,
    FilterPage,
    ListChange,
    SavedFilter,
    SavedList,
)
from backend.schemas.common import Page
from backend.stores import OpenStore

router = APIRouter(tags=["annotations"])

Name = Annotated[str, Path(pattern=f"^{NAME_PATTERN}$", description="Small letters, digits and hyphens, at most 60.")]


@router.get("/annotations/lists", summary="Lists of features and samples", dependencies=[Cached])
def get_lists(store: StoreDep) -> Page[SavedList]:
    items = [as_version(SavedList, entry, name=entry.key) for entry in store.annotations.entries("list")]
    return Page[SavedList](items=items, total=len(items))


@router.get("/annotations/lists/{name}", summary="One list")
def get_list(store: StoreDep, name: Name, response: Response) -> SavedList:
    entry = store.annotations.get("list", name)
    if entry.body is None:
        raise HTTPException(404, f"There is no list {name!r}: GET /annotations/lists names them.")
    return as_version(SavedList, entry, response, name=name)


@router.put("/annotations/lists/{name}", summary="Make a list, or change one", responses=CONFLICT)
def put_list(writing: WritingDep, name: Name, change: ListChange) -> SavedList:
    check_members(writing.store, [*change.features, *change.add_features], [*change.samples, *change.add_samples])
    return as_version(SavedList, writing.save("list", name, change), writing.response, name=name)


@router.delete("/annotations/lists/{name}", summary="Delete a list", responses=CONFLICT)
def delete_list(writing: WritingDep, name: Name) -> SavedList:
    return as_version(SavedList, writing.delete("list", name), writing.response, name=name)


def check_members(store: OpenStore, features: list[int], samples: list[str]) -> None:
    """Raise HTTP 404 where the store has not all of them."""
    for number in features:
        check_feature(store, number)
    rows = store.reader.selection.rows_of(samples)
    if absent := next((id for id in samples if id not in rows), None):
        raise HTTPException(404, f"No sample {absent!r} in this store: take an id from the list of samples.")


@router.get("/annotations/filters", summary="Saved filters of the lists", dependencies=[Cached])
def get_filters(
    store: StoreDep,
    page: Annotated[FilterPage | None, Query(description="Only those of this page.")] = None,
) -> Page[SavedFilter]:
    items = [as_version(SavedFilter, entry, name=entry.key) for entry in store.annotations.entries("filter")]
    items = sorted((entry for entry in items if page in (None, entry.page)), key=lambda entry: entry.title.casefold())
    return Page[SavedFilter](items=items, total=len(items))


@router.put("/annotations/filters/{name}", summary="Save the filters of a list under a name", responses=CONFLICT)
def put_filter(writing: WritingDep, name: Name, change: FilterChange) -> SavedFilter:
    body = change.model_dump(mode="json", exclude={"author"})
    version = writing.expected_version("filter", name)
    entry = writing.store.annotations.put("filter", name, body, author=writing.author(change), version=version)
    return as_version(SavedFilter, entry, writing.response, name=name)


@router.delete("/annotations/filters/{name}", summary="Delete a saved filter", responses=CONFLICT)
def delete_filter(writing: WritingDep, name: Name) -> Page[SavedFilter]:
    """The filters that are left."""
    writing.delete("filter", name)
    return get_filters(writing.store)
