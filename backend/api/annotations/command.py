"""`saevx annotations`: export, import and carry over what people wrote about a store."""

from fastapi import HTTPException
from pydantic import ValidationError

from backend.annotations.carry import Report, carry
from backend.annotations.database import Database, Entry, UnavailableError
from backend.api.annotations.exchange import export_file, import_file
from backend.schemas.annotations import Exported
from backend.stores import OpenStore, local_database
from precompute.errors import PlaceError, SaevxError
from precompute.options.annotations import AnnotationsOptions as Options
from precompute.utils.failures import disk_sentence
from precompute.utils.files import write_text
from precompute.utils.ownership import exclusive_file
from precompute.utils.reading import read_regular


def run(options: Options) -> str:
    """Do what the command asks; returns what it prints.

    Raises:
        SaevxError: the store, the file or the database cannot be used.
    """
    database = Database(options.annotations) if options.annotations else local_database(options.store)
    store = OpenStore.at(options.store, database_of=lambda _: database)
    if store.annotations.problem:
        raise SaevxError(store.annotations.problem)
    if options.action == "export":
        if options.annotations and not database.exists():
            raise SaevxError(f"There is no database {database.url!r}: check --annotations.")
        text = export_file(store.annotations, store.name, options.history).model_dump_json(indent=1) + "\n"
        if options.file is None:
            return text
        with exclusive_file(options.file):
            write_text(options.file, text)
        return f"{options.file}\n"
    try:
        return f"{read_file(options, store) if options.action == 'import' else carry_over(options, store).sentence()}\n"
    except UnavailableError as error:
        if (full := disk_sentence(error, database.file)) is not None:
            raise PlaceError(full) from error
        raise


def read_file(options: Options, store: OpenStore) -> str:
    """Import a file; returns one sentence of what was done."""
    if options.file is None:
        raise SaevxError("Name the file to read: --file notes.json.")
    try:
        file = Exported.model_validate_json(read_regular(options.file))
    except ValidationError as error:
        raise SaevxError(f"{options.file} is no file of annotations: `saevx annotations export` writes one.") from error
    try:
        return import_file(store.annotations, store.reader, file, options.min_cosine).sentence
    except HTTPException as error:
        raise SaevxError(f"{options.file}: {error.detail}") from error


def carry_over(options: Options, store: OpenStore) -> Report:
    """Carry over from the other stores of the database, the last written first."""
    book, database = store.annotations, store.annotations.database
    ids = list(database.stores()) if database.exists() else []
    begin = options.from_store or ""
    other_ids = [other for other in reversed(ids) if other != store.content_id and other.startswith(begin)]
    if not other_ids:
        names = ", ".join(other[:12] for other in ids if other != store.content_id) or "none"
        raise SaevxError(f"The database has no annotations of such another store (it has: {names}).")
    total = Report()
    for other in other_ids:
        entries: dict[tuple[str, str], Entry] = {(entry.kind, entry.key): entry for entry in database.since(other, 0)}
        report = carry(book, store.reader, entries.values(), database.remembered(other), options.min_cosine)
        total.written += report.written
        total.present += report.present
        total.moved |= report.moved
        total.lost += report.lost
    return total
