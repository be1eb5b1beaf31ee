"""`saevx annotations`: export, import and carry over what people wrote about a store."""

from __future__ import annotations

from fastapi import HTTPException
from pydantic import ValidationError

from backend.annotations.carry import Report, carry
from backend.annotations.database import Database, Entry
from backend.api.annotations.exchange import export_file, import_file
from backend.schemas.annotations import Exported
from backend.stores import OpenStore, local_database
from precompute.errors import SaevxError
from precompute.options.annotations import AnnotationsOptions as Options
from precompute.utils.files import write_text


def run(options: Options) -> str:
    """Do what the command asks; returns what it prints.

    Raises:
        SaevxError: the store, the file or the database cannot be used.
    """
    database = Database(options.annotations) if options.annotations else local_database(options.store)
    opened = OpenStore.at(options.store, database_of=lambda _: database)
    if opened.annotations.problem:
        raise SaevxError(opened.annotations.problem)
    if options.action == "export":
        text = export_file(opened.annotations, opened.name, options.history).model_dump_json(indent=1) + "\n"
        if options.file is None:
            return text
        write_text(options.file, text)
        return f"{options.file}\n"
    if options.action == "import":
        return f"{read_file(options, opened)}\n"
    return f"{carry_over(options, opened).sentence()}\n"


def read_file(options: Options, opened: OpenStore) -> str:
    """Import a file; returns one sentence of what was done."""
    if options.file is None:
        raise SaevxError("Name the file to read: --file notes.json.")
    try:
        file = Exported.model_validate_json(options.file.read_bytes())
    except OSError as error:
        raise SaevxError(f"{options.file} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        raise SaevxError(f"{options.file} is no file of annotations: `saevx annotations export` writes one.") from error
    try:
        return import_file(opened.annotations, opened.store, file, options.min_cosine).sentence
    except HTTPException as error:
        raise SaevxError(f"{options.file}: {error.detail}") from error


def carry_over(options: Options, opened: OpenStore) -> Report:
    """Carry over from the other stores of the database, the last written first."""
    book, database = opened.annotations, opened.annotations.database
    ids = list(database.stores()) if database.exists() else []
    begin = options.from_store or ""
    others = [one for one in reversed(ids) if one != opened.content_id and one.startswith(begin)]
    if not others:
        known = ", ".join(one[:12] for one in ids if one != opened.content_id) or "none"
        raise SaevxError(f"The database has no annotations of such another store (it has: {known}).")
    whole = Report()
    for one in others:
        held: dict[tuple[str, str], Entry] = {(entry.kind, entry.key): entry for entry in database.since(one, 0)}
        report = carry(book, opened.store, held.values(), database.remembered(one), options.min_cosine)
        whole.written += report.written
        whole.present += report.present
        whole.moved |= report.moved
        whole.lost += report.lost
    return whole
