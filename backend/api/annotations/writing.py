"""What every endpoint that writes has in common: who writes, which version was read, what changes."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

from fastapi import Cookie, Depends, HTTPException, Request, Response

from backend.annotations.database import Entry
from backend.api.annotations.common import COOKIE, version_body
from backend.deps import StoreDep
from backend.problems import MEDIA_TYPE
from backend.schemas.annotations import BODIES, Change, ConflictProblem, Signed
from backend.stores import OpenStore

CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": ConflictProblem, "content": {MEDIA_TYPE: {}}, "description": "Somebody changed it meanwhile."}
}
VERSION_TAG = re.compile(r'(?:W/)?"(?P<quoted>[0-9]{1,9})"|(?P<bare>[0-9]{1,9})')
PARTS = ("tags", "features", "samples")
"""Fields that can be added to, and removed from, without reading them first."""


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


class Writing(NamedTuple):
    """A request that writes, and who sends it."""

    request: Request
    response: Response
    store: OpenStore
    cookie: str | None

    def author(self, body: Signed | None = None) -> str:
        """The writer's name: that in the body, else that of the cookie; "" where none is given."""
        if body is not None and body.author is not None:
            return body.author
        return unquote(self.cookie or "")[:80].replace("\0", "").strip()

    def expected_version(self, kind: str, key: str | int) -> int | None:
        """As the function, of one thing."""
        return expected_version(self.request, self.store.annotations.get(kind, key).version)

    def save(self, kind: str, key: str | int, change: Change) -> Entry:
        """Write a change of one thing. Raises as `Annotations.change`; HTTP 404 for a version that is not there."""
        annotations = self.store.annotations
        fields = BODIES[kind].model_fields
        values = change.model_dump(mode="json")
        changes = {name: values[name] for name in fields if name in change.model_fields_set}
        overwrites = bool(changes) or change.restore is not None
        expects = overwrites or "if-match" in self.request.headers
        version = self.expected_version(kind, key) if expects else None
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

        return annotations.change(kind, key, make, author=self.author(change), version=version)

    def delete(self, kind: str, key: str | int) -> Entry:
        """Delete one thing; its history stays."""
        version = self.expected_version(kind, key)
        return self.store.annotations.put(kind, key, None, author=self.author(), version=version)


AuthorCookie = Annotated[str | None, Cookie(alias=COOKIE, max_length=800, include_in_schema=False)]


async def get_writing(request: Request, response: Response, store: StoreDep, author: AuthorCookie = None) -> Writing:
    return Writing(request, response, store, author)


WritingDep = Annotated[Writing, Depends(get_writing)]
