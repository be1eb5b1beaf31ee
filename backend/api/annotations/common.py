"""What every endpoint that writes has in common: who writes, which version was read, what changes."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote

from fastapi import Cookie, HTTPException, Request, Response

from backend.annotations.book import Annotations
from backend.annotations.database import Entry
from backend.problems import MEDIA_TYPE
from backend.schemas.annotations import BODIES, Annotation, Change, ConflictProblem, Signed, Version
from backend.stores import OpenStore

COOKIE = "saevx_author"
AuthorCookie = Annotated[str | None, Cookie(alias=COOKIE, max_length=800, include_in_schema=False)]
CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": ConflictProblem, "content": {MEDIA_TYPE: {}}, "description": "Somebody changed it meanwhile."}
}
VERSION_TAG = re.compile(r'(?:W/)?"(?P<quoted>[0-9]{1,9})"|(?P<bare>[0-9]{1,9})')
V = TypeVar("V", bound=Version)
PARTS = ("tags", "features", "samples")
"""Fields that can be added to, and removed from, without reading them first."""


def author_name(request: Request) -> str:
    """The name that the visitor has given, as pages show it."""
    return unquote(request.cookies.get(COOKIE, ""))[:80]


def author_of(body: Signed, cookie: str | None) -> str:
    """The writer's name, "" where none is given."""
    return body.author if body.author is not None else unquote(cookie or "")[:80].replace("\0", "").strip()


def expected_version(request: Request, current: int) -> int | None:
    """The version in `If-Match`, of several the current one if it is among them; None for `*`. A version that a proxy
    made weak (W/"3") when it compressed the answer is still that version.

    Raises:
        HTTPException: 428 without the header, 422 for one that is no version.
    """
    header = ", ".join(request.headers.getlist("if-match")).strip()
    if not header:
        raise HTTPException(
            428, "Send the version that you have read as If-Match, 0 for none, or * to overwrite whatever is there."
        )
    if header == "*":
        return None
    tags = [VERSION_TAG.fullmatch(tag.strip()) for tag in header.split(",")]
    versions = [int(tag["quoted"] or tag["bare"]) for tag in tags if tag]
    if len(versions) < len(tags):
        raise HTTPException(422, f"If-Match: {header!r} is no version: give its number, such as 3.")
    return current if current in versions else versions[0]


def save(request: Request, store: OpenStore, kind: str, key: str | int, change: Change, cookie: str | None) -> Entry:
    """Write a change of one thing. Raises as `Annotations.change`; HTTP 404 for a version that is not there."""
    annotations = store.annotations
    fields = BODIES[kind].model_fields
    values = change.model_dump(mode="json")
    changes = {name: values[name] for name in fields if name in change.model_fields_set}
    overwrites = bool(changes) or change.restore is not None
    expects = overwrites or "if-match" in request.headers
    version = expected_version(request, annotations.get(kind, key).version) if expects else None
    old_body = version_body(annotations, kind, key, change.restore) if change.restore is not None else None

    def make(current: Entry) -> Mapping[str, Any] | None:
        if change.restore is not None:
            return old_body
        body = {**BODIES[kind]().model_dump(mode="json"), **(current.body or {}), **changes}
        for name in PARTS:
            if name in fields:
                drop = values.get(f"remove_{name}", [])
                body[name] = [
                    element
                    for element in dict.fromkeys([*body[name], *values.get(f"add_{name}", [])])
                    if element not in drop
                ]
        return body

    return annotations.change(kind, key, make, author=author_of(change, cookie), version=version)


def version_body(annotations: Annotations, kind: str, key: str | int, version: int) -> Mapping[str, Any] | None:
    """The fields of an older version."""
    if version == 0:
        return None
    for entry in annotations.history(kind, key):
        if entry.version == version:
            return entry.body
    raise HTTPException(404, f"There is no version {version} of this: see its history.")


def delete(request: Request, store: OpenStore, kind: str, key: str | int, author: str) -> Entry:
    """Delete one thing; its history stays."""
    version = expected_version(request, store.annotations.get(kind, key).version)
    return store.annotations.put(kind, key, None, author=author, version=version)


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
