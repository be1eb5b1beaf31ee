"""What DATA can be: JSON, an imagefolder, WebDataset tars, images with texts beside them, tables."""

import os
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from precompute.data.json_files import JsonFile, captioned_records, images_with_texts
from precompute.data.paths import check_files, files_below, files_of_split, unicode_name
from precompute.data.records import IMAGE_FIELDS, Columns, Listing
from precompute.data.table_files import TABLES, from_files, from_folder, from_hub
from precompute.data.tars import IMAGE_SUFFIXES, from_tars
from precompute.errors import SaevxError

METADATA = "metadata.jsonl"
FOLDER_FIELDS = ("file_name", "file_names", "image", "images")
"""An imagefolder's own names first."""
JSON_LINES = (".jsonl", ".ndjson", ".json")
FORMATS_READ = "give an imagefolder, JSONL, Parquet, WebDataset tars or a data set of the hub"
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
_COMPRESSED = re.compile(r"\.(tgz|gz|bz2|xz|zst|zip|7z)$", re.IGNORECASE)


def find(source: str, columns: Columns) -> Listing:
    """Where the records of DATA are.

    Raises:
        SaevxError: there is no such data, or nothing that is read here.
    """
    try:
        listing = _find(source, columns)
    except OSError as error:
        raise SaevxError(
            f"{source} cannot be read ({error.strerror or error}): check its path and your rights."
        ) from error
    for file in listing.files:
        if (name := unicode_name(str(file))) != str(file):
            raise SaevxError(f"{name} has a name that is not valid Unicode (UTF-8): rename it.")
    if columns.split != Columns().split and not listing.has_splits:
        raise SaevxError(f"{source} has no splits: leave out --split, or name the files of the split as DATA.")
    return listing


def _find(source: str, columns: Columns) -> Listing:
    path = Path(source)
    if source.startswith("~") and not path.exists():  # the shell expands it only where it begins a word
        with suppress(RuntimeError):
            path = path.expanduser()
    if path.is_dir():
        return _folder(path, columns)
    paths = [path] if path.is_file() else matching_paths(path)
    if paths and not path.is_file():  # the user gave a pattern, and the folder gave the files
        check_files(literal_folder(path)[0], paths, columns.anywhere)
    kinds = {"".join(file.suffixes[-1:]).lower() for file in paths}
    if len(paths) == 1 and kinds <= set(JSON_LINES):
        return _json(paths[0], paths[0].resolve().name, columns)
    if kinds == {".tar"}:
        return from_tars(paths, paths[0].resolve(), columns)
    if len(kinds) == 1 and kinds <= set(TABLES):
        return from_files(paths, paths[0], columns)
    compressed_file = next((file for file in paths if _COMPRESSED.search(file.name)), None)
    if compressed_file is not None and re.search(r"\.(tar\.\w+|tgz)$", compressed_file.name, re.IGNORECASE):
        raise SaevxError(f"{source} is compressed, so its images cannot be read one by one: unpack it to a plain .tar.")
    if compressed_file is not None:
        raise SaevxError(f"{source} is compressed: unpack it first.")
    if paths:
        raise SaevxError(f"{source} is none of the formats read here: {FORMATS_READ}.")
    if _HUB.fullmatch(source):
        return from_hub(source, columns)
    raise SaevxError(f"There is no data at {source}: {FORMATS_READ}.")


def _folder(path: Path, columns: Columns) -> Listing:
    name = path.resolve().name
    if os.path.lexists(path / METADATA):
        check_files(path, [path / METADATA], columns.anywhere)
    if (path / METADATA).is_file():
        return _json(path / METADATA, name, columns)
    tars, parquet = sorted(path.glob("*.tar")), sorted(path.rglob("*.parquet"))
    is_saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    check_files(path, [] if is_saved else [*tars, *parquet], columns.anywhere)
    if is_saved:
        return _table_folder(path, columns)
    if shards := tars or parquet:
        files, has_splits = files_of_split(shards, path, columns)
        listing = from_tars(files, path.resolve(), columns) if tars else from_files(files, path, columns)
        return replace(listing, has_splits=has_splits)
    metadata = sorted(path.rglob("metadata.*"))
    if metadata == [path / "metadata.csv"] and metadata[0].is_file():
        check_files(path, metadata, columns.anywhere)
        return from_files(metadata, path, columns)
    if not metadata and any(text is not None for _, text in images_with_texts(path, IMAGE_SUFFIXES)):
        records = partial(captioned_records, path, IMAGE_SUFFIXES, columns.anywhere)
        return Listing(name, records, _fields_of(columns, FOLDER_FIELDS), path)
    return _table_folder(path, columns)


def _table_folder(path: Path, columns: Columns) -> Listing:
    """What `datasets` reads; it opens each file that it knows, wherever links lead."""
    check_files(path, files_below(path, left_out=IMAGE_SUFFIXES), columns.anywhere)
    return from_folder(path, columns)


def _json(path: Path, name: str, columns: Columns) -> Listing:
    fields = FOLDER_FIELDS if path.name == METADATA else IMAGE_FIELDS
    return Listing(name, JsonFile(path).records, _fields_of(columns, fields), path.parent)


def _fields_of(columns: Columns, fields: tuple[str, ...]) -> tuple[str, ...]:
    return (columns.image,) if columns.image else fields


def matching_paths(pattern: Path) -> list[Path]:
    """Files that a glob names, in order; none where it is no glob."""
    if not set("*?[") & set(str(pattern)):
        return []
    base, parts = literal_folder(pattern)
    return sorted(base.glob("/".join(parts))) if parts else []


def literal_folder(pattern: Path) -> tuple[Path, list[str]]:
    """The part of a path that exists, taken literally, whatever signs its folders' names hold; and the other parts."""
    base, parts = Path(pattern.anchor), list(pattern.relative_to(pattern.anchor).parts)
    while parts and (base / parts[0]).is_dir():
        base /= parts.pop(0)
    return base, parts
