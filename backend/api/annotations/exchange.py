"""Annotations as a file: all of a store's written out, and read again into the same store or a later one."""

import base64
import binascii
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import ValidationError

from backend.annotations.book import KINDS, Annotations
from backend.annotations.carry import carry
from backend.annotations.database import Entry
from backend.api.annotations.common import as_annotation
from backend.deps import StoreDep
from backend.schemas.annotations import BODIES, Annotation, Exported, Imported
from precompute.store.reader import Store
from precompute.utils.text import ascii_name

router = APIRouter(tags=["annotations"])

LEAST = 0.9
"""Cosine from which a direction of another store counts as the same."""


@router.get("/annotations/export", summary="All annotations of the store, as a file")
def get_annotations_file(
    response: Response,
    store: StoreDep,
    history: Annotated[bool, Query(description="Every version, not only what holds.")] = False,
) -> Exported:
    response.headers["Content-Disposition"] = f'attachment; filename="{ascii_name(store.name)}-annotations.json"'
    response.headers["Cache-Control"] = "no-store"
    return export_file(store.annotations, store.name, history)


def export_file(book: Annotations, name: str, history: bool) -> Exported:
    """What the file holds."""
    has_file = book.database.exists()
    if history:
        entries: Iterable[Entry] = book.database.since(book.store, 0) if has_file else []
    else:
        entries = sorted((entry for kind in KINDS for entry in book.entries(kind)), key=lambda entry: entry.id)
    vectors = book.database.remembered(book.store) if has_file else {}
    return Exported(
        content_id=book.store,
        store=name,
        items=[as_annotation(entry) for entry in entries],
        directions={number: base64.b64encode(vector).decode() for number, vector in vectors.items()},
    )


@router.put("/annotations/import", summary="Read a file of annotations")
def put_annotations_file(
    store: StoreDep,
    file: Exported,
    min_cosine: Annotated[float, Query(ge=0, le=1, description="Of matching directions, for another store.")] = LEAST,
) -> Imported:
    return import_file(store.annotations, store.reader, file, min_cosine)


def import_file(book: Annotations, store: Store, file: Exported, min_cosine: float = LEAST) -> Imported:
    """Write what the file has and the store has not, with its authors and times. What holds here already stays.

    Raises:
        HTTPException: 422 for an item that is none.
    """
    things = [entry_of(item) for item in newest_of(file.items)]
    try:
        vectors = {number: base64.b64decode(text, validate=True) for number, text in file.directions.items()}
    except (ValueError, binascii.Error) as error:
        raise HTTPException(422, "directions: a sketch is no base64.") from error
    report = carry(book, store, things, vectors, min_cosine, same=file.content_id == book.store)
    return Imported(written=report.written, skipped=report.present, lost=report.lost, sentence=report.sentence("read"))


def newest_of(items: list[Annotation]) -> list[Annotation]:
    """The last version of each thing that is not deleted."""
    last: dict[tuple[str, str], Annotation] = {}
    for item in sorted(items, key=lambda item: item.version):
        last[item.kind, item.key] = item
    return [item for item in last.values() if item.body is not None]


def entry_of(item: Annotation) -> Entry:
    """An item of a file as an entry. Raises HTTP 422."""
    try:
        body = BODIES[item.kind].model_validate(item.body).model_dump(mode="json")
        if item.kind == "feature":
            int(item.key)
    except (ValidationError, ValueError) as error:
        raise HTTPException(422, f"items: {item.kind} {item.key!r} is no annotation of this kind.") from error
    return Entry(item.kind, item.key[:20_000], item.version, item.author[:80], item.at[:32], body)
