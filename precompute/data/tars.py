"""WebDataset tars: a shard's index is made from its headers alone, so members of a sample need not lie side by side."""

import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from precompute.data.disk.id_set import IdSet
from precompute.data.json_files import MAX_TEXT, TEXT_SUFFIXES, parse_record
from precompute.data.paths import unicode_name
from precompute.data.records import BadRow, Columns, Listing, Records, Slice
from precompute.data.signatures import foreign_format

IMAGES = "__images__"
"""Field of a sample's images."""
IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff")
OTHER_IMAGE_SUFFIXES = ("avif", "heic", "heif", "jp2", "jxl", "jfif", "svg")
"""Of images that are not read here: without another image the sample is rejected for it, not taken for text alone."""
TEXTS = tuple(suffix.removeprefix(".") for suffix in TEXT_SUFFIXES)
MAX_KINDS = 40
BLOCK = 512
PADDING = 1 << 20
"""Zeros behind an end mark are at most so many bytes, in practice; 10,240 by default."""


class Member(NamedTuple):
    """A file in a tar, without its bytes."""

    kind: str
    """Its name behind the first dot, in small letters."""
    name: str
    offset: int
    size: int
    sparse: bool


class Index(NamedTuple):
    """What the headers of a shard tell."""

    samples: list[tuple[str, list[Member]]]
    """Name and members of each, in the order of their first members."""
    damage: str | None
    """Why there is no more of it."""


def from_tars(shards: Sequence[Path], at: Path, columns: Columns) -> Listing:
    """A data set of tars; `at` is the folder or the first of them."""
    tars = Tars(shards, columns)
    name = at.stem if at.is_file() else at.name
    return Listing(name, tars.records, (IMAGES,), at.parent, [*shards], tars.kinds)


class Tars:
    """Shards, one index held at a time."""

    def __init__(self, shards: Sequence[Path], columns: Columns) -> None:
        self.shards, self.columns = shards, columns
        self.kinds: list[str] = []
        """Kinds of members met so far, for a person to choose among."""
        self.cached_index: tuple[Path, Index] | None = None

    def index(self, shard: Path) -> Index:
        if self.cached_index is None or self.cached_index[0] != shard:
            self.cached_index = None  # before the next is made: each may be large
            self.cached_index = shard, index_tar(shard)
        return self.cached_index[1]

    def note(self, members: list[Member]) -> None:
        for member in members:
            if len(self.kinds) < MAX_KINDS and member.kind not in self.kinds:
                self.kinds.append(member.kind)

    def records(self) -> Records:
        """One record a sample: members of one name up to its first dot.

        Its id is that name; where an earlier sample has it too, the shard's name stands before it."""
        ids = IdSet()
        for shard in self.shards:
            index = self.index(shard)
            if index.samples:
                with shard.open("rb") as file:
                    for key, members in index.samples:
                        self.note(members)
                        yield f"{shard.name}:{key}", _sample(file, shard, key, members, ids, self.columns)
            if index.damage is not None:
                yield shard.name, BadRow(index.damage)


def index_tar(shard: Path) -> Index:
    """Read the headers of a shard; of one that is damaged or cut short, those before."""
    samples: list[tuple[str, list[Member]]] = []
    at: dict[str, int] = {}
    key: str | None = None
    n_hidden = 0
    try:
        if (file_format := foreign_format(shard)) is not None:
            return Index([], f"shard {shard.name} is {file_format}")
        if shard.stat().st_size == 0:
            return Index([], None)
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would hold a thousand bytes of each
                if not member.isreg():
                    continue
                name = unicode_name(member.name)
                folder, _, base = name.removeprefix("./").rpartition("/")
                stem, _, kind = base.partition(".")
                if not stem:
                    n_hidden += 1
                    continue
                old_key, key = key, f"{folder}/{stem}" if folder else stem
                entry = Member(kind.lower(), name, member.offset_data, member.size, member.issparse())
                is_repeat = key in at and key != old_key and any(m.name == entry.name for m in samples[at[key]][1])
                if key not in at or is_repeat:  # a name that comes again elsewhere is another sample's
                    at[key] = len(samples)
                    samples.append((key, []))
                samples[at[key]][1].append(entry)
            damage = _end(shard, tar.offset, key)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        if key is not None:
            del samples[at[key]]  # its last member may be cut
        begin = f" from sample {key} on" if key else ""
        return Index(samples, f"shard {shard.name} cannot be read{begin} ({str(error)[:120]})")
    if n_hidden and not samples and damage is None:
        damage = f"no member of shard {shard.name} is part of a sample: the names of all {n_hidden} begin with a dot"
    return Index(samples, damage)


def _end(shard: Path, offset: int, key: str | None) -> str | None:
    """What is wrong where the members of a shard end: tarfile takes a broken header for the end."""
    with shard.open("rb") as file:
        file.seek(offset)
        block = file.read(BLOCK)
        padding = file.read(PADDING)
    place = f" behind sample {key}" if key else ""
    if len(block) == BLOCK and not any(block):
        if not any(padding):
            return None
        return f"shard {shard.name} is several tars joined, read up to the first end mark{place}: keep them apart"
    if not block:
        return f"shard {shard.name} ends{place} without an end mark, so it may be cut short"
    return f"shard {shard.name} cannot be read{place} (the next header is cut or damaged)"


def _sample(
    file: IO[bytes], shard: Path, key: str, members: list[Member], ids: IdSet, columns: Columns
) -> dict[str, Any] | BadRow:
    """The record of the sample `key`: its texts, and references to its images, whose bytes are read later."""
    names = {name.lower(): name for name in (columns.text, columns.id) if name}
    image_kind = columns.image.lower() if columns.image else None
    images: list[Slice | BadRow] = []
    unreadable: list[Slice | BadRow] = []
    texts: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for member in members:
        kind, last = member.kind, member.kind.rpartition(".")[2]
        if kind == image_kind or (image_kind is None and last in (*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)):
            bad_member = BadRow(f"its member {member.name[:120]} is stored in pieces") if member.sparse else None
            is_readable = kind == image_kind or last in IMAGE_SUFFIXES
            (images if is_readable else unreadable).append(bad_member or Slice(shard, member.offset, member.size))
        elif kind in (*TEXTS, "json", "cls") or kind in names:
            content = _text(file, member)
            if isinstance(content, BadRow):
                return content
            if kind == "json":
                record = parse_record(content)
                if isinstance(record, BadRow):
                    return BadRow(f"of its member {member.name[:120]}: {record}")
                fields |= record
                continue
            try:
                text = content.decode("utf-8-sig")
            except UnicodeError:
                return BadRow(f"its member {member.name[:120]} is not valid Unicode")
            texts[names.get(kind, "text" if kind in TEXTS else kind)] = text
    record = {**fields, **texts}
    if not record and any(member.kind.rpartition(".")[2] in (*TEXTS, "json") for member in members):
        return BadRow(
            f"it has no text: a sample's name ends at the first dot of its members, as in {members[0].name[:120]}"
        )
    record.setdefault("id", key if ids.add(key) else f"{shard.stem}/{key}")
    if (images or unreadable) and not columns.text_only:
        record[IMAGES] = images or unreadable
    return record


def _text(file: IO[bytes], member: Member) -> bytes | BadRow:
    """A member's bytes."""
    if member.size > MAX_TEXT:
        return BadRow(f"its member {member.name[:120]} has more than {MAX_TEXT >> 20} MB of text")
    if member.sparse:
        return BadRow(f"its member {member.name[:120]} is stored in pieces")
    file.seek(member.offset)
    return file.read(member.size)
