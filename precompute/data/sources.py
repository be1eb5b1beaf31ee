"""What DATA can be, and its records: JSON, an imagefolder, WebDataset tars; tables are in tables.py."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from precompute.data.base import BadRow, Columns, Listing, Slice
from precompute.data.tables import from_folder, from_hub, from_parquet
from precompute.errors import SaevxError

METADATA = "metadata.jsonl"
IMAGE_FIELDS = ("image", "images", "file_name", "file_names")
IMAGES = "__images__"
"""Field of a tar's images."""
PICTURES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
TEXTS = ("txt", "text", "caption")
MAX_TEXT = 1 << 24
"""Bytes of one text in a tar."""
JSON_LINES = (".jsonl", ".ndjson", ".json")
GIVE = "give an imagefolder, JSONL, Parquet, WebDataset tars or a data set of the hub"
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def find(source: str, columns: Columns) -> Listing:
    """The records of DATA.

    Raises:
        SaevxError: there is no such data, or nothing that is read here.
    """
    path = Path(source)
    if path.is_dir():
        if (path / METADATA).is_file():
            return _json(path / METADATA, path.resolve().name, columns, ("file_name", "file_names"))
        found = sorted(path.glob("*.tar")), sorted(path.rglob("*.parquet"))
        if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file() or not any(found):
            return from_folder(path, columns)
        return _tars(found[0], path.resolve(), columns) if found[0] else from_parquet(found[1], path, columns)
    paths = [path] if path.is_file() else matching(path)
    kinds = {"".join(one.suffixes[-1:]).lower() for one in paths}
    if len(paths) == 1 and kinds <= set(JSON_LINES):
        return _json(path, path.resolve().name, columns, IMAGE_FIELDS)
    if kinds == {".tar"}:
        return _tars(paths, paths[0].resolve(), columns)
    if kinds == {".parquet"}:
        return from_parquet(paths, paths[0], columns)
    if paths and any(re.search(r"\.(tar\.\w+|tgz)$", one.name) for one in paths):
        raise SaevxError(f"{source} is compressed, so its images cannot be read one by one: unpack it to a plain .tar.")
    if paths:
        raise SaevxError(f"{source} is none of the formats read here: {GIVE}.")
    if _HUB.fullmatch(source):
        return from_hub(source, columns)
    raise SaevxError(f"There is no data at {source}: {GIVE}.")


def matching(pattern: Path) -> list[Path]:
    """Files that a glob names, in order; none where it is no glob."""
    if not set("*?[") & set(str(pattern)):
        return []
    return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


# ---- JSON


def _json(listing: Path, name: str, columns: Columns, fields: tuple[str, ...]) -> Listing:
    fields = (columns.image,) if columns.image else fields
    return Listing(name, json_records(listing), fields, listing.parent)


def json_records(listing: Path) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """The object of every line that is not blank, or of every item where a .json file is one list."""
    if listing.suffix.lower() == ".json":
        items = _whole(listing)
        if items is not None:
            for number, item in enumerate(items):
                yield f"{listing.name}:{number}", _checked(item)
            return
    with listing.open("rb") as file:
        for line, raw in enumerate(file, 1):
            if raw.strip():
                yield f"{listing.name}:{line}", _parsed(raw, first=line == 1)


def _whole(listing: Path) -> list[Any] | None:
    with listing.open("rb") as file:
        if not file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
            return None
    try:
        items = json.loads(listing.read_text("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return items if isinstance(items, list) and any(isinstance(item, dict) for item in items) else None


def _parsed(raw: bytes, *, first: bool = True) -> dict[str, Any] | BadRow:
    try:
        return _checked(json.loads(raw.decode("utf-8-sig" if first else "utf-8")))
    except UnicodeError:
        return BadRow("it is not valid Unicode")
    except (ValueError, RecursionError):
        return BadRow("it is not valid JSON")


def _checked(record: Any) -> dict[str, Any] | BadRow:
    """A record that can be written again: an object, of Unicode, with finite numbers."""
    if not isinstance(record, dict):
        return BadRow("it is not a JSON object")
    try:
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeError:
        return BadRow("it is not valid Unicode")
    except (ValueError, RecursionError):
        return BadRow("it is not valid JSON")
    return record


# ---- WebDataset


def _tars(shards: Sequence[Path], at: Path, columns: Columns) -> Listing:
    return Listing(at.stem if at.is_file() else at.name, tar_records(shards, columns), (IMAGES,), at.parent, [*shards])


def tar_records(shards: Sequence[Path], columns: Columns) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """One record a sample: members of one name up to its first dot, one after the other in a shard.

    Its id is that name; where an earlier shard has it too, the shard's name stands before it."""
    seen: set[str] = set()
    for shard in shards:
        key: str | None = None
        members: list[tuple[str, tarfile.TarInfo]] = []
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    folder, _, base = member.name.removeprefix("./").rpartition("/")
                    stem, _, kind = base.partition(".")
                    if not member.isreg() or not stem:
                        continue
                    name = f"{folder}/{stem}" if folder else stem
                    if name != key and key is not None:
                        yield f"{shard.name}:{key}", _sample(tar, shard, key, members, seen, columns)
                        members = []
                    key = name
                    members.append((kind.lower(), member))
                if key is not None:
                    yield f"{shard.name}:{key}", _sample(tar, shard, key, members, seen, columns)
        except (tarfile.TarError, OSError, EOFError) as error:
            begin = f" from sample {key} on" if key else ""
            yield shard.name, BadRow(f"shard {shard.name} cannot be read{begin} ({str(error)[:120]})")


def _sample(
    tar: tarfile.TarFile,
    shard: Path,
    key: str,
    members: list[tuple[str, tarfile.TarInfo]],
    seen: set[str],
    columns: Columns,
) -> dict[str, Any] | BadRow:
    """Its texts read, its images only located."""
    images: list[Slice | BadRow] = []
    texts: dict[str, Any] = {}
    told: dict[str, Any] = {}
    for kind, member in members:
        if kind == columns.image or (columns.image is None and kind.rpartition(".")[2] in PICTURES):
            bad = BadRow(f"its member {member.name[:120]} is stored in pieces") if member.issparse() else None
            images.append(bad or Slice(shard, member.offset_data, member.size))
        elif kind in (*TEXTS, "json", "cls", columns.text, columns.id):
            if member.size > MAX_TEXT:
                return BadRow(f"its member {member.name[:120]} has more than {MAX_TEXT >> 20} MB of text")
            file = tar.extractfile(member)
            raw = file.read() if file else b""
            if kind == "json":
                record = _parsed(raw)
                if isinstance(record, BadRow):
                    return BadRow(f"of its member {member.name[:120]}: {record}")
                told |= record
                continue
            try:
                text = raw.decode("utf-8-sig")
            except UnicodeError:
                return BadRow(f"its member {member.name[:120]} is not valid Unicode")
            texts["text" if kind in TEXTS and kind != columns.text else kind] = text
    record = {**told, **texts}
    record.setdefault("id", f"{shard.stem}/{key}" if key in seen else key)
    seen.add(key)
    if images:
        record[IMAGES] = images
    return record
