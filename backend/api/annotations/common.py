"""What the endpoints and pages of annotations have in common: the writer's name, and things as the API gives them."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import unquote

from fastapi import HTTPException, Request, Response

from backend.annotations.book import Annotations
from backend.annotations.database import Entry
from backend.schemas.annotations import Annotation, Version

COOKIE = "saevx_author"
V = TypeVar("V", bound=Version)


def author_name(request: Request) -> str:
    """The name that the visitor has given, as pages show it."""
    return unquote(request.cookies.get(COOKIE, ""))[:80]


def version_body(annotations: Annotations, kind: str, key: str | int, version: int) -> Mapping[str, Any] | None:
    """The fields of an older version."""
    if version == 0:
        return None
    for entry in annotations.history(kind, key):
        if entry.version == version:
            return entry.body
    raise HTTPException(404, f"There is no version {version} of this: see its history.")


def as_version(model: type[V], entry: Entry, response: Response | None = None, **values: Any) -> V:
    """A thing as the API gives it, with its version as the ETag."""
    if response is not None:
        response.headers["ETag"] = f'"{entry.version}"'
        response.headers["Cache-Control"] = "no-store"
    signature = {"version": entry.version, "author": entry.author, "at": entry.at, "deleted": entry.body is None}
    return model.model_validate({**(entry.body or {}), **signature, **values})


def as_annotation(entry: Entry) -> Annotation:
    bare_entry = Entry(entry.kind, entry.key, entry.version, entry.author, entry.at)
    return as_version(
        Annotation, bare_entry, kind=entry.kind, key=entry.key, body=entry.body, deleted=entry.body is None
    )
